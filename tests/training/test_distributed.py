"""Training in several processes, and training that is killed: the same weights as ever."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from training_files import TINY, assert_same_training, loss_curve, saved_step

from qec.cli.config import load_config
from qec.predecoder.checkpoint import load_predecoder
from qec.support.errors import PREEMPTED_STATUS, QecError
from qec.support.stop_signals import stop_requests
from qec.training.data import BatchStream
from qec.training.distributed import SINGLE_PROCESS, ProcessGroup
from qec.training.loop import train
from qec.training.settings import TrainSettings
from qec.training.training_state import TrainingState

SMALL = [*TINY, "distances=[3,5]", "shots=2560", "shards=2", "log_every=3", "workers=0"]


def settings(out, *more: str) -> TrainSettings:
    return TrainSettings.from_config(load_config("train", [*SMALL, f"out={out}", *more]))


class Launch:
    """``program`` (arguments of python) in processes that torchrun's variables join.

    A context, at whose end none of them lives.
    """

    def __init__(self, size: int, *program: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        common |= {"WORLD_SIZE": str(size)}
        self.processes = [
            subprocess.Popen(
                [sys.executable, *program],
                env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )
            for rank in range(size)
        ]

    def __enter__(self) -> Launch:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.communicate()

    def wait(self) -> dict[int, str]:
        """Standard error by exit status, when all have ended."""
        errors = [process.communicate(timeout=600)[1] for process in self.processes]
        return {p.returncode: error for p, error in zip(self.processes, errors, strict=True)}

    def kill(self, number: int, *, ranks: slice = slice(None)) -> None:
        for process in self.processes[ranks]:
            process.send_signal(number)


def training(size: int, out, *more: str) -> Launch:
    return Launch(size, "-m", "qec.cli", "train", *SMALL, f"out={out}", *more)


_GRADIENTS = """
import sys
import torch
from safetensors.torch import save_file
from qec.training.data import BatchStream
from qec.training.distributed import ProcessGroup
from qec.training.training_state import TrainingState
from qec.cli.config import load_config
from qec.training.settings import TrainSettings

processes = ProcessGroup.discover()
cfg = TrainSettings.from_config(load_config("train", sys.argv[1:]))
torch.manual_seed(cfg.seed)
with processes.joined(torch.device("cpu")):
    run = TrainingState(cfg, cfg.out / "state.safetensors", processes)
    stream = BatchStream(cfg, 0, 4, processes)
    loss = run.backward(stream.batch(0))
    found = {name: p.grad.clone() for name, p in run.network.named_parameters()} | {"loss": loss}
    run.network.zero_grad()
    for step in range(1, 4):
        run.train_step(stream.batch(step))
    found |= {f"weights.{name}": value for name, value in run.network.state_dict().items()}
    found |= {f"ema.{name}": value.clone() for name, value in run.ema.state_dict().items()}
    found = {name: value.clone().contiguous() for name, value in found.items()}
    save_file(found, cfg.out / f"rank{processes.rank}.safetensors")
