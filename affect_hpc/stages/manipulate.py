"""Decode inverted faces under every target label (thesis section 4.4, Eq. 4.19)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import VQModel
from torch import Tensor

from affect_hpc.config.edit import MIXING, REFINEMENTS, Inverter
from affect_hpc.config.stages import ManipulateConfig
from affect_hpc.config.train import Precision
from affect_hpc.core.blocks import own_blocks
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.hashing import canonical
from affect_hpc.core.io import read_json, write_json
from affect_hpc.core.progress import Progress
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.codec import UInt8Image, encode_png, tensor_to_images
from affect_hpc.data.images import stacked
from affect_hpc.data.provenance import SyntheticFacts
from affect_hpc.data.shards import ShardSet, ShardWriter
from affect_hpc.diffusion import inversion
from affect_hpc.models import first_stage
from affect_hpc.models.ldm import Ldm
from affect_hpc.stages.marking import Marker, name_of
from affect_hpc.stages.precompute_latents import CERTIFICATE, OWN, path_and_predictor
from affect_hpc.train.comm import Ranks, device_of

ROUND_TRIP = "round_trip"
"""Member name of the face decoded under its true label."""
INVERSION = ("inverter", "refinements", "mixing", "bound_db")
"""What an edit says of how its faces were inverted; left out where it is the usual."""


def run(cfg: ManipulateConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Write this part's edited faces as PNG; all targets of a block are one batch."""
    torch.set_num_threads(cfg.threads)
    inverted = ShardSet.open(inputs.many("latents"))
    encoding = read_json(inputs.many("latents")[0] / "latents.json")
    device = device_of(Ranks.of_environment())
    model = first_stage.load(inputs.one("first_stage")).to(device)
    editor = Editor(cfg, encoding, Ldm.load(inputs.one("ldm"), device), model)
    marker = Marker.of(cfg.provenance, place)
    names = [*cfg.targets, *([ROUND_TRIP] if cfg.round_trip else [])]
    mine = own_blocks(len(inverted), cfg.batch_size, inputs, place)
    with (
        Progress("manipulate", sum(map(len, mine)) * len(names), "image") as progress,
        torch.inference_mode(),
        ShardWriter(place.out, f"images-{place.part:05d}") as writer,
    ):
        for block in mine:
            images = editor.images([Start.of_shard(inverted, index, device) for index in block], names)
            for row, index in enumerate(block):
                sample = inverted[index]
                members = {f"{name}.png": encode_png(images[row, name]) for name in names}
                writer.write(sample.key, members, sample.info)
            progress.advance(len(images))
    inverter = {"inverter": Inverter.ddim.name, **{k: v for k, v in encoding.items() if k in INVERSION}}
    settings = {**canonical(cfg), "encode_gamma": encoding["gamma"], **inverter}
    write_json(place.out / "edit.json", settings)
    told = {**settings, "targets": ", ".join(cfg.targets)}
    marker.shards(place.out, SyntheticFacts(name_of(inputs.one("ldm")), edited=True, settings=told, title="faces"))
    return Outcome({"images": sum(map(len, mine)) * len(names)})


@dataclass(frozen=True)
class Start:
    """An inverted face, as its edits start from it."""

    label: int
    """Its own."""
    inverter: str
    state: Mapping[str, Tensor]
    """See ``inversion.Certified``, as is ``z_own``."""
    z_own: Tensor

    @classmethod
    def of_shard(cls, inverted: ShardSet, index: int, device: torch.device) -> "Start":
        """Face ``index`` of precompute_latents."""
        sample = inverted[index]
        arrays = {
            name.removesuffix(".npy"): stacked(inverted, [index], name)[0].to(device)
            for name in sample.members
            if name.endswith(".npy")
        }
        z_own = arrays.pop(OWN.removesuffix(".npy"))
        return cls(sample.label, sample.info[CERTIFICATE]["inverter"], arrays, z_own)


class Editor:
    """Decodes blocks of inverted faces.

    Args:
        encoding: config that they were inverted with.
    """

    def __init__(self, cfg: ManipulateConfig, encoding: Mapping[str, Any], ldm: Ldm, model: VQModel) -> None:
        self.ldm, self.model, self.low_precision = ldm, model, cfg.precision is Precision.bf16
        self.path, self.predict = path_and_predictor(cfg, ldm)
        # The certificate's way back is the edit to a face's own emotion, where both passes have the same guidance.
        self.own_is_there = encoding["gamma"] == canonical(cfg.gamma)
        self.mixing = encoding.get("mixing", MIXING)

    def images(self, block: Sequence[Start], names: Sequence[str]) -> dict[tuple[int, str], UInt8Image]:
        """(row of the block, name) -> image (H, W, 3).

        What is decoded together is a function of the block alone: the bits hang on no division into parts.

        Args:
            names: emotions, or ROUND_TRIP for a face's own one.
        """
        label = {
            (row, name): start.label if name == ROUND_TRIP else EMOTIONS.index(name)
            for name in names
            for row, start in enumerate(block)
        }
        wanted = dict.fromkeys((row, target) for (row, _), target in label.items())
        there = [pair for pair in wanted if self.own_is_there and pair[1] == block[pair[0]].label]
        latents = {(row, target): block[row].z_own for row, target in there}
        by_inverter: dict[str, list[tuple[int, int]]] = {}
        for pair in wanted:
            if pair not in latents:
                by_inverter.setdefault(block[pair[0]].inverter, []).append(pair)
        for used, pairs in by_inverter.items():
            latents |= dict(zip(pairs, self._decoded(block, used, pairs), strict=True))
        z = torch.stack([latents[pair] for pair in wanted])
        faces = tensor_to_images(first_stage.decode(self.model, self.ldm.norm.restore(z), self.low_precision))
        images = dict(zip(wanted, faces, strict=True))
        return {(row, name): images[row, target] for (row, name), target in label.items()}

    def _decoded(self, block: Sequence[Start], used: str, pairs: Sequence[tuple[int, int]]) -> Sequence[Tensor]:
        """The latent of each (row, label), all in one batch."""
        method = inversion.method(Inverter[used], REFINEMENTS, self.mixing)
        starts = [block[row] for row, _ in pairs]
        state = {name: torch.stack([start.state[name] for start in starts]) for name in starts[0].state}
        labels = torch.tensor([label for _, label in pairs], device=starts[0].z_own.device)
        return list(method.decode(state, labels, self.path, self.predict))
