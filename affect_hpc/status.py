"""python -m affect_hpc.status SWEEP_OR_RUN: state, node, age, attempts and last log line of each job."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from affect_hpc.core.errors import UserError
from affect_hpc.core.progress import duration


def main(argv: list[str] | None = None) -> int:
    """Show the jobs of a sweep; exit code 0 when all are done, 1 when some failed, 3 when some still are to run."""
    parser = argparse.ArgumentParser(prog="python -m affect_hpc.status", description=__doc__)
    parser.add_argument("target", help="name of a sweep (views/<sweep>), or path of a run folder")
    parser.add_argument("--store", type=Path, default=Path(), help="folder that holds runs/ and views/ (default: here)")
    parser.add_argument("--tail", type=int, metavar="N", help="also print the last N log lines of each unfinished job")
    parser.add_argument("--follow", action="store_true", help="look again every few seconds until all jobs have ended")
    arguments = parser.parse_args(argv)
    try:
        return _show(arguments)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _show(arguments: argparse.Namespace) -> int:
    from rich.console import Console  # noqa: PLC0415  (after the answer to --help)

    from affect_hpc.hpc.overview import Overview  # noqa: PLC0415

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    overview = Overview(arguments.target, arguments.store.absolute())
    while True:
        rows = overview.rows()
        console.print(overview.table(rows))
        if arguments.tail:
            for row in rows:
                if row.state != "DONE" and row.log:
                    console.print(f"\n{row.name}", style="bold", markup=False)
                    console.print("\n".join(row.log[-arguments.tail :]), markup=False)
        if not arguments.follow or not any(row.is_live for row in rows):
            break
        console.print(f"[dim]{time.strftime('%H:%M:%S')}  looking again in {duration(overview.EVERY_S)}[/]")
        time.sleep(overview.EVERY_S)
    return exit_code(rows)


def exit_code(rows: list[Any]) -> int:
    """0 all done, 3 some still to run or running, 1 some failed."""
    if all(row.state == "DONE" for row in rows):
        return 0
    return 3 if any(row.is_live for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
