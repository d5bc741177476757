"""The kinds of cases of a latent diffusion model: what is computed for each, by the product's own code."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from parity_folder import CASES, CHECKPOINT, CONFIG, Case, to_double
from torch import Tensor

from affect_hpc.config.edit import MIXING, REFINEMENTS, EndLevel, Inverter, Spacing, TimeInput, timesteps
from affect_hpc.config.sampling import Sampler, SamplerConfig
from affect_hpc.core.errors import UserError
from affect_hpc.diffusion import ddim, inversion
from affect_hpc.diffusion.guidance import ALL_LEVELS, LogProb, Predict, classifier_guided, clipped, guided
from affect_hpc.diffusion.sampling import sampler
from affect_hpc.diffusion.schedule import alpha_bars, betas
from affect_hpc.models import classifier, first_stage, pretrained
from affect_hpc.models.ldm import Ldm
from affect_hpc.models.pretrained import Pretrained, Weights

STATES: Mapping[Inverter, tuple[str, ...]] = {
    Inverter.coupled: (inversion.START, inversion.TWIN),
    Inverter.direct: (inversion.START, inversion.OFFSETS),
}
"""What decoding starts from, where that is more than z_t0."""


@dataclass(frozen=True)
class World:
    """A model, in the precision that all is computed in.

    Args:
        folder: that it is from.
        double: everything is float64.
    """

    folder: Path
    model: Pretrained
    double: bool = False

    @classmethod
    def read(cls, folder: Path) -> "World":
        """Raises UserError where checkpoint or config is missing or wrong."""
        for name in (CHECKPOINT, CONFIG):
            if not (folder / name).is_file():
                raise UserError(f"{folder} holds no {name}, which its {CASES} asks for: add it.")
        return cls(folder, pretrained.read(folder / CHECKPOINT, folder / CONFIG))

    def in_double(self) -> "World":
        """The same in float64; a classifier computes in float32 always."""
        model = copy.deepcopy(self.model)
        for network in (model.first_stage, model.raw, model.averaged, model.embedding):
            if network is not None:
                network.double()
        return replace(self, model=model, double=True)

    @property
    def levels(self) -> int:
        """How many there are."""
        return self.model.diffusion.num_timesteps

    @cached_property
    def log_prob(self) -> LogProb:
        """The classifier of noisy latents that lies in the folder; UserError where there is none that fits."""
        channels, classes = self.model.first_stage.config.vq_embed_dim, self.model.condition.num_classes
        # A network made in inference mode could not be differentiated.
        with torch.inference_mode(False):
            return classifier.load(self.folder, torch.device("cpu"), channels, classes)

    # Inputs of cases

    def image(self, case: Case) -> Tensor:
        """(B, 3, H, W)."""
        return self._cast(case.floats("image", (None, 3, None, None), "shape (B, 3, H, W)"))

    def latents(self, case: Case, what: str = "latent", like: Tensor | None = None) -> Tensor:
        """(B, C, h, w) with the channels of the model; of the shape of ``like``, where that is given."""
        channels = self.model.first_stage.config.vq_embed_dim
        if like is None:
            return self._cast(case.floats(what, (None, channels, None, None), f"shape (B, {channels}, h, w)"))
        return self._cast(case.floats(what, tuple(like.shape), f"shape {tuple(like.shape)}"))

    def labels(self, case: Case, what: str, count: int) -> Tensor:
        """(B,) int64."""
        return case.integers(what, count, self.model.condition.null_index, "a class of each sample")

    def _cast(self, tensor: Tensor) -> Tensor:
        return to_double(tensor) if self.double else tensor.float()

    # The noise predictor, and where it is asked

    def ldm(self, case: Case) -> Ldm:
        """With averaged weights, unless the case says raw."""
        weights = case.word("weights", Weights.ema)
        if weights is Weights.ema and self.model.averaged is None:
            raise UserError(f"{self.folder / CHECKPOINT} holds no averaged weights, which {case.name} needs: add them.")
        return self.model.ldm(weights)

    def predictor(self, case: Case, gamma: float) -> Predict:
        """Guided, and cut, as drawing has it."""
        ldm = self.ldm(case)
        levels = case.whole("gamma_from", ALL_LEVELS[0]), case.whole("gamma_to", ALL_LEVELS[1])
        if levels[0] > levels[1]:
            raise UserError(
                f"{case.folder.file}: {case.name} has guidance at no level from {levels[0]} to {levels[1]}."
            )
        predict = guided(ldm.predictor(low_precision=False), gamma, ldm.condition.null_index, levels)
        bars = alpha_bars(ldm.diffusion)
        if scale := case.number("classifier_scale", 0):
            predict = classifier_guided(predict, self.log_prob, scale, bars)
        return clipped(predict, case.number("clip", 0), bars)

    def path(self, case: Case, spacing: Spacing, t0: str) -> ddim.Path:
        """The visited levels. A t0 with a decimal point is a share of all levels.

        Args:
            spacing, t0: where the case does not say.
        """
        count, steps = self.levels, case.whole("steps", 0)
        said = case.settings.get("t0", t0)
        level = int(float(said) * count) if "." in said else int(float(said))
        if not 2 <= level < count:
            raise UserError(f"{case.folder.file}: t0_{said} is no level: there are {count}, counted from 0.")
        if steps > count:
            raise UserError(f"{case.folder.file}: {case.name} has {steps} steps, but there are {count} levels.")
        taus = timesteps(case.word("spacing", spacing), steps, level, count)
        ends = case.word("end_level", EndLevel.first), case.word("time_input", TimeInput.next)
        return ddim.Path(taus, alpha_bars(self.model.diffusion), *ends)


Compute = Callable[[World, Case], Tensor]


@dataclass(frozen=True)
class Kind:
    """Cases that are computed alike.

    Args:
        results: last parts of their names.
        required, optional: settings of their names.
    """

    results: frozenset[str]
    compute: Compute
    required: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()

    def has(self, case: Case) -> bool:
        """Whether a case is of this kind."""
        settings = case.settings.keys()
        return case.what in self.results and self.required <= settings <= self.required | self.optional


def _first_stage(world: World, case: Case) -> Tensor:
    vqgan = world.model.first_stage
    if case.what == "latent":
        return first_stage.encode(vqgan, world.image(case))
    latent = world.latents(case)
    if case.what == "reconstruction":
        return first_stage.decode(vqgan, latent)
    quantised, _, (_, _, index) = vqgan.quantize(latent)
    found: Tensor = quantised if case.what == "latent_quantized" else index.reshape(len(latent), *latent.shape[2:])
    return found


def _schedule(world: World, case: Case) -> Tensor:
    """Levels of noise, (T,)."""
    return torch.from_numpy(betas(world.model.diffusion)) if case.what == "betas" else alpha_bars(world.model.diffusion)


def _noise(world: World, case: Case) -> Tensor:
    """Prediction for the labels (cond), or for none (null); eps: guided by the settings."""
    latent = world.latents(case)
    t = case.integers("t", len(latent), world.levels - 1, "a level of each sample")
    label = world.labels(case, "label", len(latent))
    if case.what == "eps":
        return world.predictor(case, case.number("gamma", 1))(latent, t, label)
    _, kind, weights = case.what.split("_")
    if kind == "null":
        label = torch.full_like(label, world.model.condition.null_index)
    noise: Tensor = world.model.denoiser(Weights[weights])(latent, t, label)
    return noise


def _edit(world: World, case: Case) -> Tensor:
    """One result of an edit; gamma acts in both passes, unless encode_gamma is another one."""
    path = world.path(case, Spacing.linspace, "")
    if case.what == "timesteps":
        return torch.tensor(path.taus)
    if case.what in ("x_edit", "x_own"):
        return _pictures(world, case, case.what.replace("x", "z", 1))
    kind = case.word("inverter", Inverter.ddim)
    method = inversion.method(kind, case.whole("refinements", REFINEMENTS), case.number("mixing", MIXING))
    gamma = case.number("gamma", 1)
    encode = world.predictor(case, case.number("encode_gamma", gamma))
    latent = world.latents(case)
    source = world.labels(case, "source_label", len(latent))
    names = STATES.get(kind, (inversion.START,))
    if case.what in (inversion.START, inversion.TWIN, inversion.OFFSETS):
        if case.what not in names:
            raise UserError(f"{case.folder.file}: {case.name}: inverter {kind.name} has no {case.what}: take it out.")
        return method.invert(world.ldm(case).norm.normalise(latent), source, path, encode).state[case.what]
    likes = {inversion.OFFSETS: latent[:, None].expand(-1, len(path.taus), -1, -1, -1)}
    state = {name: world.latents(case, name, likes.get(name, latent)) for name in names}
    if case.what == "z_own":
        return method.decode(state, source, path, encode)
    target = world.labels(case, "target_label", len(latent))
    return method.decode(state, target, path, world.predictor(case, gamma))


def _drawing(world: World, case: Case) -> Tensor:
    """One result of drawing from the noise ``z_start``; ``noise`` (N, B, C, h, w) is that of the steps as they come."""
    path = world.path(case, Spacing.leading_plus_one, str(world.levels - 1))
    if case.what == "timesteps":
        return torch.tensor(path.taus)
    if case.what == "x_sample":
        return _pictures(world, case, "z_sample")
    name = case.word("sampler", Sampler.ddim)
    if name is Sampler.ddim and case.said("eta")[0] is None:
        raise UserError(f"{case.folder.file}: {case.name} does not say its eta: put eta_<number> before z_sample.")
    if name is not Sampler.ddim and "eta" in case.settings:
        raise UserError(
            f"{case.folder.file}: {case.name} has an eta, which belongs to sampler_ddim alone: take it out."
        )
    start = world.latents(case, "z_start")
    label = world.labels(case, "sample_label", len(start))
    solve = sampler(SamplerConfig(name=name, eta=case.number("eta", 0)))
    count, steps = len(path.taus), f"shape (N, {', '.join(map(str, start.shape))})"

    def noise(k: int) -> Tensor:
        given = case.floats("noise", (None, *start.shape), steps)
        if len(given) < count:
            raise case.unfit("noise", given, f"the noise of {count} steps")
        return given[count - 1 - k].to(start.dtype)

    return solve(start, label, path, world.predictor(case, case.number("gamma", 1)), noise)


def _pictures(world: World, case: Case, latents: str) -> Tensor:
    return first_stage.decode(world.model.first_stage, world.ldm(case).norm.restore(world.latents(case, latents)))


GUIDED = frozenset({"weights", "gamma_from", "gamma_to", "classifier_scale", "clip"})
VISITED = frozenset({"spacing", "end_level"})
KINDS = (
    Kind(frozenset({"latent", "latent_quantized", "code_indices", "reconstruction"}), _first_stage),
    Kind(frozenset({"betas", "alphas_cumprod"}), _schedule),
    Kind(frozenset({"eps_cond_raw", "eps_null_raw", "eps_cond_ema", "eps_null_ema"}), _noise),
    Kind(frozenset({"eps"}), _noise, frozenset({"gamma"}), GUIDED),
    Kind(
        frozenset({"timesteps", "z_t0", "z_t0_twin", "offsets", "z_own", "x_own", "z_edit", "x_edit"}),
        _edit,
        frozenset({"t0", "gamma", "steps"}),
        VISITED | GUIDED | {"encode_gamma", "time_input", "inverter", "refinements", "mixing"},
    ),
    Kind(
        frozenset({"timesteps", "z_sample", "x_sample"}),
        _drawing,
        frozenset({"sampler", "gamma", "steps"}),
        VISITED | GUIDED | {"t0", "eta"},
    ),
)
