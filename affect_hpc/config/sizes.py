"""What networks weigh and cost, counted from their configs alone: the plan states it, and imports no torch.

Each function walks one network in the order of its forward pass, layer by layer as diffusers builds it (VQModel,
UNet2DConditionModel), and adds up a ``Size``. Against the real networks (tests/models/test_sizes.py): parameters are
and multiply-adds (by torch's FlopCounterMode) are equal; what a backward pass needs is what autograd saves, to 4 % in
float32 and to 1 % under CUDA's rules of autocast, with attention that keeps no matrix; what is alive at once without
gradients comes to 12 %. Workspaces of convolutions and the allocator's waste come on top.
"""

from collections.abc import Mapping, Sequence

from affect_hpc.config.layers import Size, Walk
from affect_hpc.config.model import ConditionConfig, DiscriminatorConfig, FirstStageConfig, UnetConfig

THERE_AND_BACK = 3
"""A training step costs three forward passes: the backward pass takes gradients of inputs and of weights."""
UNET_CPU_BATCH, DECODER_CPU_BATCH = 16, 4
"""Samples that a CPU takes at once where nothing is learnt: with more of them it waits for its memory."""


def encoder_size(config: FirstStageConfig, side: int) -> Size:
    """Image to unquantised latent: encoder and quant_conv.

    Args:
        side: of the image in px.
    """
    walk, widths, area = Walk(), config.block_out_channels, side**2
    walk.conv(3, widths[0], 3, area)
    walk.keep(narrow=3 * area)
    before = widths[0]
    for level, width in enumerate(widths):
        entry = before * area
        for _ in range(config.layers_per_block):
            walk.resnet(before, width, area)
            before, walk.held = width, entry
            if level in config.attention_levels:
                walk.first_stage_attention(width, area)
        walk.held = 0
        if level < len(widths) - 1:
            # Padded by one row and one column first.
            walk.keep(narrow=width * (side + 1) ** 2)
            side //= 2
            area = side**2
            walk.conv(width, width, 3, area)
    _middle(walk, config, area)
    _first_stage_end(walk, widths[-1], config.embed_dim, area)
    walk.conv(config.embed_dim, config.embed_dim, 1, area)
    walk.keep(narrow=config.embed_dim * area)
    return walk.size()


def decoder_size(config: FirstStageConfig, side: int) -> Size:
    """Latent to image: quantiser with its codes, post_quant_conv and decoder.

    Args:
        side: of the image in px.
    """
    walk, widths = Walk(), list(reversed(config.block_out_channels))
    side >>= len(widths) - 1
    area = side**2
    walk.parameters += config.codebook_size * config.embed_dim
    # The distances of all places to all codes.
    walk.at_once(area * config.codebook_size)
    walk.keep(wide=2 * config.embed_dim * area)
    walk.conv(config.embed_dim, config.embed_dim, 1, area)
    walk.conv(config.embed_dim, widths[0], 3, area)
    walk.keep(narrow=2 * config.embed_dim * area)
    _middle(walk, config, area)
    before = widths[0]
    for level, width in enumerate(widths):
        entry = before * area
        for _ in range(config.layers_per_block + 1):
            walk.resnet(before, width, area)
            before, walk.held = width, entry
            if len(widths) - 1 - level in config.attention_levels:
                walk.first_stage_attention(width, area)
        if level < len(widths) - 1:
            side, area = 2 * side, 4 * area
            walk.conv(width, width, 3, area)
            walk.keep(narrow=width * area)
            walk.at_once(2 * width * area)
        walk.held = 0
    _first_stage_end(walk, widths[-1], 3, area)
    return walk.size()


def _middle(walk: Walk, config: FirstStageConfig, area: int) -> None:
    width = config.block_out_channels[-1]
    walk.resnet(width, width, area)
    if config.mid_block_attention:
        walk.first_stage_attention(width, area)
    walk.resnet(width, width, area)


def _first_stage_end(walk: Walk, before: int, after: int, area: int) -> None:
    walk.norm(before)
    walk.conv(before, after, 3, area)
    walk.keep(wide=2 * before * area, narrow=before * area)
    walk.at_once(3 * before * area)


def discriminator_size(config: DiscriminatorConfig, side: int) -> Size:
    """Image of ``side`` px to one logit a patch."""
    walk, width = Walk(), config.base_channels
    walk.keep(narrow=3 * side**2)
    side //= 2
    walk.conv(3, width, 4, side**2)
    walk.keep(narrow=2 * width * side**2)
    before = width
    for level in range(1, config.num_layers + 1):
        after = width * min(2**level, 8)
        side = side // 2 if level < config.num_layers else side - 1
        walk.conv(before, after, 4, side**2, bias=False)
        walk.norm(after)
        # Inputs of norm, activation and next convolution; autocast leaves batch norm as it is.
        walk.keep(narrow=3 * after * side**2)
        before = after
    walk.conv(before, 1, 4, (side - 1) ** 2)
    return walk.size()


