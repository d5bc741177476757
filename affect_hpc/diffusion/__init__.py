"""The diffusion process: schedule, objective, guidance, DDIM both ways. Knows no network."""
