"""Faces of photos edited in blocks, by the code of the stages that invert and decode."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from affect_hpc.config.edit import EditConfig
from affect_hpc.config.stages import InvertLatentsConfig, LatentMode, ManipulateConfig
from affect_hpc.core.hashing import canonical
from affect_hpc.data.codec import UInt8Image, images_to_tensor
from affect_hpc.diffusion.inversion import Certificate
from affect_hpc.models import first_stage
from affect_hpc.models.ldm import Ldm
from affect_hpc.photos.album import Face, id_of
from affect_hpc.photos.model import Model
from affect_hpc.stages.manipulate import ROUND_TRIP, Editor, Start
from affect_hpc.stages.precompute_latents import Inverting
from affect_hpc.train.comm import Ranks, device_of


@dataclass(frozen=True)
class Edit:
    """What became of a face."""

    face: Face
    images: Mapping[str, UInt8Image]
    """Target -> the edited crop (size, size, 3)."""
    unedited: UInt8Image
    """(size, size, 3), decoded under the face's own emotion in the same way: what differs from it is the edit's."""
    certificate: Certificate


def inversion_config(edit: EditConfig) -> InvertLatentsConfig:
    """The stage config that follows faces back to noise as ``edit`` says."""
    return InvertLatentsConfig(
        mode=LatentMode.invert,
        batch_size=edit.batch_size,
        gamma=edit.resolved_encode_gamma(),
        t0=edit.t0,
        num_steps=edit.num_steps,
        time_input=edit.time_input,
        spacing=edit.spacing,
        end_level=edit.end_level,
        precision=edit.precision,
        inverter=edit.inverter,
        refinements=edit.refinements,
        mixing=edit.mixing,
        bound_db=edit.bound_db,
    ).settled()


def decoding_config(edit: EditConfig) -> ManipulateConfig:
    """The stage config that decodes them under other labels."""
    return ManipulateConfig(
        gamma=edit.gamma,
        t0=edit.t0,
        num_steps=edit.num_steps,
        targets=list(edit.targets),
        time_input=edit.time_input,
        spacing=edit.spacing,
        end_level=edit.end_level,
        precision=edit.precision,
        batch_size=edit.batch_size,
    )


class FaceEditor:
    """The networks of a model, ready to edit."""

    def __init__(self, model: Model, edit: EditConfig) -> None:
        self.targets = list(edit.targets)
        self.device = device_of(Ranks.of_environment())
        ldm = Ldm.load(model.ldm, self.device)
        self.first_stage = first_stage.load(model.first_stage).to(self.device)
        inversion = inversion_config(edit)
        self.inverting = Inverting(inversion, ldm, self.first_stage)
        self.editor = Editor(decoding_config(edit), canonical(inversion), ldm, self.first_stage)

    @torch.inference_mode()
    def edited(self, faces: Sequence[Face]) -> list[Edit]:
        """A block of faces, edited to every target together.

        A network may round differently in another block: who wants the bits of a face to hang on no other edits
        blocks of one.
        """
        latents = first_stage.encode(self.first_stage, images_to_tensor([face.crop for face in faces]).to(self.device))
        own = torch.tensor([id_of(face.label) for face in faces], device=self.device)
        found = self.inverting.certified(latents, own)
        starts = [
            Start(id_of(face.label), one.certificate.inverter, one.state, one.z_own)
            for face, one in zip(faces, found, strict=True)
        ]
        images = self.editor.images(starts, [*self.targets, ROUND_TRIP])
        return [
            Edit(face, {name: images[row, name] for name in self.targets}, images[row, ROUND_TRIP], one.certificate)
            for row, (face, one) in enumerate(zip(faces, found, strict=True))
        ]
