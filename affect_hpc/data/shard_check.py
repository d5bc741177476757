"""The inspection of one shard: its tar by its own headers, against the index beside it, which is never trusted."""

import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.progress import Progress
from affect_hpc.data.codec import DamagedMemberError, Limits, decode
from affect_hpc.data.shards import NO_LABEL, Place, index_path
from affect_hpc.data.tars import Member, TarReader, split_name

SPLITS = ("train", "val", "test")
UNLABELLED = "unlabelled"
NUMBERED = re.compile(r"(\d{1,9})\.")
"""Extension of one frame of a clip."""
LONGEST_NAME = 1024


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    shard: str
    """File, as a path below the inspected folder."""
    member: str
    """Name of the member, or key of the sample; empty where the file as a whole is meant."""
    reason: str
    """Reads on after the member's name."""

    def __str__(self) -> str:
        # Names come from strangers: nothing that steers a terminal gets through.
        where = f"{self.shard}: {self.member}" if self.member else self.shard
        text = f"{where:.1000} {self.reason}".encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


@dataclass(frozen=True)
class ShardSummary:
    """One tar that was read."""

    name: str
    """Path below the inspected folder."""
    split: str
    """train, val or test by the folder it stands in, or empty."""
    labels: str
    """One digit per sample, ``NO_LABEL`` where it has no good one."""
    members: int
    bytes: int


@dataclass
class Report:
    """What an inspection found."""

    faults: list[Fault] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    """What is worth knowing and no fault."""
    shards: list[ShardSummary] = field(default_factory=list)

    @property
    def samples(self) -> int:
        """Samples of all shards."""
        return sum(len(shard.labels) for shard in self.shards)

    def counts(self) -> dict[str, Counter[str]]:
        """Split -> emotion, or ``UNLABELLED`` -> samples."""
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for shard in self.shards:
            counts[shard.split].update(
                UNLABELLED if label == NO_LABEL else EMOTIONS[int(label)] for label in shard.labels
            )
        return dict(counts)


class WholeSet:
    """What is known across shards."""

    def __init__(self, root: Path, report: Report, limits: Limits, has_indexes: bool) -> None:
        self.root, self.report, self.limits, self.has_indexes = root, report, limits, has_indexes
        self.key_shards: dict[str, str] = {}
        """Key -> the shard in which it was met first."""
        self.identity_splits: dict[str, set[str]] = defaultdict(set)


@dataclass
class _Index:
    bytes: int
    sha256: str
    infos: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    places: dict[str, list[Place]] = field(default_factory=dict)
    """By member name, those not met yet; several where a name stands several times."""


def _read_index(tar: Path, limits: Limits) -> _Index:
    """The index beside ``tar``; DamagedMemberError where it is none, or contradicts itself."""
    try:
        with index_path(tar).open("rb") as handle:
            header = decode("json", handle.readline(limits.json_bytes), limits)
            index, labels = _Index(int(header["bytes"]), str(header["sha256"])), []
            while line := handle.readline(limits.json_bytes):
                entry = decode("json", line, limits)
                key, label = str(entry["key"]), entry["info"].get("label")
                index.infos[key] = entry["info"]
                labels.append(NO_LABEL if label is None else str(label))
                for extension, (offset, size, crc32) in entry["members"].items():
                    place = Place(int(offset), int(size), int(crc32))
                    index.places.setdefault(f"{key}.{extension}", []).append(place)
    except DamagedMemberError as error:
        raise DamagedMemberError(f"has a line that {error}") from error
    except OSError as error:
        raise DamagedMemberError(f"cannot be read ({error.strerror})") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedMemberError(f"has a line that is none of an index ({type(error).__name__}: {error})") from error
    if (header["tar"], header["count"], header["labels"]) != (tar.name, len(labels), "".join(labels)):
        raise DamagedMemberError("has a first line that does not agree with its name or its other lines")
    return index


@dataclass
class _Sample:
    extensions: set[str] = field(default_factory=set)
    info: Mapping[str, Any] | None = None
    """Content of its json."""

    @property
    def families(self) -> set[str]:
        """Extensions with all numbers alike: clips have different numbers of frames. json is asked for apart."""
        return {re.sub(r"\d+", "#", extension) for extension in self.extensions} - {"json"}


