"""What this machine can judge with. Asked by the plan, so it looks at files only and never imports torch."""

from affect_hpc.config import packaged
from affect_hpc.config.checks import one_of
from affect_hpc.core.errors import UserError

EMOTION_JUDGES: tuple[str, ...] = ("referee", "face_api", "py_feat")
IDENTITY_JUDGES: tuple[str, ...] = ("referee", "mobileface", "dlib")
PERCEPTUAL_DISTANCES: tuple[str, ...] = ("lpips", "efficientnet_lite0")
PERCEPTUAL_LOSSES: tuple[str, ...] = ("lpips_vgg", "efficientnet_lite0")
LANDMARK_BACKENDS: tuple[str, ...] = ("fan", "dlib")


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
    return _settle("data.align.landmarks", name, {"fan": "fan", "dlib": "dlib_landmarks"})


def _settle(key: str, name: str, weights_of: dict[str, str]) -> str:
    if name != "auto":
        packaged.find(weights_of[name])
        return name
    for candidate, weights in weights_of.items():
        if not packaged.missing(weights):
            return candidate
    ways = "; ".join(f"for {candidate}, {packaged.remedy(weights)}" for candidate, weights in weights_of.items())
    raise UserError(f"{key}=auto finds neither {' nor '.join(weights_of)} installed: {ways}.")
