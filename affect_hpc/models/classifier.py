"""Classifier of noisy latents, for guidance: the way down of a U-Net (Dhariwal and Nichol 2021, section 4)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D, get_down_block
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json_if_there, write_json

LogProb = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(z_t (B, C, h, w), t (B,), label (B,)) -> log p(label | z_t), (B,): what diffusion.guidance takes."""
DESCRIPTION, WEIGHTS = "classifier.json", "classifier.safetensors"


class NoisyLatentClassifier(nn.Module):
    """Noisy latent and level -> class.

    Two residual blocks a level, self-attention at the lowest one and in the middle, the mean over all places. Group
    norms only: what a sample gives hangs on no other one.

    Args:
        in_channels: of the latents.
        channels: width of each level.
        head_channels: of an attention head; divides every width, and is the number of groups of the norms.
        num_classes: without a class for no label.
    """

    def __init__(self, in_channels: int, channels: Sequence[int], head_channels: int, num_classes: int) -> None:
        super().__init__()
        self.config = {
            "in_channels": in_channels,
            "channels": list(channels),
            "head_channels": head_channels,
            "num_classes": num_classes,
        }
        first, last = channels[0], channels[-1]
        time = 4 * first
        self.time_steps = Timesteps(first, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(first, time)
        self.conv_in = nn.Conv2d(in_channels, first, 3, padding=1)
        blocks = []
        for level, width in enumerate(channels):
            lowest = level == len(channels) - 1
            blocks.append(
                get_down_block(
                    "AttnDownBlock2D" if lowest else "DownBlock2D",
                    num_layers=2,
                    in_channels=channels[max(level - 1, 0)],
                    out_channels=width,
                    temb_channels=time,
                    add_downsample=not lowest,
                    resnet_eps=1e-5,
                    resnet_act_fn="silu",
                    resnet_groups=head_channels,
                    attention_head_dim=head_channels,
                    downsample_padding=1,
                    downsample_type=None if lowest else "conv",
                )
            )
        self.blocks = nn.ModuleList(blocks)
        self.middle = UNetMidBlock2D(
            last, time, resnet_eps=1e-5, resnet_groups=head_channels, attention_head_dim=head_channels
        )
        self.norm_out = nn.GroupNorm(head_channels, last)
        self.out = nn.Linear(last, num_classes)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """Logits (B, num_classes).

        Args:
            z: noisy latents (B, C, h, w), normalised as the diffusion model has them.
            t: (B,) int64, level index.
        """
        time = self.time_embedding(self.time_steps(t).to(z.dtype))
        x = self.conv_in(z)
        for block in self.blocks:
            x, _ = block(x, time)
        x = F.silu(self.norm_out(self.middle(x, time)))
        logits: Tensor = self.out(x.mean(dim=(2, 3)))
        return logits

    def save(self, folder: Path) -> None:
        """Write weights and sizes."""
        save_file({name: tensor.contiguous().cpu() for name, tensor in self.state_dict().items()}, folder / WEIGHTS)
        write_json(folder / DESCRIPTION, self.config)


def load(folder: Path, device: torch.device, in_channels: int, num_classes: int) -> LogProb:
    """The frozen classifier of a train_classifier output: (z_t, t, label) -> log p(label | z_t), (B,) float32.

    Args:
        in_channels: of the latents that it is to guide.
        num_classes: that they are drawn under.

    Raises:
        UserError: ``folder`` holds no whole classifier, or one of other latents or classes.
    """
    config: dict[str, Any] | None = read_json_if_there(folder / DESCRIPTION)
    if config is None or not (folder / WEIGHTS).exists():
        raise UserError(
            f"{folder} holds no classifier of noisy latents ({DESCRIPTION} and {WEIGHTS}): give the output of"
            " train_classifier."
        )
    own = {"in_channels": in_channels, "num_classes": num_classes}
    if any(config.get(name) != value for name, value in own.items()):
        raise UserError(
            f"the classifier in {folder} knows {config.get('num_classes')} classes of latents with"
            f" {config.get('in_channels')} channels, where {num_classes} and {in_channels} are drawn: give one that was"
            " trained for this diffusion model."
        )
    network = NoisyLatentClassifier(**config)
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError):
        raise UserError(
            f"{folder}/{WEIGHTS} is damaged, or no weights of the network that {DESCRIPTION} beside it describes: train"
            " the classifier anew."
        ) from None
    network = network.eval().requires_grad_(False).to(device)

    def log_prob(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        log_probs = F.log_softmax(network(z.float(), t).float(), dim=1)
        return log_probs.gather(1, label[:, None])[:, 0]

    return log_prob
