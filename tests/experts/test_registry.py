"""Which judge is there is a matter of files: what is absent, damaged or unknown is said in one sentence."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from affect_hpc.config import available, packaged
from affect_hpc.core.errors import UserError
from affect_hpc.experts.registry import load_emotion, load_features, load_identity, load_perceptual
from affect_hpc.experts.weights import conv_weight, read_tfjs


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without unpacked experts and with an empty torch hub cache."""
    monkeypatch.setenv("AFFECT_HPC_EXPERTS", str(tmp_path / "experts"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def test_an_absent_network_names_the_file_and_the_command(bare: Path) -> None:
    with pytest.raises(
        UserError, match=r"experts.emotion=face_api needs .*face_expression_model.bin.*install_experts.py"
    ):
        load_emotion("face_api", "", None)
    with pytest.raises(UserError, match=r"experts.identity=mobileface needs .*install_experts.py"):
        available.check_expert("mobileface")


def test_lpips_never_runs_on_a_backbone_that_is_not_the_trained_one(bare: Path) -> None:
    with pytest.raises(UserError, match=r"experts.perceptual=lpips needs .*alexnet-owt-7be5be79.pth.*torchvision"):
        load_perceptual("lpips", "")
    cache = packaged.hub_folder()
    cache.mkdir(parents=True)
    torch.save({}, cache / "alexnet-owt-7be5be79.pth")
    with pytest.raises(UserError, match=r"damaged or another version"):
        load_perceptual("lpips", "")


def test_lpips_of_a_file_with_the_right_digest_is_a_distance(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision = pytest.importorskip("torchvision")
    path = packaged.hub_folder() / "alexnet-owt-7be5be79.pth"
    path.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), path)
    monkeypatch.setattr(packaged, "sha256_file", lambda _: "7be5be79" + "0" * 56)
    distance = load_perceptual("lpips", "")
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    assert distance.distance(images, images).tolist() == [0.0, 0.0]
    assert (distance.distance(images, images.flip(0)) > 0).all()


def test_the_folder_is_the_given_one_then_the_environments_then_pythons(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert packaged.expert_folder("/given") == Path("/given")
    assert packaged.expert_folder() == bare / "experts"
    monkeypatch.delenv("AFFECT_HPC_EXPERTS")
    assert packaged.expert_folder() == Path(sys.prefix) / "share" / "affect_hpc" / "experts"


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"valid values are referee, face_api, py_feat, enet_b2_7, enet_b2_8"):
        load_emotion("hsemotion", "", None)
    with pytest.raises(UserError, match=r"valid values are referee, mobileface, dlib, cosface, ir_se50"):
        load_identity("arcface", "", None)
    with pytest.raises(UserError, match=r"valid values are inception, vgg16, clip, efficientnet_lite0"):
        load_features("resnet", "")
    with pytest.raises(UserError, match=r"lpips, efficientnet_lite0"):
        load_perceptual("vgg", "")
    with pytest.raises(UserError, match=r"valid values are"):
        available.check_expert("arcface")


def test_the_referee_needs_its_training() -> None:
    with pytest.raises(UserError, match=r"train_referee"):
        load_emotion("referee", "", None)
    available.check_expert("referee")


def test_auto_takes_the_thesis_network_where_it_is_and_else_the_packaged_one(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {"efficientnet_lite0", "dlib_landmarks"}
    monkeypatch.setattr(packaged, "missing", lambda name, folder="": [] if name in here else ["file"])
    assert available.settle_perceptual("auto") == "efficientnet_lite0"
    assert available.settle_landmarks("auto") == "dlib"
    here |= {"lpips", "fan"}
    assert available.settle_perceptual("auto") == "lpips"
    assert available.settle_landmarks("auto") == "fan"
    here.clear()
    with pytest.raises(
        UserError, match=r"neither lpips nor efficientnet_lite0 installed: for lpips, .*; for efficientnet_lite0"
    ):
        available.settle_perceptual("auto")
    with pytest.raises(UserError, match=r"experts.perceptual=lpips needs"):
        available.settle_perceptual("lpips")
    with pytest.raises(UserError, match=r"valid values are auto, fan, dlib"):
        available.settle_landmarks("mtcnn")


def test_the_plan_side_never_imports_torch() -> None:
    code = (
        "import sys, affect_hpc.config.available as a, affect_hpc.config.files; a.packaged.missing('dlib');"
        "a.packaged.missing('lpips'); assert 'torch' not in sys.modules and 'dlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_quantised_tensors_are_scale_times_level_plus_min(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes([0, 1, 255]) + np.float32([1.5, -2]).tobytes())
    entries = [
        {"name": "q", "shape": [3], "dtype": "float32", "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1.0}},
        {"name": "f", "shape": [1, 2], "dtype": "float32"},
    ]
    tensors = read_tfjs(entries, path)
    assert tensors["q"].tolist() == [-1.0, -0.5, 126.5]
    assert tensors["f"].tolist() == [[1.5, -2.0]]
    with pytest.raises(ValueError, match=r"describes 3"):
        read_tfjs(entries[:1], path)


def test_kernels_change_their_axes() -> None:
    kernel = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert conv_weight(kernel)[4, 3, 1, 2] == kernel[1, 2, 3, 4]


def test_every_unpacked_file_is_pinned() -> None:
    for name, weights in packaged.WEIGHTS.items():
        for file in weights.files:
            length = len(file.sha256)
            assert length == 64 or (weights.origin is packaged.Origin.hub and file.sha256 in file.name), (
                name,
                file.name,
            )
        assert json.dumps(weights.use)
