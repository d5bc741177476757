"""What this machine can judge with. Asked by the plan, so it looks at files only and never imports torch."""

from collections.abc import Mapping
from pathlib import Path

from affect_hpc.config import packaged, supplied
from affect_hpc.config.checks import one_of
from affect_hpc.core.errors import UserError
from affect_hpc.core.hashing import digest
from affect_hpc.core.io import sha256_file

EMOTION_JUDGES: tuple[str, ...] = ("referee", "face_api", "py_feat", "enet_b2_7", "enet_b2_8")
IDENTITY_JUDGES: tuple[str, ...] = ("referee", "mobileface", "dlib", "cosface", "ir_se50")
PERCEPTUAL_DISTANCES: tuple[str, ...] = ("lpips", "efficientnet_lite0")
PERCEPTUAL_LOSSES: tuple[str, ...] = ("lpips_vgg", "efficientnet_lite0")
FEATURES: tuple[str, ...] = ("inception", "vgg16", "clip", "efficientnet_lite0")
"""Networks whose features describe a set of images."""
LANDMARK_WEIGHTS: Mapping[str, str] = {"fan": "fan", "dlib": "dlib_landmarks"}
"""Landmark backend -> the name of its weights, the thesis' first."""
SPEECH_NETWORKS: Mapping[str, str] = {
    "hidden": "facebook/wav2vec2-base-960h",
    "asr_logits": "facebook/wav2vec2-large-960h",
}
"""Kind of speech features -> the thesis' network, by its name in the Hugging Face hub."""
LANDMARK_BACKENDS: tuple[str, ...] = tuple(LANDMARK_WEIGHTS)


def check_expert(name: str, folder: str = "") -> None:
    """Require the weights of the expert ``name`` to be there; the referee is trained by the program itself.

    Args:
        name: an emotion or identity judge, a perceptual distance or loss, or a network of FEATURES.
        folder: config value experts.folder.

    Raises:
        UserError: unknown, absent, or a supplied file that has changed since its first use.
    """
    judges = EMOTION_JUDGES + IDENTITY_JUDGES + PERCEPTUAL_DISTANCES + PERCEPTUAL_LOSSES
    one_of("expert", name, dict.fromkeys(judges + FEATURES))
    if name in supplied.SUPPLIED:
        supplied.verified(name, folder)
    elif name != "referee":
        packaged.find(name, folder)


def check_experts(
    emotion: str,
    identity: str,
    perceptual: str,
    folder: str = "",
    second_emotion: str = "none",
    second_identity: str = "none",
) -> None:
    """Require known judges whose weights are there; the names are those of ExpertsConfig, settled."""
    one_of("experts.emotion", emotion, EMOTION_JUDGES)
    one_of("experts.identity", identity, IDENTITY_JUDGES)
    one_of("experts.perceptual", perceptual, PERCEPTUAL_DISTANCES)
    one_of("experts.second_emotion", second_emotion, ("none", *EMOTION_JUDGES))
    one_of("experts.second_identity", second_identity, ("none", *IDENTITY_JUDGES))
    for role, first, second in (("emotion", emotion, second_emotion), ("identity", identity, second_identity)):
        if first == second:
            raise UserError(
                f"experts.second_{role}={second} is the first judge as well, so it has no opinion of its own: give"
                " another one, or none."
            )
    for name in (emotion, identity, perceptual, second_emotion, second_identity):
        if name != "none":
            check_expert(name, folder)


def settle_features(name: str, folder: str = "") -> str:
    """``name``, or for auto the features of FID and KID that are here: inception before efficientnet_lite0.

    Args:
        name: config value experts.features.
        folder: config value experts.folder.

    Raises:
        UserError: unknown, or its weights are not there.
    """
    return _settle_features("experts.features", name, folder, "inception")


def settle_manifold_features(name: str, folder: str = "") -> str:
    """As ``settle_features``, for precision and recall: vgg16 before efficientnet_lite0."""
    return _settle_features("experts.manifold_features", name, folder, "vgg16")


def _settle_features(key: str, name: str, folder: str, favourite: str) -> str:
    one_of(key, name, ("auto", *FEATURES))
    if name == "auto":
        return _settle(key, name, {favourite: favourite, "efficientnet_lite0": "efficientnet_lite0"})
    check_expert(name, folder)
    return name


def settle_perceptual(name: str) -> str:
    """``name``, or for auto the perceptual distance that is here: lpips (the thesis') before efficientnet_lite0.

    Raises:
        UserError: unknown, or its weights are not installed.
    """
    one_of("experts.perceptual", name, ("auto", *PERCEPTUAL_DISTANCES))
    return _settle("experts.perceptual", name, {"lpips": "lpips", "efficientnet_lite0": "efficientnet_lite0"})


def settle_landmarks(name: str) -> str:
    """``name``, or for auto the landmark backend that is here: fan (the thesis') before dlib.

    Raises:
        UserError: unknown, or its weights are not installed.
    """
    one_of("data.align.landmarks", name, ("auto", *LANDMARK_BACKENDS))
    return _settle("data.align.landmarks", name, LANDMARK_WEIGHTS)


def landmarks_digest(name: str) -> str:
    """SHA-256 over the weights of a landmark backend, as they are pinned: loading refuses any others."""
    return digest([file.sha256 for file in packaged.WEIGHTS[LANDMARK_WEIGHTS[name]].files])


def speech_digest(network: str) -> str:
    """SHA-256 over the files of a wav2vec 2.0.

    Args:
        network: a folder, or a name in the Hugging Face hub's cache.

    Raises:
        UserError: it is neither.
    """
    folder = Path(network).expanduser()
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 (a second that other plans need not wait)

        config = try_to_load_from_cache(network, "config.json")
        if not isinstance(config, str):
            raise UserError(
                f"stages.precompute_audio.network={network} is neither a folder nor in the hub's cache: on a machine"
                f" with a network run `hf download {network}` and copy the cache ($HF_HOME) here, or give a folder."
            )
        folder = Path(config).parent
    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".json", ".safetensors", ".bin")]
    return digest({path.name: sha256_file(path) for path in files})


def _settle(key: str, name: str, weights_of: Mapping[str, str]) -> str:
    if name != "auto":
        packaged.find(weights_of[name])
        return name
    for candidate, weights in weights_of.items():
        if not packaged.missing(weights):
            return candidate
    ways = "; ".join(f"for {candidate}, {packaged.remedy(weights)}" for candidate, weights in weights_of.items())
    raise UserError(f"{key}=auto finds neither {' nor '.join(weights_of)} installed: {ways}.")
