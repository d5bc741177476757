"""python -m affect_hpc.launch: collect the points of a sweep, plan the graph, print it, submit what is missing."""

import sys

from affect_hpc.config.compose import collect
from affect_hpc.core.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Launch; returns the exit code: 0 all is done or submitted, 1 jobs failed, 2 wrong input."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        configs = collect(arguments)
        if not configs:  # --help and its kin have been answered
            return 0
        # After the answer to --help, which needs none of it.
        from affect_hpc.hpc.session import Session  # noqa: PLC0415

        return Session(configs, arguments).launch()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; finished work is kept, the same command goes on from it.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
