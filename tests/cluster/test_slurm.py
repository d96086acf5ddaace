"""The batch scripts of slurm/ on a real Slurm, with small settings: trainings and sweeps."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import sys

import pytest
import sinter
from slurm_cluster import DAEMONS, Cluster, find_daemons, wait_until
from training_files import TINY, assert_same_training, saved_step

from qec.predecoder.checkpoint import load_predecoder

ROOT = pathlib.Path(__file__).parents[2]
MISSING = [name for name in DAEMONS if name not in find_daemons()]

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING),
        reason=f"{', '.join(MISSING)} not installed: apt-get install slurm-wlm munge",
    ),
]

TRAIN = [*TINY, "distances=[3]", "shots=30720", "log_every=7"]  # 240 steps
SHOTS = 400_000
SWEEP = ["distance=3,5", "p=0.01", "basis=X,Z", "decoders=[pymatching]", f"max_shots={SHOTS}"]


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as started:
        # The qec of these tests, in a shell where nothing else is known.
        path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
        started.environment |= {"PATH": path, "OMP_NUM_THREADS": "1"}
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the scripts expect at the top of the repository, where jobs are submitted."""
    top = tmp_path_factory.mktemp("slurm")
    shutil.copytree(ROOT / "slurm", top / "slurm", ignore=shutil.ignore_patterns("*.out", "*.log"))
    return top


def submit_training(cluster, folder, name: str) -> str:
    options = [f"--job-name={name}", "--ntasks-per-node=2", "slurm/train.sbatch"]
    return cluster.submit(folder, *options, *TRAIN, f"out=out/{name}")


@pytest.fixture(scope="module")
def whole(cluster, folder):
    """A training that nothing disturbs; the number of its job."""
    return submit_training(cluster, folder, "whole")


def wait_for_step(folder, name: str, step: int) -> None:
    state = folder / "out" / name / "state.safetensors"
    wait_until(lambda: saved_step(state) >= step, f"step {step} of {name}", 240)


def test_a_preempted_training_is_requeued_and_ends_like_one_that_is_not(cluster, folder, whole):
    job = submit_training(cluster, folder, "preempted")
    wait_for_step(folder, "preempted", 5)
    # What Slurm itself does before the time limit, for --signal=B:USR1@300.
    cluster.run("scancel", "--batch", "--signal=USR1", job)
    wait_until(lambda: cluster.show(job)["Restarts"] == "1", "a requeued job")
    cluster.wait_for(job, ["COMPLETED"])
    cluster.wait_for(whole, ["COMPLETED"])

    log = (folder / f"slurm/logs/preempted-{job}.out").read_text()
    # 75, or 143 for a process that srun ended since the other was gone already.
    assert re.search(r"stopped before the time limit \(status (75|143)\), requeued", log)
    assert "ended with status 0" in log
    shown = "".join(path.read_text() for path in folder.glob(f"slurm/logs/preempted-{job}/?.log"))
    stopped, resumed = (
        re.search(pattern, shown)
        for pattern in (
            "stopped by SIGUSR1 at step (\\d+) of 240",
            "resumed from .* at step (\\d+)",
        )
    )
    assert int(stopped[1]) == int(resumed[1])
    assert_same_training(folder / "out/whole", folder / "out/preempted")


def test_a_training_in_two_tasks(cluster, folder, whole):
    done = cluster.wait_for(whole, ["COMPLETED"])
    assert done["NumTasks"] == "2"
    assert done["Restarts"] == "0"
    trained = load_predecoder(folder / "out/whole/whole.safetensors")
    assert trained.metadata["shots"] == 30720
    (session,) = trained.metadata["sessions"]
    assert session["hardware"].startswith("2 processes: cpu")
    assert "shards=2" in session["command"]
    shown = (folder / f"slurm/logs/whole-{whole}/0.log").read_text()
    assert "step 240 of 240" in shown
    assert (folder / f"slurm/logs/whole-{whole}/1.log").read_text() == ""


def test_a_cancelled_training_saves_and_stays_cancelled(cluster, folder):
    job = submit_training(cluster, folder, "cancelled")
    wait_for_step(folder, "cancelled", 5)
    cluster.run("scancel", job)
    ended = cluster.wait_for(job, ["CANCELLED"])
    wait_until(lambda: cluster.run("squeue", "-h", "-j", job) == "", "an empty queue")
    assert ended["Restarts"] == "0"
    assert "requeued" not in (folder / f"slurm/logs/cancelled-{job}.out").read_text()
    assert 5 <= saved_step(folder / "out/cancelled/state.safetensors") < 240


def submit_sweep(cluster, folder) -> str:
    options = ["--array=0-1", "--cpus-per-task=1", "slurm/sweep.sbatch"]
    return cluster.submit(folder, *options, *SWEEP, "out=out/sweep")


def rows_of_task(out, task: str) -> int:
    """How many there are; the header and an unfinished line do not count."""
    return sum(f.read_text().count("\n") - 1 for f in out.glob(f"array/{task}-*.csv"))


def shots_by_point(*files) -> dict[str, int]:
    return {stat.strong_id: stat.shots for stat in sinter.read_stats_from_csv_files(*files)}


def test_a_sweep_goes_on_after_its_tasks_were_preempted_and_killed(cluster, folder):
    out = folder / "out/sweep"
    job = submit_sweep(cluster, folder)
    for task, signal_it in (("0", ["--batch", "--signal=USR1"]), ("1", ["--signal=KILL"])):
        wait_until(lambda t=task: rows_of_task(out, t) > 0, "rows")
        cluster.run("scancel", *signal_it, f"{job}_{task}")
    ended = cluster.wait_for(f"{job}_1", ["FAILED", "CANCELLED"])
    assert ended["Restarts"] == "0"
    wait_until(lambda: cluster.show(f"{job}_0")["Restarts"] == "1", "a requeued task")
    cluster.wait_for(f"{job}_0", ["COMPLETED"])
    before = {path: path.read_text() for path in out.glob("array/*.csv")}
    assert sorted(path.name[:2] for path in before) == ["0-", "0-", "1-"]

    again = submit_sweep(cluster, folder)
    options = [f"--dependency=afterany:{again}", "--kill-on-invalid-dep=yes", "slurm/merge.sbatch"]
    merge = cluster.submit(folder, *options, *SWEEP, "out=out/sweep")
    cluster.wait_for(merge, ["COMPLETED"])
    for path, text in before.items():
        assert path.read_text() == text
    new = {path.name[:2]: path for path in out.glob("array/*.csv") if path not in before}
    assert shots_by_point(new["0-"]) == {}  # it had done its share
    assert sum(shots_by_point(new["1-"]).values()) > 0
    shots = shots_by_point(*out.glob("array/*.csv"))
    assert sorted(shots.values()) == [SHOTS] * 4

    table = (folder / f"slurm/logs/merge-{merge}/0.log").read_text()
    assert table.count(f": {SHOTS} shots") == 4
    assert "grid points: 4, 0 of them incomplete" in table
    merged = shots_by_point(out / "stats.csv")
    assert merged == {f"{strong_id}:pymatching": n for strong_id, n in shots.items()}
    assert (out / "ler.png").exists()
