"""Ways from a clean latent to what an edit starts from, and certificates of how well each leads back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from affect_hpc.config.edit import Inverter
from affect_hpc.core.errors import UserError
from affect_hpc.diffusion import ddim
from affect_hpc.diffusion.ddim import Path, step
from affect_hpc.diffusion.guidance import Predict

START, TWIN, OFFSETS = "z_t0", "z_t0_twin", "offsets"
MOST_DB = 1000.0
"""Stands for a perfect round trip, whose ratio is infinite: JSON knows no such number."""
MOST_RESIDUAL = torch.finfo(torch.float32).max
"""Stands for the residual of an iteration that left the finite numbers."""

Measure = Callable[[Tensor, Tensor], Tensor]
"""(z (B, C, h, w), z_own (B, C, h, w)) -> how alike they are, (B,) dB."""


@dataclass(frozen=True)
class Inverted:
    """Where decoding starts, for each sample of a batch."""

    state: Mapping[str, Tensor]
    """name -> (B, ...), in the type of the latents that were inverted: always z_t0 (B, C, h, w), coupled z_t0_twin
    (B, C, h, w) too, direct offsets (B, N, C, h, w). Nothing else is needed for decoding, so that it can be stored."""
    residual: Tensor
    """(B,): root mean square change of the latent in a step's last iteration, largest over the steps; 0 without any."""
    calls: int
    """Evaluations of ``predict`` for each sample; a guided one counts once."""


class Method(Protocol):
    """One way to invert, and the way to decode that belongs to it.

    ``label`` is the own one while inverting, any one while decoding; both passes take the same path. The arithmetic
    of a sample involves that sample alone; a network may still round differently in another batch.
    """

    @property
    def name(self) -> str:
        """As the ``Inverter`` of the config."""

    def invert(self, z: Tensor, label: Tensor, path: Path, predict: Predict) -> Inverted:
        """z: clean latents (B, C, h, w), taken to be at level -1; label: (B,) int64."""

    def decode(self, state: Mapping[str, Tensor], label: Tensor, path: Path, predict: Predict) -> Tensor:
        """The clean latents (B, C, h, w) under ``label``."""


@dataclass(frozen=True)
class Ddim:
    """Deterministic DDIM run backwards, each step with the noise predicted where it begins. N calls each way."""

    name = Inverter.ddim.name

    def invert(self, z: Tensor, label: Tensor, path: Path, predict: Predict) -> Inverted:
        z_t0 = ddim.encode(z, label, path, predict)
        return Inverted({START: z_t0}, z.new_zeros(len(z)), len(path.taus))

    def decode(self, state: Mapping[str, Tensor], label: Tensor, path: Path, predict: Predict) -> Tensor:
        return ddim.decode(state[START], label, path, predict)


@dataclass(frozen=True)
class FixedPoint:
    """Each step solved for the latent that DDIM would decode to where it came from (as Pan et al. 2023, AIDI).

    z_k = step(z_(k-1), predict(z_k, tau_k)) is iterated from the plain DDIM step. It converges where the predicted
    noise changes slowly enough along a step; under strong guidance it may diverge, and the residual says so. Decoding
    is plain DDIM. N (1 + refinements) calls there, N back.
    """

    refinements: int
    """Iterations of each step, >= 1."""
    name = Inverter.fixed_point.name

    def invert(self, z: Tensor, label: Tensor, path: Path, predict: Predict) -> Inverted:
        residual = z.new_zeros(len(z))
        for k in range(len(path.taus)):
            a_from, a_to = path.level(k - 1), path.level(k)
            guess = step(z, predict(z, _times(z, path.encoding_time(k)), label), a_from, a_to)
            last = guess
            for _ in range(self.refinements):
                last, guess = guess, step(z, predict(guess, _times(z, path.taus[k]), label), a_from, a_to)
            residual = torch.maximum(residual, (guess - last).square().mean(dim=(1, 2, 3)).sqrt())
            z = guess
        return Inverted({START: z}, residual, len(path.taus) * (1 + self.refinements))

    def decode(self, state: Mapping[str, Tensor], label: Tensor, path: Path, predict: Predict) -> Tensor:
        return ddim.decode(state[START], label, path, predict)


