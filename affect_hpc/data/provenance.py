"""Marks that say: this picture is synthetic, and how it was made.

A PNG or JPEG carries its mark in itself, as a C2PA manifest (C2PA specification 2.4, library c2pa-python): a claim,
signed and bound to the bytes of the picture by their hash, that readers of Content Credentials show to people. C2PA
binds no tars; a shard ``name.tar`` is marked by ``name.synthetic.json`` beside it: a plain claim with the digest of the
tar, signed by the same key.

Pixels stay as they are. Nothing is asked of the net: no time is stamped, so that a mark counts as long as the
certificate is valid. Marks hang on whose key signs, and those in pictures on chance besides (C2PA's identifiers and
salts): **bytes of a marked picture and of *.synthetic.json must not enter a digest of outputs** (see core/marks.py).
"""

import base64
import datetime
import io
import json
import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import c2pa  # type: ignore[import-untyped]
import numpy as np
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from affect_hpc import __version__
from affect_hpc.config.checks import one_of
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json, sha256_file, sync_folder, write_bytes, write_json
from affect_hpc.core.marks import BESIDE
from affect_hpc.data.codec import encode_json, encode_png

Kind = Literal["png", "jpeg"]
Setting = str | int | float | bool | None

GENERATOR = {"name": "affect_hpc", "version": __version__}
LABEL = "affect_hpc.synthetic"
"""Of our assertion in a manifest: the model and its settings."""
KEY_FILE, CERTIFICATES_FILE = "key.pem", "certificates.pem"
LIFE = datetime.timedelta(days=3650)
"""Of a certificate made here."""

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
DRAWN, EDITED = SOURCE_TYPES + "trainedAlgorithmicMedia", SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"
MAGIC = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff"}
ES256 = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
OFFLINE = {
    "core": {"allowed_network_hosts": []},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}

# What goes wrong is raised; the library's own remarks do not reach the logs of a run.
logging.getLogger("c2pa").propagate = False


@dataclass(frozen=True)
class SyntheticFacts:
    """What a mark says of how a picture came about."""

    model: str
    """Signature or name of the model."""
    edited: bool
    """Whether a photo was edited; else it was drawn from noise."""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    """Target, gamma, t0, steps, seed, inverter and the like; no lists, since C2PA's reader garbles those of numbers."""
    title: str = "face"

    def __post_init__(self) -> None:
        for name, value in self.settings.items():
            if value is not None and not isinstance(value, str | int | float):
                raise TypeError(f"setting {name} of a mark is {value!r}: a text, a number, a truth value or None is")


@dataclass(frozen=True)
class Mark:
    """What was found in a marked picture, or beside a marked shard."""

    valid: bool
    """Whether signature and content are as they were signed; exactly then there are no problems."""
    trusted: bool
    """Whether the signer's certificate was issued by one of the anchors that the reader of the mark named."""
    problems: tuple[str, ...]
    """What is wrong: C2PA's failure codes, or sentences."""
    signer: str
    """Name in the signer's certificate; whoever signs can choose it, hence see ``trusted``."""
    facts: dict[str, Any] | None
    """model, edited, settings and title; None where the mark is another program's."""
    manifest: dict[str, Any]
    """The whole claim: the active C2PA manifest, or the claim of a shard."""