def unet_size(
    config: UnetConfig, condition: ConditionConfig, channels: int, side: int, checkpointing: bool = False
) -> Size:
    """Noise predictor, without the label embedding.

    Args:
        channels: of the latents.
        side: of the latents in px.
        checkpointing: blocks forget their activations and are computed again on the way back.
    """
    walk, widths, layers = Walk(checkpointing), config.block_out_channels, config.layers_per_block
    time, first, last = 4 * widths[0], widths[0], len(widths) - 1
    walk.conv(first, time, 1, 1)
    walk.conv(time, time, 1, 1)
    walk.keep(wide=2 * time, narrow=first + time + condition.dim)
    sides = [side]
    for _ in range(last):
        sides.append(-(-sides[-1] // 2))

    def block(before: int, width: int, level: int, attends: bool) -> None:
        area = sides[level] ** 2
        walk.resnet(before, width, area, time)
        if attends:
            walk.transformer(width, area, condition.dim)

    walk.conv(channels, first, 3, side**2)
    walk.keep(narrow=channels * side**2)
    skips: list[tuple[int, int]] = []

    def skip(width: int, level: int) -> None:
        skips.append((width, level))
        walk.held += width * sides[level] ** 2

    skip(first, 0)
    before = first
    for level, width in enumerate(widths):
        for _ in range(layers):
            block(before, width, level, level in config.attention_levels)
            before = width
            skip(width, level)
        if level < last:
            walk.keep(narrow=width * sides[level] ** 2)
            walk.conv(width, width, 3, sides[level + 1] ** 2)
            skip(width, level + 1)
    block(before, before, last, attends=True)
    block(before, before, last, attends=False)
    for level in reversed(range(last + 1)):
        width, area = widths[level], sides[level] ** 2
        waiting = before * area
        walk.held += waiting
        for _ in range(layers + 1):
            other, _ = skips.pop()
            waiting += other * area
            block(before + other, width, level, level in config.attention_levels)
            before = width
        if level > 0:
            area = sides[level - 1] ** 2
            walk.conv(width, width, 3, area)
            walk.keep(narrow=width * area)
            walk.at_once(2 * width * area)
        walk.held -= waiting
    walk.norm(first)
    walk.conv(first, channels, 3, side**2)
    walk.keep(wide=2 * first * side**2, narrow=first * side**2)
    return walk.size()


def classifier_size(channels: Sequence[int], in_channels: int, num_classes: int, side: int) -> Size:
    """Classifier of noisy latents (models/classifier.py).

    Args:
        channels: width of each level.
        in_channels: of the latents.
        side: of the latents in px.
    """
    walk, first, area = Walk(), channels[0], side**2
    time = 4 * first
    walk.conv(first, time, 1, 1)
    walk.conv(time, time, 1, 1)
    walk.keep(wide=2 * time, narrow=first)
    walk.conv(in_channels, first, 3, area)
    walk.keep(narrow=in_channels * area)
    before = first
    for level, width in enumerate(channels):
        lowest = level == len(channels) - 1
        for _ in range(2):
            walk.resnet(before, width, area, time)
            before = width
            if lowest:
                walk.first_stage_attention(width, area)
        if not lowest:
            walk.keep(narrow=width * area)
            side = -(-side // 2)
            area = side**2
            walk.conv(width, width, 3, area)
    walk.resnet(before, before, area, time)
    walk.first_stage_attention(before, area)
    walk.resnet(before, before, area, time)
    walk.norm(before)
    walk.keep(wide=2 * before * area)
    walk.conv(before, num_classes, 1, 1)
    walk.keep(narrow=before)
    return walk.size()


PERCEPTUAL: Mapping[str, tuple[int, int, int]] = {
    "lpips_vgg": (14_716_160, 305_917, 2_439),
    "efficientnet_lite0": (4_652_008, 7_251, 1_750),
}
"""Perceptual loss -> its parameters; multiply-adds, and bytes that autograd saves in float32, for each pixel: traced on
the networks in experts/."""


def perceptual_size(name: str, side: int) -> Size:
    """The frozen network of a perceptual loss on one image of ``side`` px; nothing for none."""
    parameters, macs, saved = PERCEPTUAL.get(name, (0, 0, 0))
    return Size(parameters, macs * side**2, saved * side**2, saved * side**2)


def trunk_size(channels: Sequence[int], outputs: int, side: int) -> Size:
    """One judge of train_referee (experts/referee.py) on images of ``side`` px."""
    walk, before = Walk(), 3
    walk.keep(narrow=3 * side**2)
    for i, width in enumerate(channels):
        side = side if i == 0 else -(-side // 2)
        walk.conv(before, width, 3, side**2, bias=False)
        walk.norm(width)
        # Input of the norm; result of the activation, which the next convolution reads too.
        walk.keep(narrow=2 * width * side**2)
        before = width
    walk.conv(before, outputs, 1, 1)
    walk.keep(narrow=before)
    return walk.size()
