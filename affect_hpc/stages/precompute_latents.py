"""Latents that many runs share: encoded faces, and inverted validation faces with their certificates."""

from dataclasses import asdict

import torch
from diffusers import VQModel
from torch import Tensor

from affect_hpc.config.drawing import InterpolateConfig
from affect_hpc.config.edit import Inverter, timesteps
from affect_hpc.config.stages import EncodeLatentsConfig, InvertLatentsConfig, ManipulateConfig
from affect_hpc.config.train import Precision
from affect_hpc.core.blocks import own_blocks
from affect_hpc.core.hashing import canonical
from affect_hpc.core.io import write_json
from affect_hpc.core.progress import Progress
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.codec import encode_npy, tensor_to_images
from affect_hpc.data.images import FLIPPED, ImageSet, stacked
from affect_hpc.data.shards import ShardSet, ShardWriter
from affect_hpc.diffusion import ddim, inversion
from affect_hpc.diffusion.guidance import Predict, guided
from affect_hpc.diffusion.schedule import alpha_bars
from affect_hpc.metrics import paired
from affect_hpc.models import first_stage
from affect_hpc.models.ldm import Ldm
from affect_hpc.train.comm import Ranks, device_of

OWN = "own.npy"
"""Member: the latent decoded under the face's own label, with the guidance of encoding."""
BY_COST = (Inverter.ddim, Inverter.direct, Inverter.fixed_point, Inverter.coupled)
"""What inverter=auto tries, one after the other."""
CERTIFICATE = "certificate"
"""Key of a sample's certificate in its info."""


def run(cfg: EncodeLatentsConfig | InvertLatentsConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Write this part's share of the latents, in fixed blocks."""
    torch.set_num_threads(cfg.threads)
    with torch.inference_mode(), ShardWriter(place.out, f"latents-{place.part:05d}") as writer:
        if isinstance(cfg, InvertLatentsConfig):
            outcome = invert(cfg, inputs, place, writer)
        else:
            outcome = encode(cfg, inputs, place, writer)
    write_json(place.out / "latents.json", canonical(cfg))
    return outcome


def encode(cfg: EncodeLatentsConfig, inputs: Inputs, place: Workplace, writer: ShardWriter) -> Outcome:
    """Unquantised latents, the mirrored face's too where it is asked for."""
    images = ImageSet.open([folder / cfg.split for folder in inputs.many("shards")])
    device = device_of(Ranks.of_environment())
    model = first_stage.load(inputs.one("first_stage")).to(device)
    count = min(cfg.num_samples or len(images), len(images))
    mine = own_blocks(count, cfg.batch_size, inputs, place, "shards")

    def stored(faces: Tensor) -> list[bytes]:
        z = first_stage.encode(model, faces)
        return [encode_npy(latent) for latent in (z if cfg.full_precision else z.half()).cpu().numpy()]

    with Progress(f"precompute_latents {cfg.mode.name}", sum(map(len, mine)), "face") as progress:
        for block in mine:
            faces = images.batch(block).to(device)
            views = {"npy": stored(faces)}
            if cfg.flip:
                views[FLIPPED] = stored(faces.flip(3))
            for row, index in enumerate(block):
                sample = images.shards[index]
                writer.write(sample.key, {name: latents[row] for name, latents in views.items()}, sample.info)
            progress.advance(len(block))
    return Outcome({"faces": sum(map(len, mine))})


def path_and_predictor(
    cfg: InvertLatentsConfig | ManipulateConfig | InterpolateConfig, ldm: Ldm
) -> tuple[ddim.Path, Predict]:
    """The levels that a pass visits, and the guided network that it asks, which is tuned for it in place."""
    taus = timesteps(cfg.spacing, cfg.num_steps, cfg.t0, ldm.diffusion.num_timesteps)
    path = ddim.Path(taus, alpha_bars(ldm.diffusion), cfg.end_level, cfg.time_input)
    ldm.denoiser.tune()
    return path, guided(ldm.predictor(cfg.precision is Precision.bf16), cfg.gamma, ldm.condition.null_index)


class Inverting:
    """Follows blocks of encoded faces back to noise, each with its certificate."""

    def __init__(self, cfg: InvertLatentsConfig, ldm: Ldm, model: VQModel) -> None:
        self.ldm, self.model, self.bound_db = ldm, model, cfg.bound_db
        self.path, self.predict = path_and_predictor(cfg, ldm)
        kinds = [cfg.inverter] if cfg.inverter is not Inverter.auto else BY_COST
        self.methods = [inversion.method(kind, cfg.refinements, cfg.mixing) for kind in kinds]

    def certified(self, latents: Tensor, label: Tensor) -> list[inversion.Certified]:
        """A block of faces, each by the inverter that the config names or leads to.

        Args:
            latents: unquantised ones of the first stage, (B, C, h, w).
            label: their own labels, (B,) int64.
        """
        z = self.ldm.norm.normalise(latents)
        return inversion.certify_cheapest(
            self.methods, z, label, self.path, self.predict, self._round_trip_db, self.bound_db
        )

    def _round_trip_db(self, z: Tensor, own: Tensor) -> Tensor:
        restore = self.ldm.norm.restore
        images = (tensor_to_images(first_stage.decode(self.model, restore(side))) for side in (z, own))
        return torch.tensor(paired.psnr(*map(paired.unit_range, images)))


def invert(cfg: InvertLatentsConfig, inputs: Inputs, place: Workplace, writer: ShardWriter) -> Outcome:
    """What decoding starts from, each face followed back under its true label (thesis section 4.4)."""
    clean = ShardSet.open(inputs.many("latents"))
    device = device_of(Ranks.of_environment())
    model = first_stage.load(inputs.one("first_stage")).to(device)
    inverting = Inverting(cfg, Ldm.load(inputs.one("ldm"), device), model)
    mine = own_blocks(len(clean), cfg.batch_size, inputs, place)
    with Progress(f"precompute_latents {cfg.mode.name}", sum(map(len, mine)), "face") as progress:
        for block in mine:
            z = stacked(clean, block, "npy").to(device)
            label = torch.tensor([clean[i].label for i in block], device=device)
            for index, one in zip(block, inverting.certified(z, label), strict=True):
                sample = clean[index]
                members = {f"{name}.npy": encode_npy(state.cpu().numpy()) for name, state in one.state.items()}
                members[OWN] = encode_npy(one.z_own.cpu().numpy())
                writer.write(sample.key, members, {**sample.info, CERTIFICATE: asdict(one.certificate)})
            progress.advance(len(block))
    return Outcome({"faces": sum(map(len, mine))})
