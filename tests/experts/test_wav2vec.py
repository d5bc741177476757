"""Speech features, with small random networks that the tests save: alignment to frames, not what was learned."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, Wav2Vec2Model

from affect_hpc.config.corpora import AudioFeatures
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json
from affect_hpc.core.rundir import Inputs, Workplace
from affect_hpc.data.codec import decode_npy
from affect_hpc.data.corpora.source import Clip
from affect_hpc.data.shards import ShardSet, ShardWriter
from affect_hpc.experts import wav2vec

CHARACTERS = list("|ETAONIHSRDLUMWCFGYPBVK'XJQZ")
HUB_ORDER = ["<pad>", "<s>", "</s>", "<unk>", *CHARACTERS]
HIDDEN = 24


def small(**changes: object) -> Wav2Vec2Config:
    """wav2vec 2.0 base with its convolutions as they are (a row each 320 samples), few channels, two layers."""
    return Wav2Vec2Config(
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=[16] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        vocab_size=32,
        **changes,
    )


def save(folder: Path, kind: type[Wav2Vec2Model | Wav2Vec2ForCTC], vocabulary: list[str] | None = None) -> Path:
    torch.manual_seed(0)
    kind(small()).save_pretrained(folder)
    words = HUB_ORDER if vocabulary is None else vocabulary
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save(tmp_path_factory.mktemp("ctc"), Wav2Vec2ForCTC))


def noise(seconds: float, seed: int = 0) -> npt.NDArray[np.int16]:
    return np.random.default_rng(seed).integers(-9000, 9000, round(16_000 * seconds)).astype(np.int16)


def plain_inputs(sound: npt.NDArray[np.int16]) -> torch.Tensor:
    """As transformers' own processor prepares them."""
    processor = Wav2Vec2FeatureExtractor(sampling_rate=16_000, do_normalize=True)
    return processor(sound / 32768.0, sampling_rate=16_000, return_tensors="pt").input_values.float()


def test_at_its_own_length_hidden_is_the_plain_network(network: str) -> None:
    sound = noise(1.0)
    plain = Wav2Vec2Model.from_pretrained(network).eval()
    with torch.inference_mode():
        want = plain(plain_inputs(sound)).last_hidden_state[0]
    got = wav2vec.load(AudioFeatures.hidden, network)(sound, len(want))
    assert len(want) == 49
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_hidden_interpolates_before_the_transformer(network: str) -> None:
    sound = noise(1.0)
    plain = Wav2Vec2Model.from_pretrained(network).eval()
    with torch.inference_mode():
        features = plain.feature_extractor(plain_inputs(sound))[0].T.numpy()
        places = np.linspace(0, len(features) - 1, 30)
        rows = np.stack([np.interp(places, np.arange(len(features)), column) for column in features.T], axis=1)
        hidden, _ = plain.feature_projection(torch.from_numpy(rows[None]).float())
        want = plain.encoder(hidden).last_hidden_state[0]
    got = wav2vec.load(AudioFeatures.hidden, network)(sound, 30)
    assert got.shape == (30, HIDDEN) and got.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_logits_are_those_of_the_characters_in_the_thesis_order(network: str) -> None:
    sound = noise(0.6)
    plain = Wav2Vec2ForCTC.from_pretrained(network).eval()
    with torch.inference_mode():
        logits = plain(plain_inputs(sound)).logits[0].numpy()
    chosen = logits[:, [HUB_ORDER.index(character) for character in ["<pad>", *CHARACTERS]]]
    asr = wav2vec.load(AudioFeatures.asr_logits, network)
    torch.testing.assert_close(asr(sound, len(logits)), torch.from_numpy(chosen), rtol=1e-4, atol=1e-5)
    places = np.linspace(0, len(logits) - 1, 18)
    want = np.stack([np.interp(places, np.arange(len(logits)), column) for column in chosen.T], axis=1)
    torch.testing.assert_close(asr(sound, 18), torch.from_numpy(want).float(), rtol=1e-4, atol=1e-5)


