"""How still faces of videos lie after alignment: detection rate, and how far landmarks move from frame to frame.

Reads the output of prepare_shards (its out/ folder, or the folders of its parts) of a corpus with videos. Movement is
the mean over landmarks and over pairs of neighbouring frames, in px of the crop. ``raw`` maps the landmarks back into
the video and scales them by the clip's own mean scale, so that both columns have one unit: what head motion, detector
and alignment did together, with and without the alignment.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from affect_hpc.core.errors import UserError
from affect_hpc.data.align import apply
from affect_hpc.data.codec import decode_npy
from affect_hpc.data.shards import ShardSet

Points = npt.NDArray[np.float64]


@dataclass
class Clip:
    """What is known of one video: frame number -> landmarks, and the frames that were left out."""

    aligned: dict[int, Points] = field(default_factory=dict)
    raw: dict[int, Points] = field(default_factory=dict)
    scales: list[float] = field(default_factory=list)
    left_out: int = 0


def inverse(matrix: Points, points: Points) -> Points:
    """Where ``matrix`` (2 x 3) found points (N, 2)."""
    return np.asarray(np.linalg.solve(matrix[:, :2], (points - matrix[:, 2]).T).T, np.float64)


def movement(frames: Mapping[int, Points]) -> list[float]:
    """Mean distance in px between the landmarks of each two neighbouring frames."""
    pairs = [(frames[number], frames[number + 1]) for number in sorted(frames) if number + 1 in frames]
    return [float(np.linalg.norm(after - before, axis=1).mean()) for before, after in pairs]


def read(folders: Sequence[Path]) -> dict[str, Clip]:
    """The videos in these outputs of prepare_shards, by name.

    Raises:
        UserError: none holds frames of a video with landmarks.
    """
    clips: dict[str, Clip] = defaultdict(Clip)
    splits = [split for folder in folders for split in (folder / "train", folder / "val") if split.is_dir()]
    shards = ShardSet.open(splits)
    for i, entry in enumerate(shards):
        name, _, frame = str(entry.info["source"]).rpartition("#")
        if not frame.isdigit() or "landmarks.npy" not in entry.members:
            continue
        points = np.asarray(decode_npy(shards.read(i, "landmarks.npy")), np.float64)
        matrix = np.array(entry.info["matrix"])
        clip = clips[name]
        clip.aligned[int(frame)] = points
        clip.raw[int(frame)] = inverse(matrix, points)
        assert np.allclose(apply(matrix, clip.raw[int(frame)]), points, atol=1e-3)
        clip.scales.append(float(np.sqrt(np.linalg.det(matrix[:, :2]))))
    for folder in folders:
        for line in (folder / "findings.jsonl").read_text().splitlines():
            finding = json.loads(line)
            name, _, frame = finding["source"].rpartition("#")
            if finding["used"] == "no" and frame.isdigit():
                clips[name].left_out += 1
    if not clips:
        raise UserError(f"{', '.join(map(str, folders))}: no frames of videos; prepare a corpus that has some.")
    return dict(clips)


def table(clips: Mapping[str, Clip]) -> Iterable[str]:
    """A line for each video."""
    yield f"{'video':32s} {'frames':>7s} {'found':>7s} {'raw px':>8s} {'aligned px':>11s} {'aligned/raw':>12s}"
    for name, clip in sorted(clips.items()):
        found = len(clip.aligned) / max(len(clip.aligned) + clip.left_out, 1)
        raw = np.array(movement(clip.raw)) * float(np.mean(clip.scales or [1.0]))
        aligned = np.array(movement(clip.aligned))
        if not len(raw):
            yield f"{name:32s} {len(clip.aligned):7d} {found:7.1%} no neighbouring frames: set data.frame_stride=1"
            continue
        figures = f"{raw.mean():8.3f} {aligned.mean():11.3f} {aligned.mean() / raw.mean():12.2f}"
        yield f"{name:32s} {len(clip.aligned):7d} {found:7.1%} {figures}"


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python tools/landmark_jitter.py", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="out/ folders of prepare_shards")
    try:
        for line in table(read(parser.parse_args().folders)):
            print(line)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
