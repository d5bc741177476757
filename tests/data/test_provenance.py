"""Laws of marks: what was marked is told from what was changed since, pixels stay, keys are kept, all is silent."""

import datetime
import io
import json
import stat
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from PIL import Image

from affect_hpc.core.errors import UserError
from affect_hpc.data import provenance
from affect_hpc.data.codec import UInt8Image, decode, encode_png
from affect_hpc.data.provenance import (
    LABEL,
    Kind,
    Signer,
    SyntheticFacts,
    mark,
    mark_shards,
    read_mark,
    shard_mark,
    verify_shard,
)
from affect_hpc.data.shards import ShardSet, ShardWriter

SETTINGS = {"target": "happy", "gamma": 3.0, "t0": 500, "steps": 40, "seed": None, "inverter": "ddim", "flip": True}
FACTS = SyntheticFacts("a1b2", edited=True, settings=SETTINGS, title="face-000000 as happy")
KINDS: tuple[Kind, ...] = ("png", "jpeg")


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer.kept_in(tmp_path_factory.mktemp("store") / "keys")


def picture() -> UInt8Image:
    rows, columns = np.mgrid[:40, :56]
    return np.stack([rows * 6, columns * 4, rows + columns], axis=-1).astype(np.uint8)


def encoded(kind: Kind) -> bytes:
    if kind == "png":
        return encode_png(picture())
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, "jpeg", quality=90)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("edited", [False, True])
def test_a_mark_is_read_back_valid_by_a_signer_whom_nobody_knows(signer: Signer, kind: Kind, edited: bool) -> None:
    facts = SyntheticFacts("a1b2", edited, SETTINGS)
    found = read_mark(mark(encoded(kind), kind, facts, signer), kind)
    assert found is not None and found.valid and not found.trusted and found.problems == ()
    assert found.facts == {"model": "a1b2", "edited": edited, "settings": SETTINGS, "title": "face"}
    assert found.signer == "affect_hpc signer, made by itself"
    manifest = found.manifest
    generator = manifest["claim_generator_info"][0]
    assert (generator["name"], generator["version"]) == ("affect_hpc", provenance.__version__)
    assert manifest["title"] == "face"
    (actions,) = [one["data"]["actions"] for one in manifest["assertions"] if one["label"] == "c2pa.actions.v2"]
    expected = ("c2pa.edited", "compositeWithTrainedAlgorithmicMedia") if edited else ("c2pa.created", "trained")
    assert actions[-1]["action"] == expected[0]
    assert actions[-1]["digitalSourceType"].startswith(f"http://cv.iptc.org/newscodes/digitalsourcetype/{expected[1]}")
    assert "time" not in manifest["signature_info"], "no time stamp"


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_trusts_the_authority_trusts_the_mark(signer: Signer, kind: Kind, tmp_path: Path) -> None:
    marked = mark(encoded(kind), kind, FACTS, signer)
    known, other = read_mark(marked, kind, signer.certificates), Signer.kept_in(tmp_path / "other").certificates
    assert known is not None and known.valid and known.trusted
    unknown = read_mark(marked, kind, other)
    assert unknown is not None and unknown.valid and not unknown.trusted


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_stay_as_they_are(signer: Signer, kind: Kind) -> None:
    before = encoded(kind)
    marked = mark(before, kind, FACTS, signer)
    np.testing.assert_array_equal(decode(kind, marked), decode(kind, before))
    assert len(before) < len(marked) < len(before) + 6000
    again = mark(marked, kind, SyntheticFacts("c3", edited=False), signer)
    np.testing.assert_array_equal(decode(kind, again), decode(kind, before))
    found = read_mark(again, kind)
    assert found is not None and found.valid and found.facts is not None and found.facts["model"] == "c3"
    assert len(again) < len(before) + 6000, "the older mark is replaced"


def test_every_byte_of_coded_pixels_counts(signer: Signer) -> None:
    for kind, begin in (("png", b"IDAT"), ("jpeg", b"\xff\xda")):
        marked = mark(encoded(kind), kind, FACTS, signer)
        first = marked.rindex(begin) + 20
        for place in np.linspace(first, len(marked) - 20, 8).astype(int):
            changed = bytearray(marked)
            changed[place] ^= 1
            found = read_mark(bytes(changed), kind)
            assert found is not None and not found.valid and not found.trusted
            assert "assertion.dataHash.mismatch" in found.problems


def test_other_pixels_in_a_file_that_is_whole_are_noticed(signer: Signer) -> None:
    marked = mark(encode_png(picture()), "png", FACTS, signer)
    forged = picture()
    forged[3, 5, 0] ^= 1
    # The chunk of pixels is exchanged with all its checksums.
    old, new = encode_png(picture()), encode_png(forged)
    pixels = slice(old.index(b"IDAT") - 4, old.index(b"IEND") - 4)
    swapped = marked.replace(old[pixels], new[new.index(b"IDAT") - 4 : new.index(b"IEND") - 4])
    np.testing.assert_array_equal(decode("png", swapped), forged)
    found = read_mark(swapped, "png")
    assert found is not None and not found.valid and found.problems == ("assertion.dataHash.mismatch",)


