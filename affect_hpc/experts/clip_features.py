"""Image features of CLIP (Radford et al. 2021): the projected embedding of its image side, not normalised.

Source: openai/clip-vit-base-patch16 of the Hugging Face hub, licence MIT, run by transformers from a folder that the
user supplies; any CLIP in that layout will do. Input of the network: RGB, 224 px (bicubic, then the middle), CLIP's own
mean and deviation.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel

from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json
from affect_hpc.experts.pixels import standardised

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class ClipFeatures(nn.Module):
    """The image side of a CLIP."""

    name = "clip"

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.side: int = model.config.vision_config.image_size
        self.dim: int = model.config.projection_dim
        self.vision: nn.Module = model.vision_model
        self.projection: nn.Module = model.visual_projection

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] -> (B, dim) float32. Differentiable."""
        weight = self.projection.get_parameter("weight")
        x = standardised(middle(images.to(weight), self.side), MEAN, STD)
        out: Tensor = self.projection(self.vision(pixel_values=x).pooler_output)
        return out


def middle(images: Tensor, side: int) -> Tensor:
    """(B, C, H, W) -> (B, C, side, side): bicubic until the shorter side is ``side``, then the middle of the longer."""
    height, width = images.shape[-2:]
    rows, columns = (round(side * size / min(height, width)) for size in (height, width))
    if (rows, columns) != (height, width):
        images = functional.interpolate(images, (rows, columns), mode="bicubic", antialias=True).clamp(-1, 1)
    top, left = (rows - side) // 2, (columns - side) // 2
    return images[:, :, top : top + side, left : left + side]


def load(files: dict[str, Path]) -> ClipFeatures:
    """The features with the weights in the folder of the files that config/supplied.py names.

    Raises:
        UserError: the folder holds no CLIP, or one that lacks weights.
    """
    folder = files["config.json"].parent
    kind = read_json(files["config.json"]).get("model_type")
    if kind != "clip":
        raise UserError(
            f"{files['config.json']} describes a network of type {kind!r}: experts.features=clip needs a clip."
        )
    loader: Any = CLIPModel
    try:
        model, report = loader.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except Exception as error:  # damaged files make the readers of either format fail in their own ways
        reason = str(error).strip().partition("\n")[0].rstrip(".:")
        raise UserError(f"{folder} holds no CLIP as transformers saves it ({reason}): get its files again.") from None
    absent = sorted(report["missing_keys"])
    if absent:
        raise UserError(f"{folder} lacks {absent[0]}: it must be a CLIP with its image side and text side.")
    return ClipFeatures(model).eval().requires_grad_(False)