@dataclass(frozen=True)
class Coupled:
    """Two latents that take turns: each moves along the noise predicted from the other (EDICT; Wallace et al. 2023).

    A decoding step moves both, then mixes them, so that they stay together; each of its four parts is affine in what
    it changes, so encoding undoes them one by one in reverse order, exactly under the same label. Who moves first
    alternates from step to step. Both passes tell the network tau_k in step k, whatever the path's time input. 2 N
    calls each way.

    Undoing the mixture stretches the distance of the twins by 1 / mixing^2 a step, 330-fold over 40 steps at 0.93, and
    rounding errors with it: the arithmetic is float64, so that they start at 1e-16. The network sees, and the state
    keeps, the type of the latents, which loses little: on the way back the same distance shrinks again. The stretching
    also drives the twins apart where the network is strongly guided; a weight nearer to 1 keeps them together.
    """

    mixing: float
    """Weight of a latent's own value in the mixture, EDICT's p; 1 mixes nothing."""
    name = Inverter.coupled.name

    def invert(self, z: Tensor, label: Tensor, path: Path, predict: Predict) -> Inverted:
        p, twins = self.mixing, [z.double(), z.double()]
        for k in range(len(path.taus)):
            (first, second), t = (k % 2, 1 - k % 2), _times(z, path.taus[k])
            a_from, a_to = path.level(k - 1), path.level(k)
            twins[second] = (twins[second] - (1 - p) * twins[first]) / p
            twins[first] = (twins[first] - (1 - p) * twins[second]) / p
            for moved, other in ((second, first), (first, second)):
                eps = predict(twins[other].to(z.dtype), t, label).double()
                twins[moved] = step(twins[moved], eps, a_from, a_to)
        state = {START: twins[0].to(z.dtype), TWIN: twins[1].to(z.dtype)}
        return Inverted(state, z.new_zeros(len(z)), 2 * len(path.taus))

    def decode(self, state: Mapping[str, Tensor], label: Tensor, path: Path, predict: Predict) -> Tensor:
        """The first of the twins: under the own label it is the inverted latent, and so is the other."""
        z, p, twins = state[START], self.mixing, [state[START].double(), state[TWIN].double()]
        for k in reversed(range(len(path.taus))):
            (first, second), t = (k % 2, 1 - k % 2), _times(z, path.taus[k])
            a_from, a_to = path.level(k), path.level(k - 1)
            for moved, other in ((first, second), (second, first)):
                eps = predict(twins[other].to(z.dtype), t, label).double()
                twins[moved] = step(twins[moved], eps, a_from, a_to)
            twins[first] = p * twins[first] + (1 - p) * twins[second]
            twins[second] = p * twins[second] + (1 - p) * twins[first]
        return twins[0].to(z.dtype)


@dataclass(frozen=True)
class Direct:
    """DDIM, and what each step misses on the way back is stored and added again (after Ju et al. 2024, PnP Inversion).

    offset_k = z_(k-1) - step(z_k, predict(z_k, tau_k)), z_k along the path that DDIM took there. Under the own label
    and guidance decoding then follows that path back; under another label the offsets correct it by as much. They are
    taken along the way back itself, so that even rounding errors do not add up. 2 N calls there, N back.
    """

    name = Inverter.direct.name

    def invert(self, z: Tensor, label: Tensor, path: Path, predict: Predict) -> Inverted:
        passed = list(ddim.trail(z, label, path, predict))
        offsets: list[Tensor] = []
        back = passed[-1]
        for k in reversed(range(len(path.taus))):
            moved = step(back, predict(back, _times(z, path.taus[k]), label), path.level(k), path.level(k - 1))
            offsets.insert(0, passed[k] - moved)
            back = moved + offsets[0]
        state = {START: passed[-1], OFFSETS: torch.stack(offsets, dim=1)}
        return Inverted(state, z.new_zeros(len(z)), 2 * len(path.taus))

    def decode(self, state: Mapping[str, Tensor], label: Tensor, path: Path, predict: Predict) -> Tensor:
        """Raises ValueError where the state belongs to a path of another length."""
        z, offsets = state[START], state[OFFSETS]
        if offsets.shape[1] != len(path.taus):
            raise ValueError(f"{offsets.shape[1]} offsets for a path of {len(path.taus)} steps: take the inversion's.")
        for k in reversed(range(len(path.taus))):
            eps = predict(z, _times(z, path.taus[k]), label)
            z = step(z, eps, path.level(k), path.level(k - 1)) + offsets[:, k]
        return z


