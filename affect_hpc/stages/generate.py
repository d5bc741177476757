"""Faces of every emotion from noise (thesis section 4.3.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from affect_hpc.config.drawing import GenerateConfig
from affect_hpc.config.edit import timesteps
from affect_hpc.config.train import Precision
from affect_hpc.core.blocks import own_blocks
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.core.hashing import canonical
from affect_hpc.core.io import write_json
from affect_hpc.core.progress import Progress
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.codec import encode_png, tensor_to_images
from affect_hpc.data.provenance import SyntheticFacts
from affect_hpc.data.shards import ShardWriter
from affect_hpc.diffusion import ddim
from affect_hpc.diffusion.guidance import Predict, classifier_guided, clipped, guided
from affect_hpc.diffusion.noise import SampleNoise
from affect_hpc.diffusion.sampling import sampler
from affect_hpc.diffusion.schedule import alpha_bars
from affect_hpc.models import classifier, first_stage
from affect_hpc.models.ldm import Ldm
from affect_hpc.stages.marking import Marker, name_of
from affect_hpc.train.comm import Ranks, device_of

DESCRIPTION = "generation.json"
"""Beside the shards: how their faces were drawn."""


def run(cfg: GenerateConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Write this part's faces as PNG.

    Reads: first_stage, ldm; classifier, where one guides. Writes: shards, ``generation.json``.

    Raises:
        UserError: a classifier is to guide, and there is none that fits.
    """
    torch.set_num_threads(cfg.threads)
    device = device_of(Ranks.of_environment())
    ldm = Ldm.load(inputs.one("ldm"), device)
    model = first_stage.load(inputs.one("first_stage")).to(device)
    ldm.denoiser.tune()
    drawing = Drawing(cfg, ldm, _guide(cfg, inputs, ldm, device), device)
    marker = Marker.of(cfg.provenance, place)
    mine = own_blocks(cfg.per_class * ldm.condition.num_classes, cfg.batch_size, inputs, place)
    with (
        Progress("generate", sum(map(len, mine)), "face") as progress,
        torch.inference_mode(),
        ShardWriter(place.out, f"images-{place.part:05d}") as writer,
    ):
        for block in mine:
            latents = ldm.norm.restore(drawing.latents(block))
            for index, image in zip(block, tensor_to_images(first_stage.decode(model, latents)), strict=True):
                key, label = name_and_label(index, ldm.condition.num_classes)
                info = {"label": label, "identity": key, "index": index}
                writer.write(key, {"png": encode_png(image)}, info)
            progress.advance(len(block))
    settings = canonical(cfg)
    write_json(place.out / DESCRIPTION, settings)
    told = {**{name: value for name, value in settings.items() if name != "sampler"}, **settings["sampler"]}
    marker.shards(place.out, SyntheticFacts(name_of(inputs.one("ldm")), edited=False, settings=told, title="faces"))
    return Outcome({"faces": sum(map(len, mine))})


def _guide(cfg: GenerateConfig, inputs: Inputs, ldm: Ldm, device: torch.device) -> classifier.LogProb | None:
    if not cfg.classifier_scale:
        return None
    if not inputs.many("classifier"):
        raise UserError(
            f"classifier_scale={cfg.classifier_scale} asks for guidance by a classifier, and none is given: give the"
            " output of train_classifier, or 0 for no such guidance."
        )
    return classifier.load(inputs.one("classifier"), device, ldm.denoiser.latent_shape[0], ldm.condition.num_classes)


def name_and_label(index: int, num_classes: int) -> tuple[str, int]:
    """Key and label of face ``index`` of a seed.

    The emotions take turns, so that number n of an emotion is the same face however many are drawn.
    """
    number, label = divmod(index, num_classes)
    return f"{EMOTIONS[label]}-{number:06d}", label


class Drawing:
    """Draws latents by the solver and under the guidance of a config.

    Args:
        log_prob: the classifier, where one guides.
    """

    def __init__(
        self, cfg: GenerateConfig, ldm: Ldm, log_prob: classifier.LogProb | None, device: torch.device
    ) -> None:
        self.cfg, self.ldm, self.device = cfg, ldm, device
        count = ldm.diffusion.num_timesteps
        taus = timesteps(cfg.sampler.spacing, cfg.sampler.num_steps, count - 1, count)
        self.path = ddim.Path(taus, alpha_bars(ldm.diffusion))
        self.solve = sampler(cfg.sampler)
        self.predict = self._predictor(log_prob)

    def _predictor(self, log_prob: classifier.LogProb | None) -> Predict:
        how = self.cfg.sampler
        plain = self.ldm.predictor(how.precision is Precision.bf16)
        null = self.ldm.condition.null_index
        predict = guided(plain, how.gamma, null, (how.gamma_from, how.gamma_to))
        if log_prob is not None:
            predict = classifier_guided(predict, log_prob, self.cfg.classifier_scale, self.path.alpha_bar)
        return clipped(predict, how.clip, self.path.alpha_bar)

    def latents(self, indices: Sequence[int]) -> Tensor:
        """The clean latents (B, C, h, w) of these faces, as they are diffused."""
        noise = SampleNoise(self.cfg.seed, indices, self.ldm.denoiser.latent_shape, self.device)
        labels = [name_and_label(index, self.ldm.condition.num_classes)[1] for index in indices]
        return self.solve(noise.start(), torch.tensor(labels, device=self.device), self.path, self.predict, noise)
