"""The training loop and what it stands on: ranks, engines, averages, checkpoints."""
