"""Dataclasses of the configuration, and their composition."""
