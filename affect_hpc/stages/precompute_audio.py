"""Talking clips -> a row of speech features for each frame, in shards with the same keys."""

import numpy as np
import numpy.typing as npt
import torch

from affect_hpc.config.stages import PrecomputeAudioConfig
from affect_hpc.core.blocks import blocks
from affect_hpc.core.errors import UserError
from affect_hpc.core.hashing import canonical
from affect_hpc.core.io import write_json
from affect_hpc.core.progress import Progress
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.clips import ClipSet
from affect_hpc.data.codec import encode_npy
from affect_hpc.data.shards import ShardWriter
from affect_hpc.experts import wav2vec
from affect_hpc.train.comm import Ranks, device_of

MEMBER = "audio.npy"
SPLITS = ("train", "val", "test")
BLOCK = 20
"""Clips that one part takes at once. Each goes through the network alone: its features hang on nothing else."""


def run(cfg: PrecomputeAudioConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Write this part's share of the features, a folder a split; clips without sound are left out and listed."""
    torch.set_num_threads(cfg.threads)
    network = wav2vec.load(cfg.features, cfg.network, device_of(Ranks.of_environment()))
    sets = {split: clips for split in SPLITS if (clips := _clips(inputs, split)) is not None}
    if not sets:
        raise UserError(f"the prepared shards hold none of the splits {', '.join(SPLITS)}: prepare them anew.")
    work = [(split, block) for split, clips in sets.items() for block in blocks(len(clips), BLOCK)]
    mine = [work[i] for i in place.slice(len(work))]
    silent: list[str] = []
    with Progress(f"precompute_audio {cfg.features.name}", sum(len(block) for _, block in mine), "clip") as progress:
        for split in sorted({split for split, _ in mine}):
            clips = sets[split]
            with ShardWriter(place.out / split, f"audio-{place.part:05d}") as writer:
                for i in (i for name, block in mine if name == split for i in block):
                    entry = clips.shards[i]
                    rows = _features(network, clips, i)
                    if rows is None:
                        silent.append(entry.key)
                    else:
                        writer.write(entry.key, {MEMBER: encode_npy(rows)}, entry.info)
                    progress.advance(1)
    write_json(place.out / "audio.json", {"config": canonical(cfg), "without_sound": silent})
    return Outcome({"clips": sum(len(block) for _, block in mine) - len(silent), "without_sound": len(silent)})


def _clips(inputs: Inputs, split: str) -> ClipSet | None:
    folders = [folder / split for folder in inputs.many("shards") if (folder / split).is_dir()]
    return ClipSet.open(folders) if folders else None


def _features(network: wav2vec.SpeechFeatures, clips: ClipSet, i: int) -> npt.NDArray[np.float16] | None:
    """(T, D) of clip ``i``; None where it has no sound."""
    found = clips.sound(i)
    if found is None:
        return None
    sound, rate = found
    if rate != wav2vec.SAMPLE_RATE:
        raise UserError(
            f"the clips' sound has {rate} Hz, and wav2vec 2.0 hears {wav2vec.SAMPLE_RATE}: prepare the shards with"
            f" data.sample_rate={wav2vec.SAMPLE_RATE}."
        )
    return network(sound, clips.frames(i)).numpy().astype(np.float16)
