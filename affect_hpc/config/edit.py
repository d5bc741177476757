"""The keys of an edit: what sweeps vary."""

from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise

from affect_hpc.config.checks import in_range, one_of
from affect_hpc.config.train import Precision
from affect_hpc.core.emotions import EMOTIONS, TARGETS
from affect_hpc.core.errors import UserError

REFINEMENTS, MIXING, BOUND_DB = 3, 0.97, 30.0
"""Of the inverters, where nobody says otherwise."""


class TimeInput(Enum):
    """Which time the network sees while encoding from level tau_(k-1) to tau_k (D-14)."""

    next = "tau_k, as the original code"
    current = "tau_(k-1), as Eq. 4.18"


class Spacing(Enum):
    """How the visited timesteps are chosen (D-46)."""

    linspace = "1, then evenly up to t0 (editing)"
    leading_plus_one = "every (T / N)-th, plus one (generation)"


def timesteps(spacing: Spacing, num_steps: int, t0: int, num_timesteps: int, key: str = "edit") -> list[int]:
    """The visited levels tau_1 < ... < tau_N, 0-based indices into alpha_bar (D-46).

    linspace: 1, then int(j t0 / (N - 1)) for j = 1 .. N-1, ending at t0. leading_plus_one: every (T // S)-th index plus
    one, where S = ``num_steps`` steps would cover all T levels, up to ``t0``.

    Raises:
        UserError: fewer than two levels, or two equal ones; ``key`` is where the settings stand.
    """
    if spacing is Spacing.linspace:
        if num_steps < 2:
            raise UserError(f"{key}.num_steps={num_steps} is too small: linspace spacing needs at least 2.")
        taus = [1] + [int(j * t0 / (num_steps - 1)) for j in range(1, num_steps)]
    else:
        taus = [t + 1 for t in range(0, num_timesteps, num_timesteps // num_steps) if t + 1 <= t0]
    if len(taus) < 2 or any(a >= b for a, b in pairwise(taus)):
        raise UserError(
            f"{key}.num_steps={num_steps} up to level {t0} with spacing={spacing.name} visits the levels "
            f"{taus[:8]}..., which do not rise: choose fewer steps or a higher level."
        )
    return taus


class EndLevel(Enum):
    """Noise level that a clean latent is taken to have."""

    first = "abar[0], as the original code"
    clean = "exactly 1"


class Inverter(Enum):
    """How a face is followed back to its noisy latent, and how the edit takes it up from there."""

    ddim = "deterministic DDIM run backwards, as in the thesis"
    fixed_point = "the same, each step solved by iteration instead of taken with the noise of the step before"
    coupled = "two latents that take turns, each step exactly invertible (EDICT)"
    direct = "DDIM, and the error of each step is stored and added back while decoding"
    auto = "of these, for each face, the first in the order of their cost that keeps edit.bound_db"


@dataclass
class EditConfig:
    """Emotion editing by deterministic DDIM inversion (thesis section 4.4, Eq. 4.13-4.19)."""

    gamma: float = 3.0
    """Guidance scale while decoding; 1 = conditional only."""
    encode_gamma: float | str = "same"
    """Guidance scale while encoding: a number, or 'same' as gamma (D-13)."""
    t0: int = 500
    """Editing strength: index of the highest noise level used."""
    num_steps: int = 40
    """DDIM steps of each pass."""
    targets: list[str] = field(default_factory=lambda: list(TARGETS))
    num_samples: int = 0
    """Validation faces that are edited, the first ones in shard order; 0 = all."""
    batch_size: int = 32
    """Faces that are inverted, decoded (times the targets) and judged together; fixed, so that no division into parts
    can change a bit."""
    time_input: TimeInput = TimeInput.next
    spacing: Spacing = Spacing.linspace
    end_level: EndLevel = EndLevel.first
    precision: Precision = Precision.fp32
    """Arithmetic of the noise predictor in both passes; bf16 takes about half the time."""
    inverter: Inverter = Inverter.ddim
    refinements: int = REFINEMENTS
    """inverter=fixed_point: evaluations of the network in each step beyond the first."""
    mixing: float = MIXING
    """inverter=coupled: weight of a latent's own value where the two are mixed (EDICT's p). Its authors take 0.93;
    under guidance that drives the two apart, and edits start from far off."""
    bound_db: float = BOUND_DB
    """inverter=auto: least PSNR of the round trip under the face's own label."""

    def resolved_encode_gamma(self) -> float:
        """The guidance scale of the encoding pass as a number."""
        return self.gamma if self.encode_gamma == "same" else float(self.encode_gamma)

    def check(self, num_timesteps: int) -> None:
        """Raise UserError where a value is out of range for a process of ``num_timesteps`` levels."""
        in_range("edit.gamma", self.gamma, 1, 100)
        if isinstance(self.encode_gamma, str) and self.encode_gamma != "same":
            raise UserError(
                f"edit.encode_gamma={self.encode_gamma!r} is unknown: give 'same' or a number from 1 to 100."
            )
        in_range("edit.encode_gamma", self.resolved_encode_gamma(), 1, 100)
        in_range("edit.t0", self.t0, 2, num_timesteps - 1)
        in_range("edit.num_steps", self.num_steps, 2, self.t0)
        timesteps(self.spacing, self.num_steps, self.t0, num_timesteps)
        in_range("edit.batch_size", self.batch_size, 1, 100_000)
        one_of("edit.precision", self.precision.name, ("fp32", "bf16"))
        in_range("edit.num_samples", self.num_samples, 0, 10_000_000)
        in_range("edit.refinements", self.refinements, 1, 100)
        in_range("edit.mixing", self.mixing, 0.9, 1)
        in_range("edit.bound_db", self.bound_db, 0, 80, "dB")
        if not self.targets:
            raise UserError(f"edit.targets is empty: give a list out of {', '.join(EMOTIONS)}.")
        for target in self.targets:
            one_of("edit.targets", target, EMOTIONS)
        if len(set(self.targets)) != len(self.targets):
            raise UserError(f"edit.targets={self.targets} names an emotion twice: name each once.")
