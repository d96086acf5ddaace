"""Training: teacher labels, reproducible batches, resumable runs, through the public CLI."""

from __future__ import annotations

import itertools
import shlex

import numpy as np
import pytest
import torch

from qec import chain as chains
from qec.cli import main
from qec.config import load_config
from qec.errors import QecError
from qec.matching import Matcher, basis_split
from qec.predecoder.checkpoint import load_predecoder
from qec.predecoder.grid import CellGrid
from qec.training import loop
from qec.training.data import BatchStream, Labeller, Source, batches
from qec.training.loop import train
from qec.training.teacher import MatchingTeacher

TINY = [
    "model={width: 8, layers: 3}",
    "distances=[3]",
    "orientations=[ZV]",
    "noises=[uniform]",
    "ps=[0.01]",
    "shots=640",
    "log_every=5",
    "workers=0",
    "validation_shots=256",
    "validation_distances=[3]",
    "thresholds=[0.5,0.9]",
]


def overrides(out, *more: str) -> list[str]:
    """TINY with some keys replaced."""
    replaced = {text.partition("=")[0] for text in more}
    kept = [text for text in TINY if text.partition("=")[0] not in replaced]
    return [*kept, f"out={out}", *more]


def tiny(out, *more: str):
    return load_config("train", overrides(out, *more))


def source(distance=5, rounds=4, orientation="ZV", basis="X", labels="matching") -> Source:
    return Source(distance, rounds, orientation, basis, "uniform", 0.01, labels)


@pytest.mark.parametrize(
    ("orientation", "basis", "rounds"),
    [("ZV", "X", 5), ("ZV", "Z", 1), ("XH", "X", 2), ("XV", "Z", 3), ("ZH", "Z", 11)],
)
def test_teacher_explains_the_events_and_agrees_with_matching(orientation, basis, rounds) -> None:
    labeller = Labeller(source(5, rounds, orientation, basis))
    lattice = labeller.grid.lattice
    sampler = labeller.circuit.compile_detector_sampler(seed=3)
    detectors = sampler.sample(512).astype(np.uint8)
    chain = MatchingTeacher(lattice).label(detectors)

    events = chains.boundary(chain, lattice)[lattice.layer, lattice.row, lattice.col]
    bits = np.unpackbits(events.view(np.uint8), axis=1, bitorder="little")
    assert np.array_equal(bits.T, detectors)

    parity = chains.logical_parity(chain, lattice).view(np.uint8)
    matched = Matcher(basis_split(lattice), correlated=True).decode_batch(detectors)
    # PyMatching's two interfaces may settle exact ties between matchings differently.
    assert (np.unpackbits(parity, bitorder="little") == matched).mean() > 0.99


@pytest.mark.parametrize("labels", ["matching", "frames"])
@pytest.mark.parametrize(("orientation", "basis"), list(itertools.product(("ZV", "XH"), "XZ")))
def test_cell_tensors_hold_the_chain_and_its_events(labels, orientation, basis) -> None:
    labeller = Labeller(source(5, 3, orientation, basis, labels))
    batch = labeller.batch(64, seed=9)
    grid = labeller.grid
    assert batch.events.shape == (64, 4, *grid.shape)
    assert batch.labels.shape == (64, 12, *grid.shape)
    assert not (batch.labels.bool() & ~batch.valid).any()
    lattice = grid.lattice
    events = chains.boundary(grid.unpack_chain(batch.labels), lattice)
    at_detectors = events[lattice.layer, lattice.row, lattice.col].T.contiguous()
    assert torch.equal(grid.pack_events(at_detectors), batch.events)


def test_static_channels_tell_the_noise_level() -> None:
    low, high = (
        CellGrid(Labeller(source()._replace(p=p)).grid.lattice).static[0, 4:].sum()
        for p in (0.001, 0.01)
    )
    assert high > low


def test_batches_depend_on_seed_and_number_alone(tmp_path) -> None:
    cfg = tiny(tmp_path)
    alone = BatchStream(cfg, 0, 4)
    for workers in (0, 2):
        cfg.workers = workers
        for number, batch in enumerate(batches(cfg, 1, 4), start=1):
            assert torch.equal(batch.events, alone.batch(number).events)
            assert torch.equal(batch.labels, alone.batch(number).labels)


def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path, monkeypatch) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in a fixed order
    try:
        whole = load_predecoder(train(tiny(tmp_path / "whole")))

        class Killed(Exception):
            pass

        steps = itertools.count()

        def dies(*args):
            if next(steps) == 4:
                raise Killed
            return real(*args)

        real = loop._Run.train_step
        monkeypatch.setattr("qec.training.loop._Run.train_step", dies)
        with pytest.raises(Killed):
            train(tiny(tmp_path / "killed"))
        monkeypatch.setattr("qec.training.loop._Run.train_step", real)
        resumed = load_predecoder(train(tiny(tmp_path / "killed")))
    finally:
        torch.set_num_threads(threads)
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name


def test_training_learns(tmp_path) -> None:
    """The loss on fresh batches falls well below that of a network that predicts no errors."""
    out = tmp_path / "learns"
    cfg = tiny(out, "shots=12800", "model={width: 16, layers: 4}", "ema=0.98")
    network = load_predecoder(train(cfg)).network
    batch = BatchStream(cfg, 10_000, 10_001).batch(10_000)
    with torch.no_grad():
        logits = network(batch.events.float(), batch.static)
    weight = batch.valid.float().expand_as(logits)
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    trained = loss(logits, batch.labels.float(), weight=weight).item()
    rate = (batch.labels.float() * weight).sum() / weight.sum()
    guess = torch.full_like(logits, torch.logit(rate))
    assert trained < 0.6 * loss(guess, batch.labels.float(), weight=weight).item()


def test_command_line(tmp_path, capsys) -> None:
    out = tmp_path / "run"
    assert main(["train", *overrides(out)]) == 0
    printed = capsys.readouterr().out
    assert "threshold" in printed
    predecoder = load_predecoder(out / "run.safetensors")
    assert predecoder.metadata["shots"] == 640
    assert predecoder.threshold in (0.5, 0.9)
    assert list((out / "tensorboard").iterdir())
    card = (out / "run.md").read_text()
    assert "| training shots | 640 |" in card
    assert f"`{shlex.join(['qec', 'train', *overrides(out)])}`" in card


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch=100", "multiple of 64"),
        ("model=m99", "m99"),
        ("model={width: 8, depth: 3}", "not valid"),
        ("init_from=nowhere", "nowhere"),
        ("distances=[4]", "odd"),
    ],
)
def test_bad_settings_exit_with_one_line(tmp_path, capsys, override, message) -> None:
    assert main(["train", *overrides(tmp_path / "run", override)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "run").glob("run.safetensors"))


def test_state_of_another_model_is_refused(tmp_path) -> None:
    train(tiny(tmp_path / "run"))
    with pytest.raises(QecError, match="cannot resume"):
        train(tiny(tmp_path / "run", "model={width: 12, layers: 3}"))
    (tmp_path / "run" / "state.safetensors").write_bytes(b"half a file")
    with pytest.raises(QecError, match="cannot resume"):
        train(tiny(tmp_path / "run"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_trains_on_cuda(tmp_path) -> None:
    train(tiny(tmp_path / "run", "device=cuda"))