"""


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_the_joint_batch(tmp_path) -> None:
    """And then, step by step, the same weights and weight average as each other, to the bit."""
    overrides = [*SMALL, f"out={tmp_path}", "batch=256", "shards=4"]
    with Launch(2, "-c", _GRADIENTS, *overrides) as launched:
        assert launched.wait().keys() == {0}
    first, second = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in (0, 1))
    for key, tensor in first.items():
        assert torch.equal(tensor, second[key]), key

    cfg = TrainSettings.from_config(load_config("train", overrides))
    torch.manual_seed(cfg.seed)
    run = TrainingState(cfg, tmp_path / "none.safetensors")
    loss = run.backward(BatchStream(cfg, 0, 1).batch(0))
    torch.testing.assert_close(first["loss"], loss, rtol=1e-5, atol=0)
    for name, parameter in run.network.named_parameters():
        error = (first[name] - parameter.grad).norm() / parameter.grad.norm()
        assert error < 1e-5, name


def test_shares_are_the_batch(tmp_path) -> None:
    """Whatever the number of processes, nothing is drawn twice and nothing left out."""
    cfg = settings(tmp_path, "batch=256", "shards=4")
    whole = BatchStream(cfg, 0, 1).batch(3)
    blocks = {events.numpy().tobytes() for events in whole.events.split(64)}
    assert len(blocks) == 4
    for size in (2, 4):
        shares = [BatchStream(cfg, 0, 1, ProcessGroup(r, size)).batch(3) for r in range(size)]
        found = [b.numpy().tobytes() for share in shares for b in share.events.split(64)]
        assert sorted(found) == sorted(blocks)
        for share in shares:
            assert torch.equal(share.static, whole.static)


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path) -> None:
    """Floats are summed in another order, so that the curves agree, but not to the bit."""
    one, two = tmp_path / "one", tmp_path / "two"
    with training(2, two) as launched:
        ended = launched.wait()
        assert ended.keys() == {0}, ended
    train(settings(one))
    assert loss_curve(one) == pytest.approx(loss_curve(two), rel=1e-3)
    (session,) = load_predecoder(two / "two.safetensors").metadata["sessions"]
    assert session["command"].startswith("qec train")
    assert session["hardware"].startswith("2 processes: cpu")


def wait_for_step(out, step: int) -> None:
    """Until a state of that step, or a later one, has been written."""
    deadline = time.monotonic() + 600
    while saved_step(out / "state.safetensors") < step:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "signals"),
    [(1, (signal.SIGUSR1, signal.SIGKILL)), (3, (signal.SIGTERM,))],
)
def test_a_killed_training_resumes_to_the_bit(tmp_path, size, signals) -> None:
    """Killed after random steps; a signal that asks goes to one process, and all stop.

    Three processes, since two would hide gradients that are summed in another order.
    """
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    long = ("shots=9600", "batch=192", "shards=3", "log_every=7", "workers=1")  # 50 steps
    steps, rng = 0, random.Random(size)
    for number in signals:
        steps += rng.randrange(6, 15)
        with training(size, killed, *long) as launched:
            wait_for_step(killed, steps)
            if number == signal.SIGKILL:
                launched.kill(number)
                assert launched.wait().keys() == {-number}
                continue
            launched.kill(number, ranks=slice(-1, None))
            ((status, error),) = launched.wait().items()
            assert status == PREEMPTED_STATUS, error
            assert "qec: stopped by " in error
            assert "run the same command again to resume" in error

    for out in (killed, whole):
        with training(size, out, *long) as launched:
            assert launched.wait().keys() == {0}
    assert_same_training(whole, killed)


def test_stop_signals_are_noted_and_handlers_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as request:
        assert request.name is None
        signal.raise_signal(signal.SIGTERM)
        assert request.name == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == before


SLURM = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
MEETING = {"MASTER_ADDR": "node1", "MASTER_PORT": "20000"}


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, SINGLE_PROCESS),
        (SLURM | MEETING, ProcessGroup(3, 8, 1)),
        (TORCHRUN | MEETING, ProcessGroup(1, 2, 1)),
        (SLURM | TORCHRUN | MEETING, ProcessGroup(1, 2, 1)),  # torchrun started by srun
        (SLURM | {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, ProcessGroup(0, 1, 1)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, SINGLE_PROCESS),  # a batch script without srun
    ],
)
def test_launchers_are_recognised(environment, found) -> None:
    assert ProcessGroup.discover(environment) == found


def test_bad_launches_are_refused(tmp_path, monkeypatch) -> None:
    with pytest.raises(QecError, match="8 processes are to train together, but MASTER_ADDR"):
        ProcessGroup.discover(SLURM)
    with pytest.raises(QecError, match="device=cuda:1 for 2 processes"):
        ProcessGroup(0, 2).device("cuda:1")
    for name, value in (TORCHRUN | MEETING).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(QecError, match="shards=1 cannot be dealt out to 2 processes"):
        train(settings(tmp_path, "shards=1"))


@pytest.mark.parametrize("name", ["h100", "gb300"])
def test_hardware_gives_defaults_that_overrides_change(name) -> None:
    config = load_config("train", [f"hardware={name}", "workers=2"])
    assert (config.device, config.precision) == ("cuda", "bfloat16")
    assert config.tf32
    assert config.compile
    assert config.fused
    assert config.workers == 2
    assert "hardware" not in config
    assert load_config("train").device == "cpu"


@pytest.mark.slow
def test_fused_and_unfused_updates_agree(tmp_path) -> None:
    for fused in ("true", "false"):
        train(settings(tmp_path / fused, "shots=640", f"fused={fused}"))
    fused, unfused = (load_file(tmp_path / n / "state.safetensors") for n in ("true", "false"))
    for key, tensor in fused.items():
        torch.testing.assert_close(tensor, unfused[key], rtol=1e-3, atol=1e-5)