def test_a_ramp_stays_a_ramp() -> None:
    ramp = torch.arange(49.0)[:, None] * torch.tensor([1.0, -2.0]) + torch.tensor([0.0, 5.0])
    for count in (2, 30, 49, 120):
        want = torch.linspace(0, 48, count)[:, None] * torch.tensor([1.0, -2.0]) + torch.tensor([0.0, 5.0])
        torch.testing.assert_close(wav2vec.interpolated(ramp, count), want, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("features", list(AudioFeatures))
def test_loudness_and_offset_change_nothing(network: str, features: AudioFeatures) -> None:
    read = wav2vec.load(features, network)
    sound = noise(0.5) // 4 * 4
    torch.testing.assert_close(read(sound, 15), read((sound // 2 + 1000).astype(np.int16), 15), rtol=1e-3, atol=1e-3)


def test_a_frame_hears_its_own_time(network: str) -> None:
    """A click moves the rows around its own frame most."""
    read = wav2vec.load(AudioFeatures.asr_logits, network)
    frames, sound = 60, (noise(2.0) // 8).astype(np.int16)
    for frame in (10, 30, 50):
        clicked = sound.copy()
        middle = round((frame + 0.5) * len(sound) / frames)
        clicked[middle - 80 : middle + 80] += noise(0.01, seed=1)
        change = (read(clicked, frames) - read(sound, frames)).norm(dim=1)
        assert int(change.argmax()) == pytest.approx(frame, abs=1)


def test_the_same_sound_gives_the_same_bits(network: str) -> None:
    for features in AudioFeatures:
        first, again = (wav2vec.load(features, network)(noise(0.4), 12) for _ in range(2))
        assert torch.equal(first, again)


def test_a_network_that_cannot_serve_is_one_sentence(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for absent in (str(tmp_path / "nowhere"), "nobody/no-such-network"):
        with pytest.raises(UserError, match=r"neither a folder .* nor in the hub's cache .*`hf download"):
            wav2vec.load(AudioFeatures.hidden, absent)
    other = save(tmp_path / "words", Wav2Vec2ForCTC, [*HUB_ORDER[:-1], "Ä"])
    with pytest.raises(
        UserError, match=r"another vocabulary \(it differs in Z Ä\): asr_logits needs the 29 characters"
    ):
        wav2vec.load(AudioFeatures.asr_logits, str(other))
    bare = save(tmp_path / "bare", Wav2Vec2Model)
    with pytest.raises(UserError, match=r"lacks weights \(lm_head"):
        wav2vec.load(AudioFeatures.asr_logits, str(bare))
    (other / "config.json").write_text(json.dumps({"model_type": "hubert"}))
    with pytest.raises(UserError, match=r"of type 'hubert': features need a wav2vec2"):
        wav2vec.load(AudioFeatures.hidden, str(other))
    with pytest.raises(UserError, match=r"sound of 399 samples is too short .* at least 400"):
        wav2vec.load(AudioFeatures.hidden, network)(noise(1)[:399], 1)
    assert wav2vec.load(AudioFeatures.hidden, network)(noise(1)[:400], 2).shape == (2, HIDDEN)


def write_clips(folder: Path, rate: int = 16_000) -> dict[str, Clip]:
    """Shards of clips of two splits; one clip has no sound."""
    written = {}
    for split, numbers in {"train": range(5), "test": range(5, 7)}.items():
        with ShardWriter(folder / split, "shard-00000") as writer:
            for number in numbers:
                frames = [np.full((8, 8, 3), number, np.uint8)] * (6 + number)
                sound = noise(len(frames) / 30, number)[: 0 if number == 3 else None]
                nothing, rows = np.zeros((len(frames), 68, 2), np.float32), np.zeros(len(frames), np.int16)
                clip = Clip(f"clip-{number}", frames, 1, "someone", "made", 30.0, nothing, rows, sound, rate)
                writer.write(clip.key, clip.members(), clip.info())
                written[clip.key] = clip
    return written


def precompute(features: AudioFeatures, network: str, shards: Path, out: Path, part: int = 0, parts: int = 1) -> Path:
    from affect_hpc.config.stages import PrecomputeAudioConfig
    from affect_hpc.stages import precompute_audio

    out.mkdir(parents=True)
    config = PrecomputeAudioConfig(features=features, network=network)
    precompute_audio.run(config, Inputs({"shards": (shards,)}), Workplace(out, out, part, parts))
    return out


@pytest.mark.parametrize("features", list(AudioFeatures))
def test_the_stage_writes_the_features_of_every_clip_with_sound(
    network: str, tmp_path: Path, features: AudioFeatures
) -> None:
    written = write_clips(tmp_path / "shards")
    out = precompute(features, network, tmp_path / "shards", tmp_path / "out")
    assert read_json(out / "audio.json")["without_sound"] == ["clip-3"]
    read = wav2vec.load(features, network)
    shards = ShardSet.open([out / "train", out / "test"])
    assert [entry.key for entry in shards] == [key for key in written if key != "clip-3"]
    for i, entry in enumerate(shards):
        clip = written[entry.key]
        want = read(clip.sound, len(clip.frames)).numpy().astype(np.float16)
        np.testing.assert_array_equal(decode_npy(shards.read(i, "audio.npy")), want)


def test_the_stage_writes_the_same_for_any_number_of_parts(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from affect_hpc.stages import precompute_audio

    monkeypatch.setattr(precompute_audio, "BLOCK", 2)
    write_clips(tmp_path / "shards")
    found = []
    for parts in (1, 3):
        folders = [
            precompute(AudioFeatures.hidden, network, tmp_path / "shards", tmp_path / f"{part}-of-{parts}", part, parts)
            for part in range(parts)
        ]
        for split in ("train", "test"):
            shards = ShardSet.open([folder / split for folder in folders])
            found.append([(entry.key, shards.read(i, "audio.npy")) for i, entry in enumerate(shards)])
    assert found[:2] == found[2:]


def test_the_stage_refuses_sound_of_another_rate(network: str, tmp_path: Path) -> None:
    write_clips(tmp_path / "shards", rate=22_050)
    with pytest.raises(UserError, match=r"sound has 22050 Hz, .*: prepare the shards with data.sample_rate=16000"):
        precompute(AudioFeatures.hidden, network, tmp_path / "shards", tmp_path / "out")
