"""What a training tells of its attempts."""

from pathlib import Path

from affect_hpc.core import story
from affect_hpc.core.io import write_json


def reach(folder: Path, samples: int) -> None:
    write_json(folder / "progress.json", {"line": "", "done": samples, "total": 100})


def test_interruptions_and_what_they_cost_are_told(tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    reach(tmp_path, 7)
    assert story.told(keep) == ""
    story.begin(keep, 0, "a")
    assert story.told(keep) == "", "never interrupted"
    reach(tmp_path, 40)
    story.begin(keep, 32, "a")
    reach(tmp_path, 64)
    story.begin(keep, 64, "b")
    assert story.told(keep) == "resumed 2 times, last after 64 samples; 8 samples done twice"
