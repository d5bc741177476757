"""What a training tells of its attempts."""

from pathlib import Path

from affect_hpc.core import story
from affect_hpc.core.io import write_json


def reach(folder: Path, samples: int) -> None:
    write_json(folder / "progress.json", {"label": "ldm", "line": "", "done": samples, "total": 100})


def test_interruptions_and_what_they_cost_are_told(tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    reach(tmp_path, 7)
    assert story.told(keep) == ""
    story.begin("ldm", keep, tmp_path, 0, "a")
    assert story.told(keep) == "", "never interrupted"
    reach(tmp_path, 40)
    story.begin("ldm", keep, tmp_path, 32, "a")
    reach(tmp_path, 64)
    story.begin("ldm", keep, tmp_path, 64, "b")
    assert story.told(keep) == "resumed 2 times, last after 64 samples; 8 samples done twice"


def test_each_training_of_one_element_has_a_story_of_its_own(tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    for name in ("emotion", "identity"):
        story.begin(name, keep / name, tmp_path, 0, "a")
    write_json(tmp_path / "progress.json", {"label": "identity", "line": "", "done": 90, "total": 100})
    story.begin("emotion", keep / "emotion", tmp_path, 100, "a")
    story.begin("identity", keep / "identity", tmp_path, 64, "a")
    emotion, identity = story.told(keep).split("; resumed")
    assert emotion.endswith("; 0 samples done twice") and identity.endswith("; 26 samples done twice")