def method(kind: Inverter, refinements: int, mixing: float) -> Method:
    """The method that ``kind`` names; auto names several, see ``certify_cheapest``.

    Args:
        refinements: of fixed_point, >= 1.
        mixing: of coupled, in (0, 1].

    Raises:
        UserError: auto, or a setting out of range.
    """
    if kind is Inverter.ddim:
        return Ddim()
    if kind is Inverter.direct:
        return Direct()
    if kind is Inverter.fixed_point:
        if refinements < 1:
            raise UserError(f"edit.refinements={refinements} is too small: give at least 1.")
        return FixedPoint(refinements)
    if kind is Inverter.coupled:
        if not 0 < mixing <= 1:
            raise UserError(f"edit.mixing={mixing} is out of range: give a number above 0, up to 1.")
        return Coupled(mixing)
    single = ", ".join(one.name for one in Inverter if one is not Inverter.auto)
    raise UserError(f"edit.inverter={kind.name} is no single method: give one of {single}.")


@dataclass(frozen=True)
class Certificate:
    """How well one sample was inverted. All numbers are finite, so that ``dataclasses.asdict`` of it is JSON."""

    inverter: str
    round_trip_db: float
    """Of the clean latent against the one decoded under its own label, by the caller's measure, at most MOST_DB;
    0.0 where a number on the way was not finite."""
    residual: float
    """See ``Inverted``; at most MOST_RESIDUAL."""
    calls: int
    """Evaluations of the predictor for the inversion and the round trip by this inverter, without those of others that
    were tried before it."""


@dataclass(frozen=True)
class Certified:
    """An inverted sample."""

    state: Mapping[str, Tensor]
    """As in ``Inverted``, without the batch dimension."""
    z_own: Tensor
    """(C, h, w): decoded under the own label, with the guidance of the inversion."""
    certificate: Certificate


def certify(
    method: Method, z: Tensor, label: Tensor, path: Path, predict: Predict, measure: Measure
) -> list[Certified]:
    """Invert a batch, decode it under its own labels, and say of each sample how close that came.

    A network may give a sample other last bits in another batch, so the result is a function of the whole batch: who
    wants the same bits again passes the same fixed blocks of samples.

    Args:
        z: clean latents (B, C, h, w).
        label: their own labels, (B,) int64.
        measure: never sees a number that is not finite.
    """
    calls_back = 0

    def counted(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        nonlocal calls_back
        calls_back += 1
        return predict(z, t, label)

    inverted = method.invert(z, label, path, predict)
    z_own = method.decode(inverted.state, label, path, counted)
    finite = torch.stack([_finite(one) for one in (z_own, *inverted.state.values())]).all(0)
    db = measure(z, torch.where(finite[:, None, None, None], z_own, 0)).to(finite.device)
    db = torch.where(finite, db, 0).nan_to_num(nan=0, posinf=MOST_DB, neginf=0).clamp(max=MOST_DB)
    residual = inverted.residual.nan_to_num(nan=MOST_RESIDUAL, posinf=MOST_RESIDUAL)
    numbers = zip(db.tolist(), residual.tolist(), strict=True)
    return [
        Certified(
            {name: value[row] for name, value in inverted.state.items()},
            z_own[row],
            Certificate(method.name, *of_row, inverted.calls + calls_back),
        )
        for row, of_row in enumerate(numbers)
    ]


def certify_cheapest(
    methods: Sequence[Method],
    z: Tensor,
    label: Tensor,
    path: Path,
    predict: Predict,
    measure: Measure,
    bound_db: float,
) -> list[Certified]:
    """Each sample by the first of ``methods`` whose round trip keeps ``bound_db``.

    Only samples that failed go on to the next method, together. One that fails with all keeps the best of them, which
    its certificate shows: round_trip_db < bound_db. A round trip that left the finite numbers fails any bound and is
    the worst of all. See ``certify`` for the other arguments, and for why the batches are to be fixed blocks.

    Args:
        methods: in the order of their cost, the cheapest first.

    Raises:
        ValueError: no methods.
    """
    if not methods:
        raise ValueError("methods=[] inverts nothing: give at least one.")
    kept: dict[int, Certified] = {}
    left = list(range(len(z)))
    for method in methods:
        rows = torch.tensor(left, device=z.device)
        for row, one in zip(left, certify(method, z[rows], label[rows], path, predict, measure), strict=True):
            if row not in kept or _score(one) > _score(kept[row]):
                kept[row] = one
        left = [row for row in left if _score(kept[row]) < bound_db]
        if not left:
            break
    return [kept[row] for row in range(len(z))]


def _score(one: Certified) -> float:
    finite = all(bool(_finite(value[None])) for value in (one.z_own, *one.state.values()))
    return one.certificate.round_trip_db if finite else -torch.inf


def _finite(batch: Tensor) -> Tensor:
    """Which samples hold finite numbers only, (B,) bool."""
    return batch.isfinite().flatten(1).all(1)


def _times(z: Tensor, tau: int) -> Tensor:
    return torch.full((len(z),), tau, device=z.device)
