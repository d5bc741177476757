"""affect_hpc: latent diffusion models of facial affect, trained, edited with and evaluated on a SLURM cluster."""

__version__ = "0.1.0"
