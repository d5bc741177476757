"""PatchGAN discriminator (Isola et al. 2017, section 3.2)."""

from torch import Tensor, nn

from affect_hpc.config.model import DiscriminatorConfig


class PatchDiscriminator(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] -> one logit per overlapping patch, (B, 1, h, w).

    BatchNorm takes its statistics from the images of one forward pass: this rank's micro batch. The thesis has a batch
    of 8 on one GPU; a micro batch of 8 on each rank is nearest to it. Statistics over all ranks (torch's SyncBatchNorm)
    exist for GPUs only: a run on CPUs would be another one. While the adversarial loss is on, the first stage therefore
    depends on the micro batch. The running averages are rank 0's; nothing reads them.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        width = config.base_channels
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        before = width
        for level in range(1, config.num_layers + 1):
            after = width * min(2**level, 8)
            stride = 2 if level < config.num_layers else 1
            layers += [nn.Conv2d(before, after, 4, stride=stride, padding=1, bias=False), nn.BatchNorm2d(after)]
            layers.append(nn.LeakyReLU(0.2))
            before = after
        layers.append(nn.Conv2d(before, 1, 4, padding=1))
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Patch logits; large for real."""
        logits: Tensor = self.layers(images)
        return logits
