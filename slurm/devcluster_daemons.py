"""Start, find and end the daemons of a development cluster."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from devcluster_config import CLUSTER_NAME, MARK, Cluster, Place

SERVICES = ("munged", "mariadbd", "slurmdbd", "slurmctld")
UP_STATES = ("idle", "mixed", "allocated", "completing", "reserved")
HOSTS = Path("/etc/hosts")
# One kill of the `unshare` parent removes the whole "machine": its PID namespace goes with it.
# bash is process 1 there: it reaps orphans, and ends (the machine crashes) when its slurmd ends.
NODE_SCRIPT = 'hostname "$1"; slurmd -D -N "$1" & trap "kill %1; wait %1; exit 0" TERM; wait %1'


class DaemonError(Exception):
    """A daemon did not come up; carries what a person needs to see."""

    def __init__(self, name: str, why: str, logs: list[Path]) -> None:
        super().__init__(f"{name} did not start: {why}")
        self.logs = logs


def environment(place: Place) -> dict[str, str]:
    """Our environment without an outer cluster's SLURM variables, pointed at this cluster."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH_", "SALLOC_", "SACCT_"))}
    env["SLURM_CONF"] = str(place.conf)
    env["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    return env


def client(place: Place, *argv: str, limit_s: float = 10) -> subprocess.CompletedProcess[str]:
    """Run a client command; one that hangs counts as failed, since SLURM's retry for a minute."""
    try:
        return subprocess.run(
            argv, env=environment(place), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=limit_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 124, "", f"no answer within {limit_s:g} s")


@contextlib.contextmanager
def machine_lock() -> Iterator[None]:
    """One `up` or `down` at a time on this machine: ports and /etc/hosts are shared by all clusters."""
    with HOSTS.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def set_hosts(place: Place, names: list[str]) -> bool:
    """Make /etc/hosts hold exactly these names for this cluster; True if that changed it."""
    old = HOSTS.read_text()
    lines = [line for line in old.splitlines() if not line.endswith(place.hosts_tag)]
    lines += [f"127.0.0.1 {name} {place.hosts_tag}" for name in names]
    new = "\n".join(lines) + "\n"
    if new == old or lines == old.splitlines():
        return False
    HOSTS.write_text(new)  # In place: containers often mount this file, and a rename would fail.
    return True


def find(place: Place) -> dict[str, list[int]]:
    """Process ids by role (`munged`, ..., `node <name>`, `machine <name>`), judged by command line.

    `node` is a slurmd; `machine` are the parent and process 1 of its namespace.
    """
    found: dict[str, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (role := _role(place, entry)):
            found.setdefault(role, []).append(int(entry.name))
    return found


def _role(place: Place, entry: Path) -> str | None:
    try:
        argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        name = Path(argv[0]).name if argv else ""  # A zombie has no command line.
        if name == "munged":
            return name if f"--socket={place.munge_socket}" in argv else None
        if name == "mariadbd":
            return name if f"--socket={place.mysql_socket}" in argv else None
        if name in ("unshare", "bash"):
            return f"machine {argv[-2]}" if argv[-3:-2] == [MARK] and argv[-1] == str(place.folder) else None
        if name not in ("slurmdbd", "slurmctld", "slurmd"):
            return None
        # These do not name their folder on the command line.
        if f"SLURM_CONF={place.conf}".encode() not in (entry / "environ").read_bytes().split(b"\0"):
            return None
        return f"node {argv[argv.index('-N') + 1]}" if name == "slurmd" and "-N" in argv else name
    except OSError:  # It has ended meanwhile.
        return None


def end(place: Place, roles: list[str] | None = None, limit_s: float = 10) -> list[str]:
    """Kill these roles (all by default) and wait until they are gone; what was found.

    A hard kill is right here: `down` throws the state away, and a polite stop of slurmctld
    without its slurmdbd takes seconds.
    """
    seen: dict[str, None] = {}
    deadline = time.monotonic() + limit_s
    while True:
        now = {role: pids for role, pids in find(place).items() if roles is None or role in roles}
        if not now:
            return list(seen)
        if time.monotonic() > deadline:
            raise DaemonError(", ".join(now), f"nor did it end: processes {now} survive SIGKILL", [])
        for role, pids in now.items():
            seen[role] = None
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


class Starter:
    """Brings up whatever of a cluster is not running, one daemon after the other."""

    def __init__(self, cluster: Cluster, fresh: bool) -> None:
        self.cluster = cluster
        self.place = cluster.place
        self.fresh = fresh
        self.started: list[str] = []

    def run(self) -> None:
        """Start what is missing; DaemonError names the daemon that does not come up."""
        alive = find(self.place)
        starts = (self._munged, self._mariadbd, self._slurmdbd, self._slurmctld)
        for name, start in zip(SERVICES, starts, strict=True):
            if name not in alive:
                self.started.append(name)
                start()
        self._nodes([n for n in self.cluster.nodes if f"node {n}" not in alive])

    def _munged(self) -> None:
        place, etc = self.place, self.place.conf.parent
        place.munge_socket.unlink(missing_ok=True)
        # --force: it may live below a folder that only root can enter, and only root uses it.
        process = self._spawn(
            "munged", "munged", "--foreground", "--force", f"--socket={place.munge_socket}",
            f"--key-file={etc}/munge.key", f"--pid-file={place.folder}/run/munged.pid",
            f"--seed-file={place.folder}/state/munged.seed",
        )  # fmt: skip
        ping = ("munge", "--no-input", f"--socket={place.munge_socket}", "--output=/dev/null")
        self._wait("munged", process, 10, lambda: self._ok(*ping), ["munged.log"])

    def _mariadbd(self) -> None:
        place, port = self.place, self.cluster.ports["mariadbd"]
        if self.fresh:
            made = client(
                place, "mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={place.data}",
                "--skip-test-db", "--auth-root-authentication-method=normal", limit_s=60,
            )  # fmt: skip
            place.log("mariadb-install-db.log").write_text(made.stdout + made.stderr)
            if made.returncode:
                why = f"mariadb-install-db ended with {made.returncode}"
                raise DaemonError("mariadbd", why, [place.log("mariadb-install-db.log")])
        process = self._spawn(
            "mariadbd", "mariadbd", "--no-defaults", "--user=root", f"--datadir={place.data}",
            f"--socket={place.mysql_socket}", f"--pid-file={place.folder}/run/mariadbd.pid",
            "--bind-address=127.0.0.1", f"--port={port}", "--skip-name-resolve",
            "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=64M", "--innodb-lock-wait-timeout=900",
            "--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync", "--performance-schema=OFF",
        )  # fmt: skip
        sql = ("mariadb", "--no-defaults", f"--socket={place.mysql_socket}", "--user=root", "-e")
        self._wait("mariadbd", process, 30, lambda: self._ok(*sql, "select 1"), ["mariadbd.log"])
        if self.fresh:
            grant = (
                "create database slurm_acct; create user slurm@'127.0.0.1' identified by 'slurm'; "
                "grant all on slurm_acct.* to slurm@'127.0.0.1'"
            )
            self._must("mariadbd", *sql, grant)

    def _slurmdbd(self) -> None:
        process = self._spawn("slurmdbd", "slurmdbd", "-D")
        port = self.cluster.ports["slurmdbd"]
        ask = ("sacctmgr", "--noheader", "show", "cluster")
        logs = ["slurmdbd.log", "slurmdbd.out"]
        self._wait("slurmdbd", process, 60, lambda: _listening(port) and self._ok(*ask), logs)
        if self.fresh:
            self._must("slurmdbd", "sacctmgr", "--immediate", "add", "cluster", CLUSTER_NAME)

    def _slurmctld(self) -> None:
        process = self._spawn("slurmctld", "slurmctld", "-D")
        port = self.cluster.ports["slurmctld"]
        logs = ["slurmctld.log", "slurmctld.out"]
        # `scontrol ping` exits 0 in either case; `sinfo` does not.
        self._wait("slurmctld", process, 30, lambda: _listening(port) and self._ok("sinfo"), logs)

    def _nodes(self, names: list[str]) -> None:
        processes = {}
        for name in names:
            role = f"node {name}"
            end(self.place, [f"machine {name}"])  # A namespace that lost its slurmd but is still going away.
            self.started += [role, f"machine {name}"]
            processes[name] = self._spawn(
                f"slurmd.{name}", "unshare", "--uts", "--pid", "--mount-proc", "--fork", "--kill-child=KILL",
                "bash", "-c", NODE_SCRIPT, MARK, name, str(self.place.folder),
            )  # fmt: skip
        for name, process in processes.items():
            logs = [f"slurmd.{name}.log", f"slurmd.{name}.out"]
            self._wait(f"slurmd of {name}", process, 45, partial(self._node_ready, name), logs)

    def _node_ready(self, name: str) -> bool:
        """Both are asked: slurmctld believes in a crashed node for some ten seconds more."""
        return _listening(self.cluster.ports[name]) and node_states(self.place).get(name) in UP_STATES

    def _spawn(self, log: str, *argv: str) -> subprocess.Popen[bytes]:
        suffix = "log" if log in ("munged", "mariadbd") else "out"  # SLURM's write their own .log
        with self.place.log(f"{log}.{suffix}").open("ab") as out:
            return subprocess.Popen(
                argv, env=environment(self.place), cwd=self.place.folder / "log", start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip

    def _ok(self, *argv: str) -> bool:
        return client(self.place, *argv, limit_s=5).returncode == 0

    def _must(self, name: str, *argv: str) -> None:
        done = client(self.place, *argv, limit_s=30)
        if done.returncode:
            raise DaemonError(name, f"`{argv[0]}` failed: {(done.stderr or done.stdout).strip()}", [])

    def _wait(
        self, name: str, process: subprocess.Popen[bytes], limit_s: float, ready: Callable[[], bool],
        logs: list[str],
    ) -> None:  # fmt: skip
        """Poll until the daemon answers; one that ends or takes too long is an error."""
        deadline = time.monotonic() + limit_s
        paths = [self.place.log(log) for log in logs]
        while not ready():
            if process.poll() is not None:
                raise DaemonError(name, f"it ended with status {process.returncode}", paths)
            if time.monotonic() > deadline:
                raise DaemonError(name, f"not ready within {limit_s:g} s", paths)
            time.sleep(0.05)


def node_states(place: Place) -> dict[str, str]:
    """What slurmctld says of each node; empty when it does not answer. A `*` means unreachable."""
    done = client(place, "sinfo", "--noheader", "--Node", "--format=%N %T")
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if done.returncode == 0)


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
