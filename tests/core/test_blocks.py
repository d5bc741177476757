"""Blocks: what is computed together."""

from affect_hpc.core.blocks import blocks


def test_blocks_are_fixed_and_cover_everything() -> None:
    assert blocks(7, 3) == [range(0, 3), range(3, 6), range(6, 7)]
    assert blocks(0, 3) == []
    assert [i for block in blocks(100, 32) for i in block] == list(range(100))
    assert blocks(64, 32)[0] == blocks(1000, 32)[0], "the first samples stand together whatever follows"
