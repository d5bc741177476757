"""The thesis' judges with random weights in the published layouts, against readings that share no code with them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affect_hpc.config.supplied import paths_of
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.experts.ir_se50 import IrSe50Identity
from affect_hpc.experts.iresnet import DEPTHS, IResNet, blocks_of
from affect_hpc.experts.registry import load_emotion, load_identity

HSEMOTION_ORDER = {
    "enet_b2_7": "Anger Disgust Fear Happiness Neutral Sadness Surprise".split(),
    "enet_b2_8": "Anger Contempt Disgust Fear Happiness Neutral Sadness Surprise".split(),
}
OURS = {
    **{"Anger": "angry", "Contempt": "contempt", "Disgust": "disgusted", "Fear": "scared"},
    **{"Happiness": "happy", "Neutral": "neutral", "Sadness": "sad", "Surprise": "surprised"},
}


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def bytes_of(count: int, side: int) -> np.ndarray:  # type: ignore[type-arg]
    """(count, side, side, 3) uint8 with structure at all scales."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)
    rough = np.stack([cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC) for image in coarse])
    return np.clip(rough.astype(int) + rng.integers(-20, 21, rough.shape), 0, 255).astype(np.uint8)


def crops_of(images: np.ndarray) -> Tensor:  # type: ignore[type-arg]
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def unsettle(network: nn.Module) -> nn.Module:
    """Give norms the statistics of a trained network, so that none of them is idle."""
    for name, tensor in network.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.ndim == 1 and tensor.is_floating_point():
            tensor.add_(torch.randn_like(tensor) * 0.1)
    return network.eval()


def save(folder: Path, name: str, content: object, old: bool = False) -> None:
    (path,) = paths_of(name, str(folder)).values()
    path.parent.mkdir(exist_ok=True)
    torch.save(content, path, _use_new_zipfile_serialization=not old)


@pytest.mark.parametrize("name", HSEMOTION_ORDER)
def test_hsemotion_is_the_pickled_model_on_what_pil_resizes(name: str, tmp_path: Path) -> None:
    timm, image_module = pytest.importorskip("timm"), pytest.importorskip("PIL.Image")
    theirs = HSEMOTION_ORDER[name]
    network = unsettle(timm.create_model("tf_efficientnet_b2", num_classes=len(theirs)))
    with torch.no_grad():
        network.classifier.weight.normal_(0, 0.5)
    save(tmp_path, name, network)
    images = bytes_of(2, 128)
    inputs = []
    for image in images:
        larger = np.asarray(image_module.fromarray(image).resize((260, 260), image_module.Resampling.BILINEAR))
        inputs.append((larger / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225])
    with torch.no_grad():
        wanted = network(torch.from_numpy(np.stack(inputs)).permute(0, 3, 1, 2).float()).softmax(1)
    judge = load_emotion(name, str(tmp_path), None)
    assert judge.name == name
    assert judge.classes == tuple(emotion for emotion in EMOTIONS if emotion in [OURS[word] for word in theirs])
    shares = judge.probabilities(crops_of(images))
    assert shares.dtype == torch.float32
    assert wanted.std(1).min() > 0.02
    for column, emotion in enumerate(judge.classes):
        place = [OURS[word] for word in theirs].index(emotion)
        # PIL rounds to 8 bits after resizing, which a differentiable judge cannot.
        torch.testing.assert_close(shares[:, column], wanted[:, place], atol=5e-3, rtol=0)
    torch.testing.assert_close(shares.sum(1), torch.ones(2))


def test_hsemotion_takes_a_state_dict_and_a_classifier_in_a_sequence(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    network = unsettle(timm.create_model("tf_efficientnet_b2", num_classes=7))
    crops = crops_of(bytes_of(1, 64))
    answers = []
    save(tmp_path, "enet_b2_7", network.state_dict())
    answers.append(load_emotion("enet_b2_7", str(tmp_path), None).probabilities(crops))
    network.classifier = nn.Sequential(network.classifier)
    for folder, content in (("a", network), ("b", network.state_dict())):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder, "enet_b2_7", content)
        answers.append(load_emotion("enet_b2_7", str(tmp_path / folder), None).probabilities(crops))
    assert torch.equal(answers[0], answers[1]) and torch.equal(answers[0], answers[2])


