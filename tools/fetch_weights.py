"""Show the networks that no package holds: what each is for, where it comes from, its licence, and whether it is here.

With --download those that anybody may fetch are fetched. The SHA-256 of a supplied file is recorded when it is first
seen; the program refuses another content from then on. What packages hold, tools/install_experts.py installs.
"""

import argparse
import http.client
import shutil
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from affect_hpc.config import packaged, supplied
from affect_hpc.config.packaged import WEIGHTS, Origin, expert_folder, hub_folder
from affect_hpc.config.supplied import SUPPLIED
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import sha256_file, writing_file

TORCHVISION = "https://download.pytorch.org/models/"
HUB_URLS: Mapping[str, str] = {
    "weights-inception-2015-12-05-6726825d.pth": (
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
    ),
    "vgg16-397923af.pth": f"{TORCHVISION}vgg16-397923af.pth",
    "alexnet-owt-7be5be79.pth": f"{TORCHVISION}alexnet-owt-7be5be79.pth",
}
"""File in torch hub's cache -> where torch itself would fetch it."""
HUB = tuple(
    name
    for name, weights in WEIGHTS.items()
    if weights.origin is Origin.hub and all(file.name in HUB_URLS for file in weights.files)
)
NAMES = (*SUPPLIED, *HUB)
TIMEOUT_S = 60


def download(url: str, target: Path, sha256: str = "") -> None:
    """Fetch ``url`` to ``target``, whole or not at all.

    Args:
        sha256: first digits of what the content must have; empty where nobody knows it.

    Raises:
        UserError: no network, no such file, cut off, a web page instead of a file, or another content.
    """
    by_hand = f"try again on a machine with a network, or put the file at {target} by hand"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as reply:
            if reply.headers.get_content_type() == "text/html":
                raise UserError(f"{url} gives a web page and no file: {by_hand}.")
            with writing_file(target) as aside:
                with aside.open("wb") as handle:
                    shutil.copyfileobj(reply, handle)
                promised, got = reply.headers.get("Content-Length"), aside.stat().st_size
                if promised is not None and int(promised) != got:
                    raise UserError(f"{url} was cut off after {got} of {promised} bytes: {by_hand}.")
                content = sha256_file(aside)
                if not content.startswith(sha256):
                    raise UserError(f"{url} has SHA-256 {content[:12]}... instead of {sha256}...: {by_hand}.")
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"{url} cannot be fetched ({getattr(error, 'reason', error)}): {by_hand}.") from None


def fetch(name: str, folder: str) -> None:
    """Download what network ``name`` lacks; UserError where that fails or its project hands it out by hand."""
    if name in SUPPLIED:
        weights = SUPPLIED[name]
        home = expert_folder(folder) / name
        for file in weights.files:
            if any((home / known).is_file() for known in file.names):
                continue
            if not file.url:
                raise UserError(
                    f"{file.names[0]} has no address to fetch it from: get it from {weights.project}, and put it in"
                    f" {home}."
                )
            target = home / Path(file.url).name
            download(file.url, target)
    else:
        for pinned in WEIGHTS[name].files:
            target = hub_folder() / pinned.name
            if not target.is_file():
                download(HUB_URLS[pinned.name], target, pinned.sha256)


def show(name: str, folder: str) -> None:
    """Print all about network ``name``, and record its digest where it is here; UserError where it has changed."""
    if name in SUPPLIED:
        own = SUPPLIED[name]
        use, source, licence = own.use, own.project, own.licence
        absent, remedy = supplied.missing(name, folder), supplied.remedy(name)
    else:
        weights = WEIGHTS[name]
        use, source, licence = weights.use, weights.package, weights.licence
        absent, remedy = packaged.missing(name, folder), packaged.remedy(name)
    print(f"{name:10} for {use}\n{'':10} from {source}\n{'':10} licence {licence}")
    if absent:
        print(f"{'':10} absent: {', '.join(absent)}\n{'':10} {remedy}")
        return
    for path in (supplied.verified(name, folder) if name in SUPPLIED else packaged.verified(name, folder)).values():
        print(f"{'':10} here: {path}\n{'':10} SHA-256 {sha256_file(path)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, 1 where a network could not be had or has changed, 2 for a typo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[], help=f"networks: {', '.join(NAMES)} (default: all)")
    parser.add_argument("--folder", default="", help="where supplied weights lie (default: as experts.folder)")
    parser.add_argument("--download", action="store_true", help="fetch what is absent and has a public address")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(NAMES))
    if unknown:
        print(f"unknown network {', '.join(unknown)}: the valid names are {', '.join(NAMES)}.", file=sys.stderr)
        return 2
    failed = False
    for name in options.names or NAMES:
        try:
            if options.download:
                fetch(name, options.folder)
            show(name, options.folder)
        except UserError as error:
            failed = True
            print(f"{name}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
