"""Who labels, who judges. A name is settled by the plan and stands in every report."""

from dataclasses import dataclass

from omegaconf import MISSING

from affect_hpc.config.fields import absent_if, transient


@dataclass
class ExpertsConfig:
    """Frozen networks used as judges. No network that guided a model may judge it: the plan refuses."""

    emotion: str = MISSING
    """Emotion judge: referee (trained on the train split), face_api, py_feat, or the thesis' enet_b2_7 or enet_b2_8."""
    identity: str = MISSING
    """Identity judge (CSIM): referee, mobileface, dlib, or the thesis' cosface; ir_se50 is that of its losses."""
    perceptual: str = MISSING
    """Perceptual distance: auto, lpips (AlexNet v0.1) or efficientnet_lite0; auto is settled by the plan."""
    folder: str = transient("")
    """Folder with expert weights, unpacked by `make install` or supplied by the user (tools/fetch_weights.py shows
    which); empty = $AFFECT_HPC_EXPERTS, else share/affect_hpc/experts of the Python environment."""
    features: str = absent_if("auto")
    """Whose features FID and KID compare: inception (torch-fidelity's), clip, vgg16 or efficientnet_lite0; auto is
    settled by the plan."""
    manifold_features: str = absent_if("auto")
    """Likewise for precision and recall, where the thesis' tool takes vgg16 (D-11)."""
    second_emotion: str = absent_if("none")
    """Another emotion judge, whose opinion is reported beside the first one's; none for no other."""
    second_identity: str = absent_if("none")
    """Another identity judge, likewise."""
    digest: str = absent_if("")
    """SHA-256 over the judges' files that the user supplied, set by the plan: other weights make other runs."""
