"""python -m affect_hpc.cancel SWEEP_OR_RUN: end its pending and running jobs. Finished work stays."""

import argparse
import contextlib
import os
import signal
import sys
from pathlib import Path

from affect_hpc.core.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Cancel the live jobs of a sweep or run."""
    parser = argparse.ArgumentParser(prog="python -m affect_hpc.cancel", description=__doc__)
    parser.add_argument("target", help="name of a sweep (views/<sweep>), or path of a run folder")
    parser.add_argument("--store", type=Path, default=Path(), help="folder that holds runs/ and views/ (default: here)")
    arguments = parser.parse_args(argv)
    from affect_hpc.core.rundir import this_host  # noqa: PLC0415  (after the answer to --help)
    from affect_hpc.hpc import scheduler  # noqa: PLC0415
    from affect_hpc.hpc.overview import Overview  # noqa: PLC0415
    from affect_hpc.hpc.submit import job_of  # noqa: PLC0415

    try:
        overview = Overview(arguments.target, arguments.store.absolute())
        live = [row for row in overview.rows() if row.is_live and row.job is not None]
        ids, pids = [], set()
        for row in live:
            assert row.job is not None
            if row.job["executor"] == "slurm":
                ids.append(job_of(row.job, overview.store)["id"])
            elif row.job["host"] == this_host():
                pids.add(row.job["pid"])  # several elements may share a process
            else:
                print(f"{row.name} runs on {row.job['host']}: cancel it there.", file=sys.stderr)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(pid, signal.SIGTERM)
        scheduler.cancel(ids, overview.cluster.env)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"cancelled={len(live)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
