"""Shared set-up: one thread a process (pytest -n 2 runs two), and the circuits that tests share."""

import functools
import os

import hypothesis
import pytest
import stim

from qec.circuits.memory_circuit import memory_circuit
from qec.circuits.noise_model import CircuitNoise
from qec.circuits.surface_code import RotatedSurfaceCode


def pytest_configure():
    # Before any test module imports torch; processes that tests start inherit it.
    os.environ["OMP_NUM_THREADS"] = "1"
    # The same examples each time, and no wall-clock limit: the machine may be busy.
    hypothesis.settings.register_profile("qec", deadline=None, derandomize=True)
    hypothesis.settings.load_profile("qec")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """As ``--dist load``, but one worker has all tests of Slurm, so that they share one cluster."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "slurm" if "test_slurm.py" in nodeid else nodeid

    return Scheduling(config, log)


@functools.cache
def _generated(distance: int, rounds: int, basis: str, p: float) -> stim.Circuit:
    return stim.Circuit.generated(
        f"surface_code:rotated_memory_{basis.lower()}",
        distance=distance,
        rounds=rounds,
        after_clifford_depolarization=p,
        before_round_data_depolarization=p,
        before_measure_flip_probability=p,
        after_reset_flip_probability=p,
    )


@functools.cache
def _ours(distance, rounds, basis, p, orientation, noise) -> stim.Circuit:
    code = RotatedSurfaceCode(distance, orientation)
    return memory_circuit(code, CircuitNoise.named(noise, p), rounds, basis)


@pytest.fixture(scope="session")
def stim_circuit():
    """(distance, rounds, basis, p) -> Stim's own circuit, its four noise parameters all p."""
    return _generated


@pytest.fixture(scope="session")
def our_circuit():
    """(distance, rounds, basis, p, orientation, noise family) -> memory_circuit."""

    def make(distance, rounds, basis, p=0.005, orientation="ZV", noise="uniform"):
        return _ours(distance, rounds, basis, p, orientation, noise)

    return make
