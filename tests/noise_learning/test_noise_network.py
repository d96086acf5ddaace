"""The amortised network: its input, its training, the shipped checkpoint, what it refuses."""

import numpy as np
import pytest
import torch

from qec.circuits.memory_circuit import memory_circuit
from qec.circuits.noise_model import CircuitNoise
from qec.circuits.surface_code import RotatedSurfaceCode
from qec.cli.commands import main
from qec.noise_learning import NoiseLearner
from qec.noise_learning.error_structure import ErrorStructure
from qec.noise_learning.network import NoiseNetwork, Patches, load_network, network_rates
from qec.noise_learning.random_noise import draw_channels
from qec.support.errors import QecError
from qec.support.files import resource_dir

SMALL = ["steps=4", "shots_per_step=128", "shots=64", "distances=5", "width=8", "workers=0"]


def structure_of(distance=5, rounds=5, basis="X", orientation="ZV"):
    code = RotatedSurfaceCode(distance, orientation)
    return ErrorStructure.of(memory_circuit(code, CircuitNoise.uniform(0.004), rounds, basis))


@pytest.mark.parametrize("basis", ["X", "Z"])
def test_patches_hold_the_neighbours_of_the_inner_checks(basis):
    structure = structure_of(5, 6, basis)
    patches = Patches.of(structure)
    assert patches.detectors.shape == (4 * 16, 36)  # bulk rounds 1 .. 5: four pairs
    coords = structure.model.get_detector_coordinates()
    for row, exists in zip(patches.detectors, patches.exists, strict=True):
        images = row.reshape(4, 3, 3)
        here = images[:, 1, 1]
        found = here[here < structure.num_detectors]
        # One check at the centre, in a round and in the next.
        assert len(found) == 2
        (x, y, t), later = coords[found[0]], coords[found[1]]
        assert later == [x, y, t + 1]
        for k, j in np.ndindex(3, 3):
            for n in range(4):
                if (d := images[n, k, j]) < structure.num_detectors:
                    assert coords[d] == [x + 2 * (j - 1), y + 2 * (k - 1), t + n // 2]
        assert (
            (images < structure.num_detectors).reshape(2, 2, 9).all(axis=0).ravel() == exists
        ).all()


@pytest.mark.slow
def test_bulk_statistics_do_not_depend_on_the_distance():
    torch.manual_seed(0)
    network = NoiseNetwork(25, 8).eval()
    found = {}
    for distance in (5, 9):
        structure = structure_of(distance)
        patches = Patches.of(structure)
        quiet = patches.tensor(np.zeros((2, structure.num_detectors), np.uint8), torch.float32)
        assert quiet.shape == (2 * len(patches.detectors), 54)
        found[distance] = network.features(quiet)
    assert torch.isfinite(found[5]).all()
    logs = network.rates(found[5][None], torch.tensor([100.0]), 5)
    assert logs.shape == (1, 25)
    assert (np.log(1e-6) <= logs.detach().numpy()).all()
    assert (logs.detach().numpy() <= np.log(5e-2)).all()


@pytest.mark.slow
def test_training_resumes_where_it_stood(tmp_path, capsys):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(["train-noise-network", *SMALL, f"out={whole}"]) == 0
    # A run that was killed: the state of step 2 of the same schedule.
    from qec.noise_learning import train_network

    class Killed(Exception):
        pass

    real, calls = train_network.loss_of, []

    def dies(*args):
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_network, "loss_of", dies)
        with pytest.raises(Killed):
            main(["train-noise-network", *SMALL, f"out={cut}", "save_every=0"])
    assert main(["train-noise-network", *SMALL, f"out={cut}"]) == 0
    one, two = (load_network(path / "network.safetensors") for path in (whole, cut))
    assert one[1] == two[1]
    for a, b in zip(one[0].parameters(), two[0].parameters(), strict=True):
        assert torch.equal(a, b)
    capsys.readouterr()


@pytest.mark.slow
def test_the_shipped_network_is_better_than_the_uniform_guess():
    guess = structure_of(5)
    errors = []
    for seed in range(6):  # fixed draws; the network never saw them (training seeds differ)
        noise = draw_channels(0.005, np.random.default_rng((77, seed)))
        circuit = memory_circuit(RotatedSurfaceCode(5), noise, 5, "X")
        events = circuit.compile_detector_sampler(seed=seed).sample(1000, bit_packed=True)
        estimate = NoiseLearner(guess).update(events).estimate("network")
        assert (estimate.x > 0).all()
        true = ErrorStructure.of(circuit).x
        errors.append(
            [np.average(np.log(x / true) ** 2, weights=true) for x in (estimate.x, guess.x)]
        )
    learned, guessed = np.mean(errors, axis=0)
    assert learned < guessed / 2


def test_other_experiments_are_refused(stim_circuit):
    events = np.zeros((4, 15), np.uint8)
    with pytest.raises(QecError, match="25 parameters"):
        network_rates(ErrorStructure.of(stim_circuit(5, 5, "X", 0.004)), events)
    with pytest.raises(QecError, match="orientation ZV"):
        network_rates(structure_of(orientation="XH"), events)
    with pytest.raises(QecError, match="3 rounds"):
        network_rates(structure_of(rounds=2), np.zeros((4, 5), np.uint8))


def test_damaged_checkpoints_are_refused(tmp_path):
    path = tmp_path / "network.safetensors"
    with pytest.raises(QecError, match="no checkpoint of a noise network"):
        load_network(path)
    shipped = resource_dir("data") / "noise_learning" / "network.safetensors"
    path.write_bytes(shipped.read_bytes()[:1000])
    with pytest.raises(QecError, match="no checkpoint of a noise network"):
        load_network(path)
    with pytest.raises(QecError, match=r"found .qec-predecoder"):
        load_network(resource_dir("data") / "standard.safetensors")