def test_the_network_of_eight_classes_is_not_taken_for_that_of_seven(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    save(tmp_path, "enet_b2_7", timm.create_model("tf_efficientnet_b2", num_classes=8))
    with pytest.raises(
        UserError, match=r"enet_b2_7.pt holds classifier.weight of shape \(8, 1408\) instead of \(7, 1408\).*7 classes"
    ):
        load_emotion("enet_b2_7", str(tmp_path), None)


def norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    shape = (1, -1, *[1] * (x.ndim - 2))
    scale = state[f"{name}.weight"] / (state[f"{name}.running_var"] + 1e-5).sqrt()
    return (x - state[f"{name}.running_mean"].view(shape)) * scale.view(shape) + state[f"{name}.bias"].view(shape)


def prelu(x: Tensor, slopes: Tensor) -> Tensor:
    return x.clamp(min=0) + slopes.view(-1, 1, 1) * x.clamp(max=0)


def iresnet(x: Tensor, state: dict[str, Tensor]) -> Tensor:
    """insightface's iResNet, from its keys alone."""
    x = prelu(norm(F.conv2d(x, state["conv1.weight"], padding=1), state, "bn1"), state["prelu.weight"])
    for stage in (1, 2, 3, 4):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in state:
            name, stride = f"layer{stage}.{block}", 2 if block == 0 else 1
            short = x
            if f"{name}.downsample.0.weight" in state:
                short = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
                short = norm(short, state, f"{name}.downsample.1")
            x = F.conv2d(norm(x, state, f"{name}.bn1"), state[f"{name}.conv1.weight"], padding=1)
            x = prelu(norm(x, state, f"{name}.bn2"), state[f"{name}.prelu.weight"])
            x = F.conv2d(x, state[f"{name}.conv2.weight"], stride=stride, padding=1)
            x = norm(x, state, f"{name}.bn3") + short
            block += 1
    x = norm(x, state, "bn2").flatten(1) @ state["fc.weight"].T + state["fc.bias"]
    return norm(x, state, "features")


def test_cosface_is_the_iresnet_of_its_file_on_what_opencv_resizes(tmp_path: Path) -> None:
    state = unsettle(IResNet(DEPTHS[18])).state_dict()
    save(tmp_path, "cosface", state, old=True)
    images = bytes_of(2, 128)
    smaller = np.stack([cv2.resize(image.astype(np.float32), (112, 112)) for image in images])
    inputs = (torch.from_numpy(smaller).permute(0, 3, 1, 2).double() / 255 - 0.5) / 0.5
    wanted = iresnet(inputs, {name: tensor.double() for name, tensor in state.items()})
    judge = load_identity("cosface", str(tmp_path), None)
    embedded = judge.embed(crops_of(images))
    assert embedded.shape == (2, 512) and embedded.dtype == torch.float32
    torch.testing.assert_close(embedded.double(), F.normalize(wanted, dim=1), atol=1e-5, rtol=1e-4)
    assert float(embedded[0] @ embedded[1]) < 0.999


def test_the_depth_of_an_iresnet_is_read_from_its_keys() -> None:
    with torch.device("meta"):
        for depth, blocks in DEPTHS.items():
            network = IResNet(blocks)
            assert blocks_of(network.state_dict()) == blocks
            assert sum(name.endswith(("conv1.weight", "conv2.weight")) for name in network.state_dict()) == depth - 1
    assert blocks_of({"conv1.weight": torch.ones(1)}) == DEPTHS[50]


def test_a_file_of_another_network_is_no_cosface(tmp_path: Path) -> None:
    save(tmp_path, "cosface", {"input_layer.0.weight": torch.ones(64, 3, 3, 3)})
    with pytest.raises(UserError, match=r"backbone.pth lacks conv1.weight: it must be an iResNet of insightface"):
        load_identity("cosface", str(tmp_path), None)
    save(tmp_path, "ir_se50", {"conv1.weight": torch.ones(64, 3, 3, 3)})
    with pytest.raises(UserError, match=r"model_ir_se50.pth lacks input_layer.0.weight: it must be .*IR-SE50"):
        load_identity("ir_se50", str(tmp_path), None)


def ir_se50(x: Tensor, state: dict[str, Tensor]) -> Tensor:
    """TreB1eN's IR-SE50, from its keys alone."""
    x = F.conv2d(x, state["input_layer.0.weight"], padding=1)
    x = prelu(norm(x, state, "input_layer.1"), state["input_layer.2.weight"])
    for block in range(24):
        name, stride = f"body.{block}", 2 if block in (0, 3, 7, 21) else 1
        short = x[:, :, ::stride, ::stride]
        if f"{name}.shortcut_layer.0.weight" in state:
            short = norm(F.conv2d(short, state[f"{name}.shortcut_layer.0.weight"]), state, f"{name}.shortcut_layer.1")
        layer = f"{name}.res_layer"
        x = F.conv2d(norm(x, state, f"{layer}.0"), state[f"{layer}.1.weight"], padding=1)
        x = F.conv2d(prelu(x, state[f"{layer}.2.weight"]), state[f"{layer}.3.weight"], stride=stride, padding=1)
        x = norm(x, state, f"{layer}.4")
        gate = F.conv2d(x.mean((2, 3), keepdim=True), state[f"{layer}.5.fc1.weight"]).clamp(min=0)
        x = x * torch.sigmoid(F.conv2d(gate, state[f"{layer}.5.fc2.weight"])) + short
    x = norm(x, state, "output_layer.0").flatten(1)
    return norm(x @ state["output_layer.3.weight"].T + state["output_layer.3.bias"], state, "output_layer.4")


def test_ir_se50_is_the_network_of_its_file_on_averaged_crops(tmp_path: Path) -> None:
    state = unsettle(IrSe50Identity()).state_dict()
    save(tmp_path, "ir_se50", state)
    crops = crops_of(bytes_of(1, 128))
    wanted = ir_se50(
        F.adaptive_avg_pool2d(crops.double(), 112), {name: tensor.double() for name, tensor in state.items()}
    )
    judge = load_identity("ir_se50", str(tmp_path), None)
    crops.requires_grad_()
    embedded = judge.embed(crops)
    torch.testing.assert_close(embedded.detach().double(), F.normalize(wanted, dim=1), atol=1e-5, rtol=1e-4)
    (gradient,) = torch.autograd.grad(embedded[0, :256].sum(), crops)
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 0


def test_the_same_batch_gives_the_same_bits(tmp_path: Path) -> None:
    save(tmp_path, "cosface", unsettle(IResNet(DEPTHS[18])).state_dict())
    crops = crops_of(bytes_of(2, 64))
    first, second = (load_identity("cosface", str(tmp_path), None).embed(crops) for _ in range(2))
    assert torch.equal(first, second)
