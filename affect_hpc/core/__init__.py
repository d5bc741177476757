"""Files, hashes, run folders, progress: what needs neither torch nor Hydra."""
