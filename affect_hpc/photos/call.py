"""One call of the command: which photos, how they are edited, and what is said meanwhile."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from affect_hpc.config.checks import one_of
from affect_hpc.config.edit import EditConfig
from affect_hpc.config.provenance import FOLDER
from affect_hpc.core.blocks import blocks
from affect_hpc.core.errors import UserError
from affect_hpc.core.progress import Progress
from affect_hpc.data.faces import Cropper
from affect_hpc.data.media import BadFileError
from affect_hpc.data.provenance import Signer
from affect_hpc.experts.registry import load_emotion
from affect_hpc.photos.album import Face, Labeller, Photo, faces_of, listed
from affect_hpc.photos.editing import Edit, FaceEditor
from affect_hpc.photos.model import Model
from affect_hpc.photos.results import Paste, Writer


@dataclass(frozen=True)
class Request:
    """What a user asks for; see ``python -m affect_hpc.edit --help``."""

    images: list[str]
    target: str
    """Emotions with commas between, or all."""
    out: Path
    model: str
    first_stage: str
    edit: EditConfig
    """Without its targets."""
    label: str
    judge: str
    all_faces: bool
    landmarks: str
    paste: str
    format: str
    key: str
    certificates: str
    mark: bool


class Call:
    """Edits the photos of a request, in two passes: one looks at all photos, the other edits their faces in blocks.

    Raises:
        UserError: anything but a single photo is wrong; nothing has been written then.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.failed: list[Photo] = []
        self.out = request.out.expanduser()
        self.photos = listed(request.images, self.out)
        self.model = Model.find(request.model, request.first_stage)
        self.edit = _completed(request.edit, request.target, self.model)
        self.align, self.compat = self.model.alignment(request.landmarks)
        self.signer = _signer(request)
        self.labeller = _labeller(request, self.model)

    def run(self) -> list[Photo]:
        """Edit what can be edited; returns the photos that could not be."""
        editor = FaceEditor(self.model, self.edit)
        way, jpeg = Paste[self.request.paste], self.request.format == "jpg"
        writer = Writer(self.out, self.model, self.edit, self.align, str(editor.device), self.signer, way, jpeg)
        self._refuse_to_replace(writer)
        if self.signer is None:
            print("--no-mark: nothing in these pictures will say that they are synthetic.", file=sys.stderr)
        faces = self._look()
        if faces:
            self._write(self._edited(faces, editor), writer)
        for terms in self.model.terms.values():
            print(f"the terms of {terms['name']} ({terms['version']}) bind these pictures too.", file=sys.stderr)
        return self.failed

    @cached_property
    def cropper(self) -> Cropper:
        """Cuts the faces as the model knows them."""
        return Cropper(self.align, self.model.size, self.compat)

    def _refuse_to_replace(self, writer: Writer) -> None:
        sources = {photo.path.resolve(): photo for photo in self.photos}
        for photo in self.photos:
            for path in writer.paths(photo):
                if path.resolve() in sources:
                    raise UserError(f"--out={self.out}: the edit of {photo} would replace {path}: give another folder.")

    def _look(self) -> list[Face]:
        """The faces of all photos, with labels."""
        found: list[Face] = []
        with Progress("look", len(self.photos), "photo") as progress:
            for photo in self.photos:
                try:
                    faces, left_out = faces_of(photo, self.cropper, self.labeller, self.request.all_faces)
                except BadFileError as error:
                    self._leave_out(photo, error)
                else:
                    self._tell(photo, faces, left_out)
                    found += faces
                progress.advance(1)
        return found

    def _tell(self, photo: Photo, faces: list[Face], left_out: int) -> None:
        for face in faces:
            label = face.label
            said = "as you say" if label.probability is None else f"{label.said_by}: {label.probability:.0%}"
            print(f"{photo}: {label.emotion} ({said})")
            if label.emotion in self.edit.targets:
                print(f"{photo} shows {label.emotion} already: that edit is its round trip.", file=sys.stderr)
        if left_out:
            size = self.model.size
            print(f"{photo}: {left_out} more, smaller than {size} x {size} px, stay as they are.", file=sys.stderr)

    def _edited(self, faces: list[Face], editor: FaceEditor) -> Iterator[list[Edit]]:
        """The edits of each photo, as soon as all of its faces are done."""
        done: list[Edit] = []
        with Progress("edit", len(faces), "face") as progress:
            for block in blocks(len(faces), self.edit.batch_size):
                done += editor.edited([faces[index] for index in block])
                progress.advance(len(block))
                following = faces[block.stop].photo if block.stop < len(faces) else None
                for photo in dict.fromkeys(edit.face.photo for edit in done):
                    if photo != following:
                        yield [edit for edit in done if edit.face.photo == photo]
                done = [edit for edit in done if edit.face.photo == following]

    def _write(self, edited: Iterator[list[Edit]], writer: Writer) -> None:
        for edits in edited:
            photo = edits[0].face.photo
            try:
                paths = writer.write(photo, edits)
            except BadFileError as error:
                self._leave_out(photo, error)
                continue
            except OSError as error:
                raise UserError(
                    f"--out={self.out} cannot be written to ({error.strerror}): give another one."
                ) from None
            trips = ", ".join(f"{edit.certificate.round_trip_db:.1f} dB" for edit in edits)
            print(f"{photo} -> {', '.join(map(str, paths))} (round trip {trips})")

    def _leave_out(self, photo: Photo, error: BadFileError) -> None:
        self.failed.append(photo)
        print(f"{photo} {error}.", file=sys.stderr)


def _completed(edit: EditConfig, target: str, model: Model) -> EditConfig:
    """The edit with its targets, checked."""
    targets = list(model.emotions) if target == "all" else [word.strip() for word in target.split(",")]
    complete = replace(edit, targets=targets)
    complete.check(model.num_timesteps)
    for name in targets:
        one_of("--target", name, model.emotions)
    return complete


def _labeller(request: Request, model: Model) -> Labeller:
    if request.label:
        one_of("--label", request.label, model.emotions)
        return Labeller(model.emotions, request.label, None)
    return Labeller(model.emotions, "", load_emotion(request.judge, "", None))


def _signer(request: Request) -> Signer | None:
    """Who signs the marks: the user's own key, or one that is generated once for the user."""
    if bool(request.key) != bool(request.certificates):
        given, missing = ("--key", "--certificates") if request.key else ("--certificates", "--key")
        raise UserError(f"{given} is given without {missing}: give key and certificates of one signer, or neither.")
    if not request.mark:
        return None
    if request.key:
        return Signer.of_files(Path(request.key).expanduser(), Path(request.certificates).expanduser())
    return Signer.kept_in(own_signer())


def own_signer() -> Path:
    """Folder of the signer that is generated for this user: below $XDG_DATA_HOME, else below ~/.local/share."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "affect_hpc" / FOLDER
