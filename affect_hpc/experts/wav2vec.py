"""Speech as a row of numbers for each frame of a clip, by wav2vec 2.0 (Baevski et al. 2020; thesis section 5.2.2).

The networks are read with transformers from a folder or from the Hugging Face hub's cache; nothing is downloaded.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from transformers import Wav2Vec2ForCTC, Wav2Vec2Model
from transformers.utils.hub import cached_file

from affect_hpc.config.available import SPEECH_NETWORKS
from affect_hpc.config.corpora import AudioFeatures
from affect_hpc.core.errors import UserError

SAMPLE_RATE = 16_000
"""Of the sound that the networks were trained on, in Hz."""
LETTERS = "ETAONIHSRDLUMWCFGYPBVK'XJQZ"
CHARACTERS: tuple[str, ...] = ("<pad>", "|", *LETTERS)
"""The 29 columns of asr_logits: the CTC blank, the gap between words, and the letters (thesis section 5.2.2)."""
SPECIAL = ("<s>", "</s>", "<unk>")
"""Further entries of the hub's vocabulary, which CTC never emits."""
MAY_BE_ABSENT = {"masked_spec_embed", "wav2vec2.masked_spec_embed"}
"""Weights that only training uses."""


class SpeechFeatures(Protocol):
    """Turns sound into a row for each frame."""

    def __call__(self, sound: npt.NDArray[np.int16], frames: int) -> Tensor:
        """(N,) samples at 16 kHz -> (frames, D) float32; UserError where the sound is too short for the network."""
        ...


class HiddenStates:
    """Last hidden state: rows are interpolated before the transformer, which then sees one a frame (D-28)."""

    def __init__(self, network: Any) -> None:
        self.network = network

    @torch.inference_mode()
    def __call__(self, sound: npt.NDArray[np.int16], frames: int) -> Tensor:
        """(N,) samples at 16 kHz -> (frames, 768)."""
        features = self.network.feature_extractor(normalised(sound, self.network).to(self.network.device))
        rows = interpolated(features[0].T, frames)
        hidden, _ = self.network.feature_projection(rows[None])
        states: Tensor = self.network.encoder(hidden).last_hidden_state[0]
        return states.float().cpu()


class AsrLogits:
    """CTC logits of 29 characters, interpolated after the network."""

    def __init__(self, network: Any, columns: list[int]) -> None:
        self.network, self.columns = network, columns

    @torch.inference_mode()
    def __call__(self, sound: npt.NDArray[np.int16], frames: int) -> Tensor:
        """(N,) samples at 16 kHz -> (frames, 29)."""
        logits = self.network(normalised(sound, self.network).to(self.network.device)).logits[0]
        return interpolated(logits[:, self.columns].float(), frames).cpu()


def load(features: AudioFeatures, network: str = "", device: torch.device | None = None) -> SpeechFeatures:
    """The network for ``features``, frozen.

    Args:
        network: a folder as transformers saves it, or a name whose files lie in the hub's cache; empty for the thesis'.

    Raises:
        UserError: it is not here, is no wav2vec 2.0, lacks weights, or (asr_logits) has another vocabulary.
    """
    network = network or SPEECH_NETWORKS[features.name]
    kind: Any = Wav2Vec2Model if features is AudioFeatures.hidden else Wav2Vec2ForCTC
    config = json.loads(_file(network, "config.json").read_text())
    if config.get("model_type") != "wav2vec2":
        raise UserError(f"network={network} is of type {config.get('model_type')!r}: features need a wav2vec2.")
    try:
        model, report = kind.from_pretrained(network, local_files_only=True, output_loading_info=True)
    except OSError as error:
        raise UserError(_advice(network, str(error).splitlines()[0])) from error
    absent = sorted(set(report["missing_keys"]) - MAY_BE_ABSENT)
    if absent:
        raise UserError(f"network={network} lacks weights ({', '.join(absent[:3])}): give one that holds them all.")
    model = model.eval().requires_grad_(False).to(device or torch.device("cpu"))
    if features is AudioFeatures.hidden:
        return HiddenStates(model)
    return AsrLogits(model, columns_of(json.loads(_file(network, "vocab.json").read_text()), network))


def columns_of(vocabulary: Mapping[str, int], network: str) -> list[int]:
    """Where the 29 characters stand among a network's outputs.

    Raises:
        UserError: the vocabulary holds other symbols.
    """
    if set(vocabulary) != {*CHARACTERS, *SPECIAL}:
        odd = sorted(set(vocabulary) ^ {*CHARACTERS, *SPECIAL})
        raise UserError(
            f"network={network} has another vocabulary (it differs in {' '.join(odd[:8])}): asr_logits needs the"
            f" {len(CHARACTERS)} characters {' '.join(CHARACTERS)} and {' '.join(SPECIAL)}, as"
            f" {SPEECH_NETWORKS['asr_logits']} has them."
        )
    return [vocabulary[character] for character in CHARACTERS]


def normalised(sound: npt.NDArray[np.int16], network: Any) -> Tensor:
    """(1, N) float32 of zero mean and unit variance, as transformers' own processor gives it.

    Networks with group normalisation, as those of the thesis, give the same features without it.

    Raises:
        UserError: the sound is shorter than what one row of features sees.
    """
    least = receptive_field(network.config.conv_kernel, network.config.conv_stride)
    if len(sound) < least:
        raise UserError(f"sound of {len(sound)} samples is too short for wav2vec 2.0: it needs at least {least}.")
    wave = torch.from_numpy(sound.astype(np.float32))
    wave = wave / 32768
    return ((wave - wave.mean()) / (wave.var(correction=0) + 1e-7).sqrt())[None]


def receptive_field(kernels: list[int], strides: list[int]) -> int:
    """Samples that one output of stacked convolutions sees."""
    size = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        size = (size - 1) * stride + kernel
    return size


def interpolated(rows: Tensor, count: int) -> Tensor:
    """(T', D) rows -> (count, D), linear, first row on the first and last on the last."""
    if len(rows) == count:
        return rows
    return functional.interpolate(rows.T[None], size=count, mode="linear", align_corners=True)[0].T


def _file(network: str, name: str) -> Path:
    try:
        found = cached_file(network, name, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(_advice(network, f"no {name} is there")) from error
    return Path(str(found))


def _advice(network: str, reason: str) -> str:
    return (
        f"network={network} is neither a folder with a wav2vec 2.0 nor in the hub's cache ({reason}): on a machine with"
        f" a network run `hf download {network}`, and copy the cache ($HF_HOME) here, or give a folder."
    )
