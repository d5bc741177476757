"""The graph of runs and the machines that run it; free of torch."""
