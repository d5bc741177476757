"""python -m affect_hpc.rerun SWEEP_OR_RUN: forget failures and damaged outputs, and submit what is missing again."""

import argparse
import os
import sys
from pathlib import Path

from affect_hpc.core.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Repeat the last launch of a sweep after forgetting what failed; returns the exit code of that launch."""
    parser = argparse.ArgumentParser(prog="python -m affect_hpc.rerun", description=__doc__)
    parser.add_argument("target", help="name of a sweep (views/<sweep>), or path of a run folder")
    parser.add_argument("--store", type=Path, default=Path(), help="folder that holds runs/ and views/ (default: here)")
    parser.add_argument("overrides", nargs="*", help="overrides for this launch, such as cluster=local or watch=true")
    arguments = parser.parse_intermixed_args(argv)
    from affect_hpc.config.compose import collect  # noqa: PLC0415  (after the answer to --help)
    from affect_hpc.hpc.session import Session  # noqa: PLC0415
    from affect_hpc.hpc.views import find_launch  # noqa: PLC0415

    try:
        store, path = arguments.store.absolute(), Path(arguments.target).absolute()
        launch = find_launch(arguments.target, store)
        # Relative paths of the first command line were meant from where it was given.
        os.chdir(launch["cwd"])
        overrides = [f"store={store}", *arguments.overrides]
        replaced = {word.partition("=")[0] for word in overrides}
        words = [word for word in launch["argv"] if word.partition("=")[0] not in replaced] + overrides
        session = Session(collect(words), words)
        only = None
        if arguments.target != launch["sweep"]:
            only = {
                node.name for node in session.graph.nodes if node.run_dir(session.store).path in (path, *path.parents)
            }
        for name in session.forget(only):
            print(f"again: {name}")
        return session.launch()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; finished work is kept, the same command goes on from it.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
