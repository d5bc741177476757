"""Fixed blocks of samples: what is computed together never depends on how the work was divided."""


def blocks(count: int, size: int) -> list[range]:
    """Samples 0..count-1 in runs of ``size``; the last one may be shorter.

    Networks round differently for different batches. A part of an array therefore takes whole blocks, and every
    block is one batch: the result is the same to the bit for any number of parts.
    """
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
