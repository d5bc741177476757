"""What a development cluster is made of: its folder, its ports and its configuration files."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

CLUSTER_NAME = "dev"
MARK = "affect-devcluster"
OWN_FOLDERS = ("etc", "run", "state", "spool", "dev", "db", "log")
# slurmstepd makes UNIX sockets under DIR/spool/<node>/, and the kernel allows 107 characters for a path.
MAX_FOLDER_CHARS = 55


class UserError(Exception):
    """The request cannot be met; the message says why in one sentence."""


@dataclass(frozen=True)
class Place:
    """The folder of one cluster; everything the cluster owns can be found again from it alone."""

    folder: Path

    @classmethod
    def at(cls, text: str | None) -> Place:
        """The place for `--dir`, or the default one."""
        default = os.environ.get("AFFECT_DEVCLUSTER_DIR") or f"/tmp/affect-devcluster-{os.getuid()}"
        folder = Path(text or default).expanduser().resolve()
        if not re.fullmatch(r"[A-Za-z0-9_./+-]+", str(folder)):
            raise UserError(f"{folder} has characters that slurm.conf cannot hold; choose another --dir")
        if len(str(folder)) > MAX_FOLDER_CHARS:
            raise UserError(f"{folder} is too long for UNIX sockets (at most {MAX_FOLDER_CHARS} characters)")
        return cls(folder)

    @property
    def tag(self) -> str:
        """Six characters that tell the clusters of one machine apart."""
        return hashlib.sha256(str(self.folder).encode()).hexdigest()[:6]

    @property
    def conf(self) -> Path:
        return self.folder / "etc" / "slurm.conf"

    @property
    def record(self) -> Path:
        return self.folder / "cluster.json"

    @property
    def munge_socket(self) -> Path:
        return self.folder / "run" / "munge.socket"

    @property
    def mysql_socket(self) -> Path:
        return self.folder / "run" / "mysql.sock"

    @property
    def data(self) -> Path:
        """MariaDB's files: shared memory where there is some, since each commit would wait for a disk."""
        shm = Path("/dev/shm")
        return shm / f"{MARK}-{self.tag}" if os.access(shm, os.W_OK) else self.folder / "db"

    @property
    def hosts_tag(self) -> str:
        return f"# {MARK} {self.folder}"

    def log(self, name: str) -> Path:
        return self.folder / "log" / name

    def claim(self) -> None:
        """Make the folder ours; refuse one that holds somebody's files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.folder.stat().st_uid != os.geteuid():  # /tmp is everybody's, and its names can be guessed.
            raise UserError(f"{self.folder} belongs to another user; choose another --dir")
        if not (self.folder / f".{MARK}").exists() and any(self.folder.iterdir()):
            raise UserError(f"{self.folder} holds files that are not a devcluster's; choose an empty --dir")
        (self.folder / f".{MARK}").touch()

    def forget(self) -> None:
        """Remove all but the logs, which say what happened."""
        if not (self.folder / f".{MARK}").exists():
            return
        for name in OWN_FOLDERS:
            if name != "log":
                shutil.rmtree(self.folder / name, ignore_errors=True)
        shutil.rmtree(self.data, ignore_errors=True)
        self.record.unlink(missing_ok=True)


@dataclass(frozen=True)
class Cluster:
    """The settings of one cluster, as recorded in cluster.json."""

    folder: str
    slurm_conf: str
    nodes: list[str]
    gpus_per_node: int
    cpus_per_node: int
    memory_mb: int
    ports: dict[str, int]
    first_job_id: int

    @property
    def place(self) -> Place:
        return Place(Path(self.folder))

    @classmethod
    def plan(cls, place: Place, nodes: int, gpus: int, cpus: int) -> Cluster:
        """Settings for a new cluster; call with the machine's lock held, or two may get the same ports."""
        names = [f"dc{place.tag}-n{i}" for i in range(1, nodes + 1)]
        ports = _free_ports(nodes + 3)
        return cls(
            folder=str(place.folder),
            slurm_conf=str(place.conf),
            nodes=names,
            gpus_per_node=gpus,
            cpus_per_node=cpus,
            memory_mb=_machine_memory_mb() // nodes,
            ports=dict(zip(["mariadbd", "slurmdbd", "slurmctld", *names], ports, strict=True)),
            # A fresh cluster that counted from 1 again would hand out ids that old job folders know.
            first_job_id=random.randrange(100_000, 60_000_000),
        )

    @classmethod
    def load(cls, place: Place) -> Cluster | None:
        """The recorded cluster of this folder, if there is one."""
        try:
            return cls(**json.loads(place.record.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self) -> None:
        """Write the folders, the configuration files and the fake devices."""
        place = self.place
        for name in OWN_FOLDERS:
            (place.folder / name).mkdir(exist_ok=True)
        place.conf.write_text(self._slurm_conf())
        place.conf.with_name("gres.conf").write_text(self._gres_conf())
        self._private("slurmdbd.conf", self._slurmdbd_conf().encode())
        self._private("munge.key", os.urandom(128))
        for k in range(self.gpus_per_node):
            # SLURM wants one distinct device file a GPU; 195 is NVIDIA's major number, so that no
            # other device is taken from the jobs, and nothing ever opens these.
            device = place.folder / "dev" / f"nvidia{k}"
            if not device.exists():
                os.mknod(device, 0o666 | 0o020000, os.makedev(195, k))

    def save(self) -> None:
        """Record the cluster, once all of it is up: what has no record is unfinished and is made anew."""
        self.place.record.write_text(json.dumps(asdict(self), indent=2) + "\n")

    def _private(self, name: str, content: bytes) -> None:
        path = self.place.conf.with_name(name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)

    def _slurm_conf(self) -> str:
        folder, place = self.folder, self.place
        gres = f" Gres=gpu:a100:{self.gpus_per_node}" if self.gpus_per_node else ""
        node_lines = "\n".join(
            f"NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={self.ports[name]} "
            f"CPUs={self.cpus_per_node} RealMemory={self.memory_mb}{gres}"
            for name in self.nodes
        )
        return f"""\
ClusterName={CLUSTER_NAME}
SlurmctldHost={socket.gethostname().split(".")[0]}(127.0.0.1)
SlurmctldPort={self.ports["slurmctld"]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# cred_expire: with the default of 120 s a requeued job waits two minutes before it runs again.
AuthInfo=socket={place.munge_socket},cred_expire=5
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=128
GresTypes=gpu
# The nodes are larger than the machine on paper.
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
# React at once: the defaults suit thousands of nodes and cost seconds a job here.
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=10
TCPTimeout=2
BatchStartTimeout=10
KillWait=5
FirstJobId={self.first_job_id}
MaxArraySize=1001
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/log/jobcomp.txt
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={self.ports["slurmdbd"]}
AccountingStoragePass=socket={place.munge_socket}
AccountingStorageTRES=gres/gpu
{node_lines}
PartitionName=main Nodes=ALL Default=YES State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=low Nodes=ALL State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=lowgrace Nodes=ALL State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
"""

    def _gres_conf(self) -> str:
        lines = ["AutoDetect=off"]
        if self.gpus_per_node:
            files = f"{self.folder}/dev/nvidia[0-{self.gpus_per_node - 1}]"
            lines += [f"NodeName={name} Name=gpu Type=a100 File={files}" for name in self.nodes]
        return "\n".join(lines) + "\n"

    def _slurmdbd_conf(self) -> str:
        return f"""\
AuthType=auth/munge
AuthInfo=socket={self.place.munge_socket}
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={self.ports["slurmdbd"]}
SlurmUser=root
PidFile={self.folder}/run/slurmdbd.pid
LogFile={self.folder}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={self.ports["mariadbd"]}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct
"""


def _machine_memory_mb() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below the range from which outgoing connections take theirs."""
    found: list[int] = []
    for port in random.sample(range(16_000, 30_000), 4_000):
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise UserError(f"fewer than {count} TCP ports are free between 16000 and 30000")
