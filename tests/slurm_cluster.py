"""A real Slurm of one node: munged, slurmctld and slurmd as child processes, in a temporary folder.

Works as root and as an ordinary user, beside another Slurm of the machine, and leaves nothing.
"""

from __future__ import annotations

import getpass
import os
import pathlib
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence

DAEMONS = ("munged", "slurmctld", "slurmd")
_CPUS = 4  # more than there may be: Slurm only counts

_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
FirstJobId={first_job}
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
KillWait=10
MinJobAge=3600
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
# cred_expire: a requeued job starts again no sooner than the credential of its first run expires,
# 121 s by default.


def find_daemons() -> dict[str, str]:
    """Paths of the daemons that are installed, by name."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    found = {name: shutil.which(name, path=places) for name in DAEMONS}
    return {name: path for name, path in found.items() if path is not None}


def wait_until(condition: Callable[[], object], what: str, seconds: float = 120) -> None:
    """Polls; AssertionError after a generous time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)


class Cluster:
    """A context that is a running Slurm."""

    def __init__(self) -> None:
        self._daemons: list[subprocess.Popen] = []

    def __enter__(self) -> Cluster:
        # pytest's own folders have paths that may be too long for a Unix socket.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="slurm-"))
        try:
            self._start()
        except BaseException:
            for log in sorted(self.folder.glob("*.log")):
                print(f"{log.name}:", *log.read_text().splitlines()[-20:], sep="\n")
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.run("scancel", "--user", getpass.getuser())
            wait_until(lambda: self.run("squeue", "-h") == "", "cancelled jobs", 60)
        finally:
            self._stop()

    def _stop(self) -> None:
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in reversed(self._daemons):
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> None:
        paths = find_daemons()
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        conf = self.folder / "slurm.conf"
        conf.write_text(
            _CONF.format(
                host=socket.gethostname().split(".")[0],
                user=getpass.getuser(),
                folder=self.folder,
                cpus=_CPUS,
                # Jobs of another such Slurm on this machine choose other ports by it.
                first_job=1 + secrets.randbelow(10_000),
                ctld_port=_free_port(),
                slurmd_port=_free_port(),
            )
        )
        # Nothing of a job or launcher that the tests themselves may run in.
        launcher = re.compile("SLURM|SBATCH|SRUN|MASTER_|(LOCAL_)?RANK$|WORLD_SIZE$")
        kept = {key: value for key, value in os.environ.items() if not launcher.match(key)}
        self.environment = kept | {"SLURM_CONF": str(conf)}
        files = {
            option: f"{self.folder}/munge.{ending}"
            for option, ending in (
                *(("socket", "sock"), ("key-file", "key"), ("pid-file", "pid")),
                *(("seed-file", "seed"), ("log-file", "log")),
            )
        }
        options = [f"--{option}={path}" for option, path in files.items()]
        self._daemon(paths["munged"], "--foreground", "--force", *options)
        wait_until(pathlib.Path(files["socket"]).exists, "munged")
        self._daemon(paths["slurmctld"], "-D", "-c", "-f", str(conf))
        self._daemon(paths["slurmd"], "-D", "-c", "-f", str(conf))
        wait_until(lambda: self._sinfo() == "idle", "an idle node")

    def _daemon(self, *command: str) -> None:
        # A session of its own: Ctrl-C is for pytest, which then stops the daemons in order.
        self._daemons.append(
            subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    def _sinfo(self) -> str:
        command = ["sinfo", "-h", "-o", "%t"]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        return done.stdout.strip()

    def run(self, *command: str, cwd: pathlib.Path | None = None) -> str:
        """What a command of Slurm prints; AssertionError with its error where it fails."""
        done = subprocess.run(
            command, cwd=cwd, env=self.environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def submit(self, cwd: pathlib.Path, *arguments: str) -> str:
        """sbatch; returns the number of the job."""
        return self.run("sbatch", "--parsable", *arguments, cwd=cwd)

    def show(self, job: str) -> dict[str, str]:
        """JobState, Restarts, ExitCode and so on of a job or of a task, "12_3", of an array."""
        text = self.run("scontrol", "show", "job", "--oneliner", job)
        return dict(re.findall(r"(\S+?)=(\S*)", text))

    def wait_for(self, job: str, states: Sequence[str], seconds: float = 400) -> dict[str, str]:
        """Until a job is in one of the states; returns ``show``."""
        running = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED", *states)

        def reached() -> bool:
            state = self.show(job)["JobState"]
            assert state in running, f"job {job} is {state}, not {states}"
            return state in states

        wait_until(reached, f"job {job} to be {states}", seconds)
        return self.show(job)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
