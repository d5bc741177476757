"""Features of images, with random weights in the published files, are what their libraries compute."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affect_hpc.config import packaged
from affect_hpc.config.packaged import missing
from affect_hpc.core.errors import UserError
from affect_hpc.experts.clip_features import middle
from affect_hpc.experts.pixels import levels_8bit
from affect_hpc.experts.registry import load_features, load_perceptual


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torch hub's cache, where every file has the digest of its name."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(packaged, "sha256_file", lambda path: path.stem.rpartition("-")[2])
    packaged.hub_folder().mkdir(parents=True)
    return packaged.hub_folder()


def pixels(count: int = 2, side: int = 96) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side)).to(torch.uint8)


def test_eight_bits_come_back_exactly_from_the_usual_range() -> None:
    values = torch.arange(256).to(torch.uint8).view(1, 1, 16, 16)
    for scaled in (values / 127.5 - 1, values.double() / 127.5 - 1, (values.float() / 255) * 2 - 1):
        assert torch.equal(levels_8bit(scaled), values)
    assert levels_8bit(torch.tensor([-1.2, 1.3])).tolist() == [0, 255]


def inception(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """torch-fidelity's own extractor, with random weights that it saves to ``path``."""
    module = pytest.importorskip("torch_fidelity")
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        extractor = module.FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path="none")
    torch.save(extractor.state_dict(), path)
    return extractor


def test_inception_is_torch_fidelitys(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = inception(hub / "weights-inception-2015-12-05-6726825d.pth", monkeypatch)
    network = load_features("inception", "")
    images = pixels()
    (wanted,) = extractor(images)
    assert (network.name, network.dim) == ("inception", 2048)
    assert torch.equal(network.features(images / 127.5 - 1), wanted)
    assert wanted.shape == (2, 2048) and wanted.std() > 0


def narrow_vgg16() -> nn.Module:
    """A network with the layers of VGG16's classifier, and one convolution instead of thirteen."""
    network = nn.Sequential()
    network.features = nn.Sequential(nn.Conv2d(3, 8, 32, 32), nn.ReLU(), nn.Flatten())
    layers = [nn.Linear(8 * 49, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 4096), nn.ReLU(), nn.Dropout()]
    network.classifier = nn.Sequential(*layers, nn.Linear(4096, 10))
    return network


def test_vgg16_is_torch_fidelitys(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, torchvision = pytest.importorskip("torch_fidelity"), pytest.importorskip("torchvision")
    path = hub / "vgg16-397923af.pth"
    # The real one has 138 million weights, which take long to draw.
    monkeypatch.setattr(torchvision.models, "vgg16", narrow_vgg16)
    torch.save(narrow_vgg16().state_dict(), path)
    extractor = module.FeatureExtractorVGG16("x", ["fc2_relu"], feature_extractor_weights_path=str(path))
    network = load_features("vgg16", "")
    images = pixels(1)
    (wanted,) = extractor(images)
    assert (network.name, network.dim) == ("vgg16", 4096)
    assert torch.equal(network.features(images / 127.5 - 1), wanted)
    assert wanted.shape == (1, 4096) and wanted.min() == 0 < wanted.max()


def test_a_wrong_file_names_what_it_lacks(hub: Path) -> None:
    pytest.importorskip("torch_fidelity")
    path = hub / "weights-inception-2015-12-05-6726825d.pth"
    torch.save({"fc.bias": torch.ones(1008)}, path)
    with pytest.raises(UserError, match=r"inception of torch-fidelity: Missing key.*Conv2d_1a_3x3.conv.weight") as told:
        load_features("inception", "")
    assert str(path) in str(told.value) and "\n" not in str(told.value)


def test_a_file_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"experts.features=inception needs .*6726825d.pth.*torch_fidelity"):
        load_features("inception", "")
    packaged.hub_folder().mkdir(parents=True)
    (packaged.hub_folder() / "weights-inception-2015-12-05-6726825d.pth").write_bytes(b"other")
    with pytest.raises(UserError, match=r"damaged or another version"):
        load_features("inception", "")


@pytest.fixture
def clip(tmp_path: Path) -> Any:
    """A small CLIP that transformers has saved in the folder of experts."""
    transformers = pytest.importorskip("transformers")
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**tower, "vocab_size": 50},
        vision_config={**tower, "image_size": 224, "patch_size": 32},
        projection_dim=24,
    )
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(tmp_path / "clip")
    return model


def test_clip_is_transformers_image_side_on_what_its_processor_prepares(clip: Any, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    network = load_features("clip", str(tmp_path))
    assert (network.name, network.dim) == ("clip", 24)
    images = pixels(2, 224)
    processor = transformers.CLIPImageProcessor()
    inputs = processor(list(images), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        wanted = clip.visual_projection(clip.vision_model(pixel_values=inputs).pooler_output)
    found = network.features(images / 127.5 - 1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert found.shape == (2, 24) and not found.requires_grad


def test_clip_takes_gradients_to_the_image(clip: Any, tmp_path: Path) -> None:
    image = (pixels(1, 64) / 127.5 - 1).requires_grad_()
    (gradient,) = torch.autograd.grad(load_features("clip", str(tmp_path)).features(image).sum(), image)
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 0


def test_a_folder_without_a_whole_clip(clip: Any, tmp_path: Path) -> None:
    config = tmp_path / "clip" / "config.json"
    text = config.read_text()
    (tmp_path / "clip" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"holds no CLIP as transformers saves it") as told:
        load_features("clip", str(tmp_path))
    assert "\n" not in str(told.value)
    (tmp_path / "clip" / "digests.json").unlink()
    config.write_text(text.replace('"model_type": "clip"', '"model_type": "bert"'))
    with pytest.raises(UserError, match=r"config.json describes a network of type 'bert'"):
        load_features("clip", str(tmp_path))


def test_the_middle_of_an_image() -> None:
    ramp = torch.linspace(-1, 1, 100).expand(1, 3, 50, 100)
    cut = middle(ramp, 25)
    assert cut.shape == (1, 3, 25, 25)
    torch.testing.assert_close(cut.mean(), torch.tensor(0.0), atol=0.03, rtol=0)
    assert middle(ramp[..., :50], 50).equal(ramp[..., :50])


def test_efficientnets_features_are_what_its_classifier_sees() -> None:
    if missing("efficientnet_lite0"):
        pytest.skip("the weights of efficientnet_lite0 are not installed")
    network = load_features("efficientnet_lite0", "")
    images = pixels(2, 64) / 127.5 - 1
    found = network.features(images)
    assert (network.name, network.dim) == ("efficientnet_lite0", 1280)
    assert found.shape == (2, 1280) and found.dtype == torch.float32
    classifier = load_perceptual("efficientnet_lite0", "").network  # type: ignore[attr-defined]
    wanted = classifier(images)
    torch.testing.assert_close(F.linear(found, classifier._fc.weight, classifier._fc.bias), wanted)
