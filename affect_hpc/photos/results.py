"""What is written for a photo: it with its faces edited, the edited crops, and a certificate of how they came about."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from affect_hpc import __version__
from affect_hpc.config.data import AlignConfig
from affect_hpc.config.edit import EditConfig
from affect_hpc.core.hashing import canonical
from affect_hpc.core.io import write_bytes, write_json
from affect_hpc.data.codec import UInt8Image, encode_png
from affect_hpc.data.media import BadFileError
from affect_hpc.data.paste import Weights, mask, paste
from affect_hpc.data.provenance import Kind, Setting, Signer, SyntheticFacts, mark
from affect_hpc.hpc.circumstances import commit
from affect_hpc.photos.album import Photo, read
from affect_hpc.photos.editing import Edit
from affect_hpc.photos.model import Model

JPEG_QUALITY = 95


class Paste(Enum):
    """How an edited crop comes back into its photo."""

    difference = "what the edit changed is added to the photo, which keeps its sharpness"
    whole = "the crop replaces the photo's pixels"


@dataclass(frozen=True)
class Writer:
    """Writes the edits of photos.

    Args:
        out: folder to write to.
        device: what computed the edits, for the certificate.
        signer: who signs the marks; None leaves the pictures unmarked.
        jpeg: whether the edit of a JPEG is one as well; all others are PNG.
    """

    out: Path
    model: Model
    edit: EditConfig
    align: AlignConfig
    device: str
    signer: Signer | None
    way: Paste = Paste.difference
    jpeg: bool = False

    def paths(self, photo: Photo) -> list[Path]:
        """All that may be written for a photo, but for the crops of its second and later faces."""
        names = [f"{photo.stem}_{target}" for target in self.edit.targets]
        ends = (".png", ".jpg", "_crop.png")
        return [self.out / f"{photo.stem}.json", *(self.out / (name + end) for name in names for end in ends)]

    def write(self, photo: Photo, edits: Sequence[Edit]) -> list[Path]:
        """Write everything of a photo, its certificate last; returns the edited photos, a path for each target.

        Args:
            edits: its faces.

        Raises:
            BadFileError: the photo has changed since its faces were cut out, or an inversion left the finite numbers.
        """
        if any(edit.certificate.round_trip_db == 0 for edit in edits):
            raise BadFileError("cannot be edited, its inversion left the finite numbers: give a smaller --gamma")
        digest, image = read(photo)
        if digest != edits[0].face.digest:
            raise BadFileError("has changed while it was edited: edit it again")
        profile, is_jpeg = _looked_at(photo.path)
        kind: Kind = "jpeg" if self.jpeg and is_jpeg else "png"
        weights = np.maximum.reduce([mask(edit.face.place) for edit in edits])
        contents: dict[str, bytes] = {}
        results: dict[str, Any] = {}
        whole: list[Path] = []
        for target in self.edit.targets:
            name = f"{photo.stem}_{target}"
            facts = self._facts(name, target, edits)
            pasted = _encoded(self._pasted(image, edits, target), kind, profile)
            files = {f"{name}.{'jpg' if kind == 'jpeg' else 'png'}": self._marked(pasted, kind, facts)}
            whole.append(self.out / next(iter(files)))
            for number, edit in enumerate(edits, 1):
                tail = f"_{number}" if number > 1 else ""
                files[f"{name}_crop{tail}.png"] = self._marked(encode_png(edit.images[target]), "png", facts)
            contents |= files
            digests = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
            results[target] = {"files": digests, "outside_of_mask": outside_of(weights, image, pasted)}
        for file, content in contents.items():
            write_bytes(self.out / file, content)
        source = {"file": photo.path.name, "sha256": digest, "height": image.shape[0], "width": image.shape[1]}
        write_json(self.out / f"{photo.stem}.json", {"photo": source, "results": results, **self._certificate(edits)})
        return whole

    def _pasted(self, image: UInt8Image, edits: Sequence[Edit], target: str) -> UInt8Image:
        for edit in edits:
            base = edit.unedited if self.way is Paste.difference else None
            image = paste(image, edit.face.place, edit.images[target], base)
        return image

    def _marked(self, content: bytes, kind: Kind, facts: SyntheticFacts) -> bytes:
        return mark(content, kind, facts, self.signer) if self.signer is not None else content

    def _facts(self, title: str, target: str, edits: Sequence[Edit]) -> SyntheticFacts:
        inverters = ", ".join(dict.fromkeys(edit.certificate.inverter for edit in edits))
        settings: dict[str, Setting] = {
            "target": target,
            "gamma": self.edit.gamma,
            "encode_gamma": self.edit.resolved_encode_gamma(),
            "t0": self.edit.t0,
            "steps": self.edit.num_steps,
            "inverter": inverters,
            "weights": self.model.digests["ldm"],
        }
        return SyntheticFacts(self.model.name, edited=True, settings=settings, title=title)

    def _certificate(self, edits: Sequence[Edit]) -> dict[str, Any]:
        return {
            "faces": [
                {
                    "label": edit.face.label.emotion,
                    "label_said_by": edit.face.label.said_by,
                    "label_probability": edit.face.label.probability,
                    "affine": edit.face.place.affine.round(6).tolist(),
                    **asdict(edit.certificate),
                }
                for edit in edits
            ],
            "edit": {**_settings(self.edit), "paste": self.way.name},
            "align": canonical(self.align),
            "crop_size": self.model.size,
            "model": {
                "name": self.model.name,
                **self.model.digests,
                "first_stage_name": self.model.first_stage.name,
            },
            "terms": self.model.terms,
            "code": {"version": __version__, "commit": commit()},
            "device": self.device,
            "marked": self.signer is not None,
        }


def _settings(edit: EditConfig) -> dict[str, Any]:
    """An edit as JSON, without what speaks of a corpus."""
    kept = {name: value for name, value in canonical(edit).items() if name not in ("targets", "num_samples")}
    return {**kept, "encode_gamma": canonical(edit.resolved_encode_gamma())}


def outside_of(weights: Weights, photo: UInt8Image, content: bytes) -> Mapping[str, Any]:
    """How a written photo compares with its source where no face was pasted.

    Args:
        weights: (H, W), 0 where nothing was pasted.
        photo: (H, W, 3), the source.
        content: the file.

    Returns:
        pixels: how many there are; identical: whether all are the same to the bit; psnr_db: over them, None where they
        are identical.
    """
    where = weights == 0
    with Image.open(io.BytesIO(content)) as written:
        off = np.asarray(written.convert("RGB"))[where].astype(np.float64) - photo[where]
    error = float(np.square(off).mean()) if off.size else 0.0
    psnr = round(10 * float(np.log10(255**2 / error)), 3) if error else None
    return {"pixels": int(where.sum()), "identical": not error, "psnr_db": psnr}


def _looked_at(path: Path) -> tuple[bytes | None, bool]:
    """The colour profile of an RGB photo, which its edit needs as well, and whether it is a JPEG."""
    with Image.open(path) as image:
        return image.info.get("icc_profile") if image.mode in ("RGB", "RGBA") else None, image.format == "JPEG"


def _encoded(image: UInt8Image, kind: Kind, profile: bytes | None) -> bytes:
    buffer = io.BytesIO()
    if kind == "jpeg":
        Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0, icc_profile=profile)
    else:
        Image.fromarray(image).save(buffer, "PNG", icc_profile=profile)
    return buffer.getvalue()