def test_other_words_in_the_mark_are_noticed(signer: Signer) -> None:
    marked = mark(encode_png(picture()), "png", FACTS, signer)
    place = marked.index(b"caBX")
    size = int.from_bytes(marked[place - 4 : place], "big")
    chunk = marked[place : place + 4 + size].replace(b"happy", b"angry")
    forged = marked[:place] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + marked[place + 8 + size :]
    found = read_mark(forged, "png")
    assert found is not None and not found.valid and "assertion.hashedURI.mismatch" in found.problems


def test_whatever_bit_is_turned_reading_ends_with_a_verdict(signer: Signer) -> None:
    random = np.random.default_rng(0)
    for kind in KINDS:
        marked = mark(encoded(kind), kind, FACTS, signer)
        for _ in range(300):
            changed = bytearray(marked)
            changed[random.integers(8, len(marked))] ^= 1 << random.integers(8)
            found = read_mark(bytes(changed), kind)
            # Padding and names of the mark's boxes may turn unseen; what is shown and what is said may not.
            if found is not None and found.valid and found.facts is not None:
                assert found.facts["settings"] == SETTINGS
                np.testing.assert_array_equal(decode(kind, bytes(changed)), decode(kind, encoded(kind)))


def test_what_is_cut_off_is_not_valid_and_what_has_no_mark_has_none(signer: Signer) -> None:
    marked = mark(encode_png(picture()), "png", FACTS, signer)
    found = read_mark(marked[:-30], "png")
    assert found is not None and not found.valid and found.problems
    for kind in KINDS:
        assert read_mark(encoded(kind), kind) is None


def test_what_cannot_be_marked_is_told_in_one_sentence(signer: Signer) -> None:
    for act in (lambda: mark(encoded("png"), "jpeg", FACTS, signer), lambda: read_mark(encoded("png"), "jpeg")):
        with pytest.raises(UserError, match=r"is no jpeg, it begins with b'.x89PNG.*': give a PNG or JPEG"):
            act()
    with pytest.raises(UserError, match=r"kind='tar' is unknown: the valid values are png, jpeg"):
        mark(b"", "tar", FACTS, signer)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"the png cannot be marked \(.*\): give a whole file"):
        mark(encoded("png")[:60], "png", FACTS, signer)
    with pytest.raises(TypeError, match="setting targets of a mark is"):
        SyntheticFacts("a", edited=True, settings={"targets": [1, 2]})  # type: ignore[dict-item]


def test_a_key_is_made_once_and_its_file_is_the_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "store" / "keys"
    first = Signer.kept_in(folder)
    content = (folder / "key.pem").read_bytes()
    again = Signer.kept_in(folder)
    assert (folder / "key.pem").read_bytes() == content and again.certificates == first.certificates
    assert again.key.private_numbers() == first.key.private_numbers()
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["certificates.pem", "key.pem"]
    assert [path.name for path in folder.parent.iterdir()] == ["keys"], "nothing is left aside"
    assert "PRIVATE" not in repr(first) and str(first.key.private_numbers().private_value) not in repr(first)


def test_who_asks_at_once_gets_the_same_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        signers = list(pool.map(lambda _: Signer.kept_in(tmp_path / "keys"), range(6)))
    assert len({one.certificates for one in signers}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


def test_an_empty_folder_takes_a_key_and_one_of_other_files_does_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert Signer.kept_in(tmp_path / "empty").certificates
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").write_text("")
    with pytest.raises(UserError, match=r"full cannot take a key \(.*\): give an absent or empty folder"):
        Signer.kept_in(tmp_path / "full")


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes = b"") -> bytes:
    cipher = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, cipher)


def test_the_users_own_key_signs_in_the_older_form_too(signer: Signer, tmp_path: Path) -> None:
    key, certificates = tmp_path / "mine.key", tmp_path / "mine.crt"
    key.write_bytes(pem(signer.key))
    certificates.write_bytes(signer.certificates)
    found = read_mark(mark(encoded("png"), "png", FACTS, Signer.of_files(key, certificates)), "png")
    assert found is not None and found.valid


