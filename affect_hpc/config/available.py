"""What this machine can judge with. Asked by the plan, so it looks at files only and never imports torch."""

from collections.abc import Mapping
from pathlib import Path

from affect_hpc.config import packaged
from affect_hpc.config.checks import one_of
from affect_hpc.core.errors import UserError
from affect_hpc.core.hashing import digest
from affect_hpc.core.io import sha256_file

EMOTION_JUDGES: tuple[str, ...] = ("referee", "face_api", "py_feat")
IDENTITY_JUDGES: tuple[str, ...] = ("referee", "mobileface", "dlib")
PERCEPTUAL_DISTANCES: tuple[str, ...] = ("lpips", "efficientnet_lite0")
PERCEPTUAL_LOSSES: tuple[str, ...] = ("lpips_vgg", "efficientnet_lite0")
LANDMARK_WEIGHTS: Mapping[str, str] = {"fan": "fan", "dlib": "dlib_landmarks"}
"""Landmark backend -> the name of its weights, the thesis' first."""
SPEECH_NETWORKS: Mapping[str, str] = {
    "hidden": "facebook/wav2vec2-base-960h",
    "asr_logits": "facebook/wav2vec2-large-960h",
}
"""Kind of speech features -> the thesis' network, by its name in the Hugging Face hub."""
LANDMARK_BACKENDS: tuple[str, ...] = tuple(LANDMARK_WEIGHTS)


def check_expert(name: str, folder: str = "") -> None:
    """Require the weights of the expert ``name`` to be installed; the referee is trained by the program itself.

    Args:
        name: an emotion or identity judge, a perceptual distance or loss.
        folder: config value experts.folder.
    """
    one_of("expert", name, dict.fromkeys(EMOTION_JUDGES + IDENTITY_JUDGES + PERCEPTUAL_DISTANCES + PERCEPTUAL_LOSSES))
    if name != "referee":
        packaged.find(name, folder)


def check_experts(emotion: str, identity: str, perceptual: str, folder: str = "") -> None:
    """Require three known judges whose weights are installed; the names are those of ExpertsConfig, settled."""
    one_of("experts.emotion", emotion, EMOTION_JUDGES)
    one_of("experts.identity", identity, IDENTITY_JUDGES)
    one_of("experts.perceptual", perceptual, PERCEPTUAL_DISTANCES)
    for name in (emotion, identity, perceptual):
        check_expert(name, folder)


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
