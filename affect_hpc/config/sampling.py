"""How faces are drawn from noise."""

from dataclasses import dataclass
from enum import Enum

from affect_hpc.config.checks import in_range, one_of
from affect_hpc.config.edit import Spacing, timesteps
from affect_hpc.config.train import Precision


class Sampler(Enum):
    """Which solver goes from noise to a latent."""

    ddpm = "ancestral steps with the posterior's variance (Ho et al. 2020, Algorithm 2)"
    ddim = "any share eta of fresh noise, 0 is deterministic (Song et al. 2021, Eq. 12)"
    plms = "pseudo linear multi-step of fourth order (Liu et al. 2022)"
    dpm_solver = "DPM-Solver++ 2M (Lu et al. 2022)"


@dataclass
class SamplerConfig:
    """Solver, steps and guidance (thesis section 4.3.3: DDIM, 500 steps, eta 1, gamma 1)."""

    name: Sampler = Sampler.ddim
    num_steps: int = 500
    eta: float = 1.0
    """name=ddim: share of fresh noise, 0 .. 1."""
    spacing: Spacing = Spacing.leading_plus_one
    gamma: float = 1.0
    """Guidance scale: 0 = unconditional, 1 = conditional."""
    gamma_from: int = 0
    """Lowest noise level at which gamma acts; below it the scale is 1."""
    gamma_to: int = 100_000
    """Highest one (Kynkaanniemi et al. 2024); above it the scale is 1."""
    clip: float = 0.0
    """Largest value of a clean latent that a step may predict; 0 = any (thesis). At the highest levels a small error of
    the noise is a large one of the latent, and the faces of short trainings drown in it: 2.5 keeps them."""
    precision: Precision = Precision.fp32

    def check(self, key: str, num_timesteps: int) -> None:
        """Raise UserError where a value is out of range; ``key`` is where this config stands."""
        in_range(f"{key}.num_steps", self.num_steps, 2, num_timesteps)
        timesteps(self.spacing, self.num_steps, num_timesteps - 1, num_timesteps, key)
        in_range(f"{key}.eta", self.eta, 0, 1)
        in_range(f"{key}.gamma", self.gamma, 0, 100)
        in_range(f"{key}.gamma_from", self.gamma_from, 0, 100_000)
        in_range(f"{key}.gamma_to", self.gamma_to, self.gamma_from, 100_000)
        in_range(f"{key}.clip", self.clip, 0, 1000)
        one_of(f"{key}.precision", self.precision.name, ("fp32", "bf16"))