def test_a_wrong_key_file_is_told_in_one_sentence(signer: Signer, tmp_path: Path) -> None:
    key, certificates = tmp_path / "my.key", tmp_path / "my.crt"
    certificates.write_bytes(signer.certificates)
    with pytest.raises(UserError, match=r"my.key cannot be read \(No such file.*\): give paths of PEM files"):
        Signer.of_files(key, certificates)
    wrong = (
        b"nonsense",
        certificates.read_bytes(),
        pem(rsa.generate_private_key(65537, 2048)),
        pem(ec.generate_private_key(ec.SECP384R1())),
        pem(signer.key, b"secret"),
    )
    for content in wrong:
        key.write_bytes(content)
        with pytest.raises(UserError, match=r"my.key is no key that can sign: give a private one on P-256") as caught:
            Signer.of_files(key, certificates)
        assert "\n" not in str(caught.value)
    key.write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(UserError, match=r"my.crt does not begin with a certificate of .*my.key"):
        Signer.of_files(key, certificates)
    key.write_bytes(pem(signer.key))
    certificates.write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"my.crt does not begin with a certificate of .*my.key"):
        Signer.of_files(key, certificates)


def test_a_certificate_that_c2pa_refuses_is_told_before_any_work(tmp_path: Path) -> None:
    authority = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    for role, days in (("authority", 1), ("signer", 4000)):
        made = provenance._certificate(authority.public_key(), role, authority, now - datetime.timedelta(days=days))
        (tmp_path / "my.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        (tmp_path / "my.key").write_bytes(pem(authority))
        with pytest.raises(UserError, match=r"C2PA refuses .*my.crt \(.*\): give a valid one"):
            Signer.of_files(tmp_path / "my.key", tmp_path / "my.crt")


def write_shards(folder: Path, count: int = 2) -> list[Path]:
    for number in range(count):
        with ShardWriter(folder, f"shard-{number:05d}") as writer:
            writer.write(f"face-{number}", {"png": encode_png(picture())}, {"label": 1, "identity": "a"})
    return sorted(folder.glob("*.tar"))


def test_shards_are_marked_beside_and_the_same_key_gives_the_same_bytes(signer: Signer, tmp_path: Path) -> None:
    tars = write_shards(tmp_path)
    assert verify_shard(tars[0]) is None
    written = mark_shards(tmp_path, FACTS, signer)
    assert [path.name for path in written] == ["shard-00000.synthetic.json", "shard-00001.synthetic.json"]
    before = [path.read_bytes() for path in written]
    mark_shards(tmp_path, FACTS, signer)
    assert [path.read_bytes() for path in written] == before
    assert len(ShardSet.open([tmp_path])) == 2, "readers of shards do not mind"
    for tar in tars:
        found, known = verify_shard(tar), verify_shard(tar, signer.certificates)
        assert found is not None and found.valid and not found.trusted and found.problems == ()
        assert found.facts is not None and found.facts["settings"] == SETTINGS and found.manifest["file"] == tar.name
        assert found.manifest["digitalSourceType"].endswith("compositeWithTrainedAlgorithmicMedia")
        assert known is not None and known.valid and known.trusted


def test_a_shard_or_mark_that_was_changed_is_noticed(signer: Signer, tmp_path: Path) -> None:
    first, second = write_shards(tmp_path)
    mark_shards(tmp_path, FACTS, signer)
    content = bytearray(first.read_bytes())
    content[700] ^= 1
    first.write_bytes(content)
    found = verify_shard(first, signer.certificates)
    assert found is not None and not found.valid and not found.trusted
    assert found.problems == (f"{first} is not the file that was marked",)
    path = shard_mark(second)
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "claim": {**whole["claim"], "digitalSourceType": "digitalCapture"}}))
    found = verify_shard(second)
    assert found is not None and found.problems == (f"{path} is not what was signed",)
    for broken in ({}, [], {**whole, "es256": "?"}, {**whole, "certificates": "?"}, {**whole, "claim": 1}):
        path.write_text(json.dumps(broken))
        found = verify_shard(second)
        assert found is not None and not found.valid and "is damaged" in found.problems[0]


def test_another_signer_is_not_the_one_that_is_trusted(signer: Signer, tmp_path: Path) -> None:
    (tar, *_) = write_shards(tmp_path, 1)
    mark_shards(tmp_path, FACTS, Signer.kept_in(tmp_path / "keys"))
    found = verify_shard(tar, signer.certificates)
    assert found is not None and found.valid and not found.trusted


def test_nothing_is_printed_or_logged(
    signer: Signer, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        marked = mark(encoded("png"), "png", FACTS, signer)
        read_mark(marked, "png")
        read_mark(marked[:-1] + b"?", "png")
        read_mark(encoded("png"), "png")
        with pytest.raises(UserError):
            mark(encoded("png")[:60], "png", FACTS, signer)
    assert capfd.readouterr() == ("", "") and not caplog.records


def test_the_made_certificate_is_what_c2pa_asks_for(signer: Signer) -> None:
    mine, authority = x509.load_pem_x509_certificates(signer.certificates)
    mine.verify_directly_issued_by(authority)
    usage = mine.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical and usage.value.digital_signature and not usage.value.key_cert_sign
    assert not mine.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert mine.not_valid_after_utc - mine.not_valid_before_utc == provenance.LIFE
    assert LABEL.startswith("affect_hpc.")
