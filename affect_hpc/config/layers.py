"""Parameters, multiply-adds and memory of the layers that our networks are made of, as diffusers builds them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Of one network, for one sample."""

    parameters: int = 0
    macs: int = 0
    """Multiply-adds of a forward pass: convolutions, linear layers, attention. FLOPs are twice as many. The search for
    the nearest code is left out: 0.1 % at the thesis' sizes."""
    saved: int = 0
    """Bytes that float32 training keeps from the forward for the backward pass; parameters left out."""
    saved_mixed: int = 0
    """The same in bfloat16 or float16 autocast on a GPU: norms and activations keep float32, products two bytes."""
    live: int = 0
    """Bytes at once at the fullest place of a float32 forward pass without gradients; 0 = never run that way."""

    def __add__(self, other: "Size") -> "Size":
        """Of two networks, one after the other."""
        return Size(
            self.parameters + other.parameters,
            self.macs + other.macs,
            self.saved + other.saved,
            self.saved_mixed + other.saved_mixed,
            max(self.live, other.live),
        )


class Walk:
    """Adds up layers in the order of a forward pass.

    ``area`` is always the number of places (pixels, tokens) a layer works on.

    Args:
        forgets: residual and transformer blocks keep their inputs only and are computed again on the way back, one at a
            time (gradient checkpointing as diffusers does it).
    """

    def __init__(self, forgets: bool = False) -> None:
        self.parameters = self.macs = self.live = 0
        self._wide = self._narrow = self._casts = 0
        self._again = (0, 0)
        self._forgets = forgets
        self.held = 0
        """Values that wait: skip connections, and the input of the block that is at work."""

    def size(self) -> Size:
        """The sum so far."""
        plain, mixed = _bytes(self._wide, self._narrow, self._casts)
        again, again_mixed = self._again
        return Size(self.parameters, self.macs, plain + again, mixed + again_mixed, 4 * self.live)

    def keep_block(self, entry: int, wide: int, narrow: int, casts: int) -> None:
        """``keep`` for a block that may be computed again from ``entry`` values of input."""
        if not self._forgets:
            self.keep(wide=wide, narrow=narrow, casts=casts)
            return
        self.keep(narrow=entry)
        plain, mixed = _bytes(wide, narrow, casts)
        self._again = (max(self._again[0], plain), max(self._again[1], mixed))

    def keep(self, *, wide: int = 0, narrow: int = 0, casts: int = 0) -> None:
        """Count values that the backward pass needs.

        Args:
            wide: read by norms and activations, which autocast computes in float32.
            narrow: read by products, which autocast computes in two bytes.
            casts: copies of values kept elsewhere that only autocast makes.
        """
        self._wide, self._narrow, self._casts = self._wide + wide, self._narrow + narrow, self._casts + casts

    def at_once(self, values: int) -> None:
        """Note that ``values`` are alive together."""
        self.live = max(self.live, self.held + values)

    def conv(self, before: int, after: int, kernel: int, area: int, bias: bool = True) -> None:
        """A convolution (kernel 1: also a linear layer) with ``area`` outputs a channel."""
        self.parameters += before * after * kernel**2 + (after if bias else 0)
        self.macs += before * after * kernel**2 * area

    def norm(self, channels: int) -> None:
        """Scale and shift of a group, layer or batch norm."""
        self.parameters += 2 * channels

    def resnet(self, before: int, after: int, area: int, time: int = 0) -> None:
        """diffusers' ResnetBlock2D: norm, SiLU, convolution, twice; a 1 x 1 convolution where the width changes.

        Args:
            time: channels of the time embedding; 0 = none.
        """
        self.norm(before)
        self.conv(before, after, 3, area)
        if time:
            self.conv(time, after, 1, 1)
        self.norm(after)
        self.conv(after, after, 3, area)
        changes = before != after
        if changes:
            self.conv(before, after, 1, area)
        # Inputs of both norms and both activations; inputs of both convolutions.
        narrow = (before + after) * area + time
        self.keep_block(before * area, 2 * (before + after) * area, narrow, before * area * changes)
        self.at_once(area * max(3 * before, before + (4 if changes else 3) * after))

    def attention(self, channels: int, tokens: int, context: int = 0, bias: bool = False) -> None:
        """Queries, keys, values, fused attention and output layer.

        Args:
            context: width of the one token that is attended to; 0 = the tokens attend to each other.
            bias: of queries, keys and values; the output layer always has one.
        """
        others, width = (1, context) if context else (tokens, channels)
        self.conv(channels, channels, 1, tokens, bias)
        self.conv(width, channels, 1, others, bias)
        self.conv(width, channels, 1, others, bias)
        self.conv(channels, channels, 1, tokens)
        self.macs += 2 * tokens * others * channels

    def first_stage_attention(self, channels: int, area: int) -> None:
        """One head over all pixels, with a norm before and the input added (AttnDownEncoderBlock2D and its kin)."""
        self.norm(channels)
        self.attention(channels, area, bias=True)
        # Input of the norm; a copy of its transposed result for each of queries, keys and values; these and the result.
        self.keep(wide=channels * area, narrow=7 * channels * area)
        self.at_once(6 * channels * area)

    def transformer(self, channels: int, tokens: int, context: int) -> None:
        """diffusers' Transformer2DModel of one block: self-attention, cross-attention, gated feed-forward layer."""
        for _ in range(4):
            self.norm(channels)
        self.conv(channels, channels, 1, tokens)
        self.attention(channels, tokens)
        self.attention(channels, tokens, context)
        self.conv(channels, 8 * channels, 1, tokens)
        self.conv(4 * channels, channels, 1, tokens)
        self.conv(channels, channels, 1, tokens)
        # Outside of what is computed again: input of the group norm, inputs of both 1 x 1 convolutions.
        self.keep(wide=channels * tokens, narrow=2 * channels * tokens)
        # Inputs of three norms; five of self-attention, whose input autocast casts for each product; three of
        # cross-attention besides keys and values of one token; 17 of the gated layer of fourfold width.
        self.keep_block(channels * tokens, 3 * channels * tokens, (25 * tokens + 2) * channels, 2 * channels * tokens)
        self.at_once(18 * channels * tokens)


def _bytes(wide: int, narrow: int, casts: int) -> tuple[int, int]:
    """In float32, and in autocast."""
    return 4 * (wide + narrow), 4 * wide + 2 * (narrow + casts)