@dataclass(frozen=True)
class Signer:
    """A private key on the curve P-256 (ES256), and the certificates that vouch for it."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    certificates: bytes
    """PEM: the signer's own first, each followed by the one of its issuer. They are public, and anchors of
    ``read_mark`` and ``verify_shard`` for whoever trusts this signer."""

    @classmethod
    def of_files(cls, key: Path, certificates: Path) -> "Signer":
        """The user's own key and certificate chain.

        Args:
            key: PEM, without a password, on P-256.
            certificates: PEM, the signer's own first.

        Raises:
            UserError: they cannot be read, do not belong together, or are not fit for C2PA (X.509 v3 with the key
                usage digitalSignature and the extended one emailProtection, issued by another certificate, valid now).
        """
        try:
            signer = cls(_parsed(key, key.read_bytes()), certificates.read_bytes())
        except OSError as error:
            raise UserError(f"{error.filename} cannot be read ({error.strerror}): give paths of PEM files.") from None
        try:
            first = x509.load_pem_x509_certificates(signer.certificates)[0].public_key()
        except ValueError:
            first = None
        if first != signer.key.public_key():
            raise UserError(f"{certificates} does not begin with a certificate of {key}: give PEM files of one signer.")
        try:
            # What C2PA asks of a certificate shows when one signs, better now than after hours of work.
            _sign(encode_png(np.zeros((8, 8, 3), np.uint8)), "png", SyntheticFacts("", edited=False), signer)
        except c2pa.C2paError as error:
            raise UserError(f"C2PA refuses {certificates} ({error}): give a valid one for emailProtection.") from None
        return signer

    @classmethod
    def kept_in(cls, folder: Path) -> "Signer":
        """The signer of ``folder``: key.pem (mode 0600) and certificates.pem, made when first asked for, then kept.

        Its certificate is issued by an authority of its own whose key is thrown away: signatures count as valid, by a
        signer whom nobody knows. Processes that ask at once get the same one.

        Raises:
            UserError: other files lie there, or those there are damaged.
        """
        if not (folder / KEY_FILE).exists():
            _make(folder)
        return cls.of_files(folder / KEY_FILE, folder / CERTIFICATES_FILE)


def mark(image: bytes, kind: Kind, facts: SyntheticFacts, signer: Signer) -> bytes:
    """The same picture with a mark in it; one that is there already is replaced. Takes about 2 ms for a crop.

    Args:
        image: bytes of a PNG or JPEG file; its coded pixels and other metadata are taken over as they are.

    Raises:
        UserError: it is no such file.
    """
    _check_kind(image, kind)
    try:
        return _sign(image, kind, facts, signer)
    except c2pa.C2paError as error:
        raise UserError(f"the {kind} cannot be marked ({error}): give a whole file and a valid certificate.") from error


def read_mark(image: bytes, kind: Kind, anchors: bytes = b"") -> Mark | None:
    """The mark of a picture, checked against its bytes; None where it has none.

    Args:
        anchors: PEM certificates whose signers are trusted, ``Signer.certificates`` of one's own, say. C2PA's public
            list of trusted authorities is not consulted.

    Raises:
        UserError: the bytes do not begin as a file of this kind.
    """
    _check_kind(image, kind)
    settings = {**OFFLINE, "trust": {"user_anchors": anchors.decode()}} if anchors else OFFLINE
    try:
        with c2pa.Reader(kind, io.BytesIO(image), context=c2pa.Context.from_dict(settings)) as reader:
            report = json.loads(reader.json())
        manifest = report["manifests"][report["active_manifest"]]
        failures = [failure["code"] for failure in report["validation_results"]["activeManifest"]["failure"]]
    except c2pa.C2paError.ManifestNotFound:
        return None
    except (c2pa.C2paError, KeyError) as error:  # KeyError: a damaged manifest may name another than it holds
        return Mark(False, False, (str(error),), "", None, {})
    state, signature = report["validation_state"], manifest.get("signature_info", {})
    facts = next((found["data"] for found in manifest["assertions"] if found["label"] == LABEL), None)
    codes = [code for code in failures if code != "signingCredential.untrusted"]
    problems = tuple(codes or ["the mark of an ingredient is not valid"]) if state == "Invalid" else ()
    return Mark(not problems, state == "Trusted", problems, signature.get("common_name", ""), facts, manifest)


def mark_shards(folder: Path, facts: SyntheticFacts, signer: Signer) -> list[Path]:
    """Mark every ``*.tar`` in ``folder``; returns the files written, ``name.synthetic.json`` beside each ``name.tar``.

    The same tar, facts and key give the same bytes.
    """
    written = []
    for tar in sorted(folder.glob("*.tar")):
        claim = {
            "generator": GENERATOR,
            "digitalSourceType": EDITED if facts.edited else DRAWN,
            "facts": asdict(facts),
            "file": tar.name,
            "sha256": sha256_file(tar),
        }
        signature = base64.b64encode(signer.key.sign(encode_json(claim), ES256)).decode()
        certificates = signer.certificates.decode()
        written.append(shard_mark(tar))
        write_json(written[-1], {"claim": claim, "es256": signature, "certificates": certificates})
    return written


def shard_mark(tar: Path) -> Path:
    """Where the mark of a shard lies."""
    return tar.with_name(tar.stem + BESIDE)


def verify_shard(tar: Path, anchors: bytes = b"") -> Mark | None:
    """The mark of the shard ``name.tar``, checked against its bytes; None where there is none.

    Args:
        anchors: as for ``read_mark``, but the signer's own certificate must be among them. Dates are not looked at.
    """
    path = shard_mark(tar)
    if not path.exists():
        return None
    try:
        content = read_json(path)
        claim, facts = dict(content["claim"]), dict(content["claim"]["facts"])
        certificate = x509.load_pem_x509_certificates(content["certificates"].encode())[0]
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError("its certificate is of another kind")
        signature = base64.b64decode(content["es256"], validate=True)
        signer = str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        return Mark(False, False, (f"{path} is damaged ({error!r})",), "", None, {})
    problems = []
    try:
        key.verify(signature, encode_json(claim), ES256)
    except InvalidSignature:
        problems.append(f"{path} is not what was signed")
    if claim.get("file") != tar.name or claim.get("sha256") != sha256_file(tar):
        problems.append(f"{tar} is not the file that was marked")
    known = x509.load_pem_x509_certificates(anchors) if anchors else []
    trusted = not problems and certificate in known
    return Mark(not problems, trusted, tuple(problems), signer, facts, claim)


def _check_kind(image: bytes, kind: str) -> None:
    one_of("kind", kind, MAGIC)
    if not image.startswith(MAGIC[kind]):
        raise UserError(f"the picture is no {kind}, it begins with {image[:8]!r}: give a PNG or JPEG and its kind.")


def _sign(image: bytes, kind: str, facts: SyntheticFacts, signer: Signer) -> bytes:
    # The specification wants pictures to begin as created, or as opened from an ingredient: here the photo, of which
    # the manifest holds nothing but this word.
    opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["photo"]}}
    edited = {"action": "c2pa.edited", "digitalSourceType": EDITED, "softwareAgent": GENERATOR}
    created = {"action": "c2pa.created", "digitalSourceType": DRAWN, "softwareAgent": GENERATOR}
    photo = {"title": "photo", "relationship": "parentOf", "label": "photo"}
    manifest = {
        "claim_generator_info": [GENERATOR],
        "title": facts.title,
        "ingredients": [photo] if facts.edited else [],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [opened, edited] if facts.edited else [created]}},
            {"label": LABEL, "data": asdict(facts), "created": True},
        ],
    }
    # Whatever form the key file had, the library knows PKCS #8 alone.
    key = signer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    marked = io.BytesIO()
    with (
        c2pa.Signer.from_info(c2pa.C2paSignerInfo("es256", signer.certificates, key, None)) as native,
        c2pa.Builder(encode_json(manifest).decode(), context=c2pa.Context.from_dict(OFFLINE)) as builder,
    ):
        builder.sign(native, kind, io.BytesIO(image), marked)
    return marked.getvalue()


def _parsed(key: Path, content: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        found = load_pem_private_key(content, None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        found = None
    if not isinstance(found, ec.EllipticCurvePrivateKey) or found.curve.name != "secp256r1":
        raise UserError(f"{key} is no key that can sign: give a private one on P-256 (ES256), PEM, without password.")
    return found


def _make(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        signer = _generated()
        write_bytes(aside / KEY_FILE, signer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (aside / KEY_FILE).chmod(0o600)  # until now the folder alone, which is the owner's, kept it from others
        write_bytes(aside / CERTIFICATES_FILE, signer.certificates)
        # A folder takes the place of an empty one only: of several processes one wins, the others read what it wrote.
        aside.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        if not (folder / KEY_FILE).exists():
            raise UserError(f"{folder} cannot take a key ({error.strerror}): give an absent or empty folder.") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _generated() -> Signer:
    key, authority = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    # Yesterday, since clocks of nodes differ.
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    mine = _certificate(key.public_key(), "signer", authority, start)
    root = _certificate(authority.public_key(), "authority", authority, start)
    return Signer(key, mine.public_bytes(Encoding.PEM) + root.public_bytes(Encoding.PEM))


def _certificate(
    subject: ec.EllipticCurvePublicKey, role: str, authority: ec.EllipticCurvePrivateKey, start: datetime.datetime
) -> x509.Certificate:
    """As the certificate profile of C2PA asks (specification 2.4, section on X.509 certificates)."""
    root = role == "authority"
    builder = x509.CertificateBuilder(
        _name("authority"), _name(role), subject, x509.random_serial_number(), start, start + LIFE
    )
    # Of the key usages, a signer's is digitalSignature, an authority's are keyCertSign and cRLSign.
    extensions: list[x509.ExtensionType] = [
        x509.KeyUsage(not root, False, False, False, False, root, root, False, False),
        x509.BasicConstraints(root, 0 if root else None),
        x509.SubjectKeyIdentifier.from_public_key(subject),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]),
    ]
    for extension in extensions[:-1] if root else extensions:
        builder = builder.add_extension(extension, isinstance(extension, x509.KeyUsage | x509.BasicConstraints))
    return builder.sign(authority, hashes.SHA256())


def _name(role: str) -> x509.Name:
    names = ((NameOID.ORGANIZATION_NAME, "affect_hpc"), (NameOID.COMMON_NAME, f"affect_hpc {role}, made by itself"))
    return x509.Name([x509.NameAttribute(kind, text) for kind, text in names])
