"""Identity judge of dlib: a 29-layer residual network, 128-d embedding.

Source: `dlib_face_recognition_resnet_model_v1.dat` of PyPI package face-recognition-models 0.3.0, licence CC0-1.0, run
by dlib (PyPI dlib-bin, Boost licence). Input of the network: RGB face, 150 px. Not differentiable, CPU only.
"""

from pathlib import Path

import dlib
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from affect_hpc.core.io import sha256_file
from affect_hpc.experts.pixels import levels, resized

SIDE = 150


class DlibIdentity:
    """Identity judge on whole crops."""

    name = "dlib"

    def __init__(self, path: Path) -> None:
        self.digest = sha256_file(path)
        """SHA-256 of the weight file: dlib does not show the weights themselves."""
        self._network = dlib.face_recognition_model_v1(str(path))

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] -> (B, 128) float32 of length 1, on the CPU."""
        pixels = levels(resized(images.detach().float().cpu(), SIDE)).round().clamp(0, 255).to(torch.uint8)
        chips = [np.ascontiguousarray(chip) for chip in pixels.permute(0, 2, 3, 1).numpy()]
        # One chip at a time: an embedding then never depends on its neighbours in the batch.
        embeddings = [np.asarray(self._network.compute_face_descriptor(chip), dtype=np.float32) for chip in chips]
        return functional.normalize(torch.from_numpy(np.stack(embeddings)), dim=1)


def load(files: dict[str, Path]) -> DlibIdentity:
    """The judge with the weights of the file that config/packaged.py names."""
    (path,) = files.values()
    return DlibIdentity(path)
