"""Who labels, who judges. A name is settled by the plan and stands in every report."""

from dataclasses import dataclass

from omegaconf import MISSING

from affect_hpc.config.fields import transient


@dataclass
class ExpertsConfig:
    """Frozen networks used as judges. No network that guided a model may judge it: the plan refuses."""

    emotion: str = MISSING
    """Emotion judge: referee (trained on the train split), face_api, py_feat."""
    identity: str = MISSING
    """Identity judge (CSIM): referee, mobileface, dlib."""
    perceptual: str = MISSING
    """Perceptual distance: auto, lpips (AlexNet v0.1) or efficientnet_lite0; auto is settled by the plan."""
    folder: str = transient("")
    """Folder with packaged expert weights; empty = $AFFECT_HPC_EXPERTS, else share/affect_hpc/experts of the Python
    environment, where `make install` puts them."""
