# SPDX-License-Identifier: Apache-2.0
"""Faces of an emotion class from a latent diffusion model: a pipeline for diffusers, complete in this file.

pipe = DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True)
faces = pipe(["happy", "sad"], guidance_scale=3.0, num_inference_steps=50).images
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, DiffusionPipeline, ImagePipelineOutput, UNet2DConditionModel, VQModel
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


class LabelPipeline(DiffusionPipeline):  # type: ignore[misc]  # diffusers is untyped
    """Class label and noise -> face, by DDIM with classifier-free guidance.

    Args:
        vqvae: latents <-> images in [-1, 1]; decoding takes each latent to the nearest code first.
        unet: noise predictor. Its context is one token: the class as a one-hot vector, whose last place means no class.
        scheduler: levels at T // N distance, beginning at 1.
        classes: name -> id.
        latent_norm: ``mean`` and ``std`` of each channel; what is diffused is (latent - mean) / std.
    """

    def __init__(
        self,
        vqvae: VQModel,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
        classes: dict[str, int] | None = None,
        latent_norm: dict[str, list[float]] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(vqvae=vqvae, unet=unet, scheduler=scheduler)
        channels = unet.config.in_channels
        norm = latent_norm or {"mean": [0.0] * channels, "std": [1.0] * channels}
        names = classes or {str(i): i for i in range(unet.config.encoder_hid_dim - 1)}
        self.register_to_config(classes=names, latent_norm=norm)

    def label_ids(self, labels: Sequence[str | int]) -> Tensor:
        """(B,) int64 from names or ids; ValueError where one is unknown."""
        names = self.config.classes
        unknown = [label for label in labels if label not in names and label not in names.values()]
        if unknown:
            valid = ", ".join(sorted(names, key=names.get))
            raise ValueError(f"{unknown[0]!r} is no class: the valid ones are {valid}, or their ids.")
        return torch.tensor([names.get(label, label) for label in labels])

    def tokens(self, ids: Tensor) -> Tensor:
        """(B,) -> (B, 1, classes + 1): what the U-Net takes as its context."""
        one_hot = torch.nn.functional.one_hot(ids, self.unet.config.encoder_hid_dim)
        return one_hot[:, None].to(self.unet.device, self.unet.dtype)

    @torch.no_grad()
    def __call__(
        self,
        labels: Sequence[str | int],
        guidance_scale: float = 3.0,
        num_inference_steps: int = 50,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
    ) -> Any:
        """One face for each label.

        Args:
            labels: names or ids of classes.
            guidance_scale: 1 is the plain conditional prediction.
            num_inference_steps: DDIM steps, up to half the number of levels.
            eta: 0 (deterministic) .. 1 (ancestral).
            generator: source of the noise.
            latents: (B, C, h, w), to begin with instead of fresh noise.
            output_type: pil, np (B, H, W, 3) in [0, 1], pt (B, 3, H, W) in [0, 1], or latent (before decoding).
        """
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type={output_type!r} is unknown: the valid ones are {', '.join(OUTPUT_TYPES)}.")
        most = self.scheduler.config.num_train_timesteps // 2
        if not 1 <= num_inference_steps <= most:
            raise ValueError(f"num_inference_steps={num_inference_steps} is out of range: give 1 to {most}.")
        ids = self.label_ids(labels)
        unet, device = self.unet, self.unet.device
        side = unet.config.sample_size
        shape = (len(ids), unet.config.in_channels, side, side)
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=unet.dtype)
        z = latents.to(device, unet.dtype)
        tokens = self.tokens(ids)
        none = self.tokens(torch.full_like(ids, unet.config.encoder_hid_dim - 1))
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        for t in self.progress_bar(self.scheduler.timesteps):
            if guidance_scale == 1:
                noise = unet(z, t, encoder_hidden_states=tokens).sample
            else:
                both = unet(torch.cat([z, z]), t, encoder_hidden_states=torch.cat([tokens, none])).sample
                with_class, without = both.chunk(2)
                noise = without + guidance_scale * (with_class - without)
            z = self.scheduler.step(noise, t, z, eta=eta, generator=generator).prev_sample
        norm = {name: torch.tensor(values).to(z)[:, None, None] for name, values in self.config.latent_norm.items()}
        z = z * norm["std"] + norm["mean"]
        images: Any = z
        if output_type != "latent":
            images = (self.vqvae.decode(z).sample.float().clamp(-1, 1) + 1) / 2
        if output_type in ("pil", "np"):
            images = images.permute(0, 2, 3, 1).cpu().numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images)
