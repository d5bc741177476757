"""Fixed blocks of samples: what is computed together never depends on how the work was divided."""

from affect_hpc.core.rundir import Inputs, Workplace


def blocks(count: int, size: int) -> list[range]:
    """Samples 0..count-1 in runs of ``size``; the last one may be shorter.

    Networks round differently for different batches. A part of an array therefore takes whole blocks, and every
    block is one batch: the result is the same to the bit for any number of parts.
    """
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def own_blocks(count: int, size: int, inputs: Inputs, place: Workplace, role: str = "latents") -> list[range]:
    """The blocks that this part does, of ``count`` samples that ``role`` holds.

    All of them where the part was given only its own share of the role, else its share of all blocks.
    """
    work = blocks(count, size)
    return work if role in inputs.own else [work[i] for i in place.slice(len(work))]
