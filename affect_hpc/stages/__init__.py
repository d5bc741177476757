"""One file per stage: ``run(cfg, inputs, place) -> Outcome``."""