class ShardCheck:
    """The inspection of one tar."""

    def __init__(self, whole: WholeSet, tar: Path) -> None:
        self.whole, self.tar = whole, tar
        place = tar.relative_to(whole.root)
        self.name = place.as_posix()
        parts = (whole.root.name, *place.parent.parts)
        self.split = next((part for part in reversed(parts) if part in SPLITS), "")
        self.samples: dict[str, _Sample] = {}
        self.index: _Index | None = None
        self._last = ""
        self._named: set[str] = set()
        """Keys of which one fault says it all."""
        self._differs = False
        """Whether a fault found so far explains that the tar is not the one that was written."""
        self._moved = ""
        """First member that does not lie where the index says."""

    def run(self, progress: Progress) -> None:
        """Read the tar once; all faults go into the report."""
        self.index = self._load_index()
        members = 0
        try:
            with self.tar.open("rb") as handle:
                reader = TarReader(handle, self.whole.limits.array_bytes, progress.advance)
                for member in reader:
                    members += 1
                    self._take(member)
        except OSError as error:
            self._fault("", f"cannot be read ({error.strerror})")
            return
        self._check_end(reader)
        if self.index is None:
            self._compare_samples()
        labels = "".join(self._check_info(key, sample) for key, sample in self.samples.items())
        self.whole.report.shards.append(ShardSummary(self.name, self.split, labels, members, reader.bytes))

    def _fault(self, member: str, reason: str) -> None:
        self.whole.report.faults.append(Fault(self.name, member, reason))

    def _fault_of_tar(self, member: str, reason: str) -> None:
        self._differs = True
        self._fault(member, reason)

    def _fault_of_key(self, key: str, reason: str) -> None:
        if key not in self._named:
            self._named.add(key)
            self._fault_of_tar(key, reason)

    def _load_index(self) -> _Index | None:
        path = index_path(self.tar)
        if path.exists():
            try:
                return _read_index(self.tar, self.whole.limits)
            except DamagedMemberError as error:
                self.whole.report.faults.append(Fault(path.relative_to(self.whole.root).as_posix(), "", str(error)))
        elif self.whole.has_indexes:
            self._fault("", f"has no index ({path.name}) beside it")
        return None

    def _take(self, member: Member) -> None:
        if reason := bad_name(member.name):
            self._fault_of_tar(member.name, reason)
            return
        key, extension = split_name(member.name)
        self._check_order(key, extension)
        usable = self._check_against_index(member, key)
        if member.kind:
            self._fault_of_tar(member.name, f"is {member.kind}: shards hold plain files alone")
        elif member.size > self.whole.limits.array_bytes:
            self._fault(member.name, f"holds {member.size} bytes, more than {self.whole.limits.array_bytes}")
        elif usable:
            try:
                value = decode(extension, member.content, self.whole.limits)
                if extension == "json":
                    if not isinstance(value, dict):
                        raise DamagedMemberError("is no JSON object")
                    self.samples[key].info = value
            except DamagedMemberError as error:
                self._fault(member.name, str(error))

    def _check_order(self, key: str, extension: str) -> None:
        sample = self.samples.get(key)
        if sample is None:
            sample = self.samples[key] = _Sample()
            other = self.whole.key_shards.setdefault(key, self.name)
            if other != self.name:
                self._fault(key, f"stands in {other} too")
        elif extension in sample.extensions:
            self._fault_of_key(key, "stands twice in this shard")
        elif key != self._last:
            self._fault_of_key(key, "has members that do not stand together")
        self._last = key
        sample.extensions.add(extension)

    def _check_against_index(self, member: Member, key: str) -> bool:
        """Whether the member is the one that the index names, or there is no index to ask."""
        if self.index is None:
            return True
        places = self.index.places.get(member.name)
        if not places:
            if key in self.index.infos and key not in self._named:
                self._fault_of_tar(member.name, "is not in the index")
            else:
                self._fault_of_key(key, "is not in the index")
            return False
        place = places.pop(0)
        if member.kind or member.size > self.whole.limits.array_bytes:
            return False  # which is said elsewhere
        if member.size != place.size:
            self._fault_of_tar(member.name, f"holds {member.size} bytes, and the index says {place.size}")
            return False
        if zlib.crc32(member.content) != place.crc32:
            self._fault_of_tar(member.name, "is not what was written (its CRC-32 differs from the index)")
            return False
        if member.offset != place.offset:
            self._moved = self._moved or member.name
        return True

    def _check_end(self, reader: TarReader) -> None:
        """The tar as a whole. A fault of its members explains that size and digest differ."""
        lost = [name for name, places in self.index.places.items() if places] if self.index else []
        if reader.broken:
            self._named.add(self._last)
            self._fault_of_tar("", reader.broken + (f"; {len(lost)} members of its index are lost" if lost else ""))
        else:
            for name in lost:
                key, _ = split_name(name)
                report = self._fault_of_tar if key in self.samples else self._fault_of_key
                report(name if key in self.samples else key, "is missing: the index names it")
        if reader.trailing:
            self._fault_of_tar("", "holds data after its end mark")
        if self.index is None or self._differs:
            return
        if reader.bytes != self.index.bytes:
            self._fault("", f"holds {reader.bytes} bytes, and the index says {self.index.bytes}")
        elif reader.sha256 != self.index.sha256:
            self._fault("", "is not what was written (its SHA-256 differs from the index)")
        elif self._moved:
            self._fault(self._moved, "does not lie where the index says")

    def _compare_samples(self) -> None:
        """Without an index, what most samples have tells what each should have."""
        counts = Counter(family for sample in self.samples.values() for family in sample.families)
        usual = {family for family, count in counts.items() if 2 * count > len(self.samples)}
        for key, sample in self.samples.items():
            if key in self._named:
                continue
            for family in sorted(usual - sample.families):
                self._fault(key, f"lacks {family}, which most samples of the shard have")
            numbers = sorted(int(found[1]) for name in sample.extensions if (found := NUMBERED.match(name)))
            promised = (sample.info or {}).get("frames", len(numbers))
            gap = next((i for i, number in enumerate(numbers) if i != number), None)
            if gap is not None:
                self._fault(key, f"lacks frame {gap}")
            elif numbers and promised != len(numbers):
                self._fault(key, f"holds {len(numbers)} frames, and its json says {promised!r:.20}")

    def _check_info(self, key: str, sample: _Sample) -> str:
        """Label and identity, as its json and the index say; the label as a digit, or ``NO_LABEL``."""
        indexed = self.index.infos.get(key) if self.index else None
        told = [info for info in (sample.info, indexed) if info is not None]
        if not told:
            # A json that is there and damaged has been named.
            if "json" not in sample.extensions and key not in self._named:
                self._fault(key, "has no json, which would give its label")
            return NO_LABEL
        self._check_identity(key, told[0].get("identity"))
        label, other = told[0].get("label"), told[-1].get("label")
        if label is None:
            self._fault(key, "has no label")
        elif type(label) is not int or not 0 <= label < len(EMOTIONS):
            self._fault(key, f"has the label {label!r:.20}: labels are 0 to {len(EMOTIONS) - 1}")
        else:
            if label != other:
                self._fault(key, f"has the label {label} in its json and {other!r:.20} in the index")
            return str(label)
        return NO_LABEL

    def _check_identity(self, key: str, identity: Any) -> None:
        if not self.split or not isinstance(identity, str):
            return
        splits = self.whole.identity_splits[identity]
        if splits and self.split not in splits:
            self._fault(key, f"shows the identity {identity!r:.60}, who stands in {', '.join(sorted(splits))} too")
        splits.add(self.split)


def bad_name(name: str) -> str:
    """Why a member may not be called that; empty where it may."""
    if len(name) > LONGEST_NAME:
        return f"has a name of {len(name)} characters"
    if not name.isprintable():
        return "has a name that is no plain text"
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        return "has an absolute name"
    if ".." in re.split(r"[/\\]", name):
        return "has a name that leads out of the shard's folder"
    key, extension = split_name(name)
    if not extension or not key or key.endswith("/"):
        return "has a name without key or extension"
    return ""
