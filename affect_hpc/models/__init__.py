"""The networks, at named sizes."""
