"""Training: reproducible batches, resumable runs, through the public CLI."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import os
import shlex
import types

import pytest
import torch
from safetensors.torch import load_file
from training_files import saved_step

from qec.cli.commands import main
from qec.cli.config import load_config
from qec.predecoder.architectures import build_network
from qec.predecoder.checkpoint import load_predecoder
from qec.predecoder.labelled_shots import LabelledSampler
from qec.support.errors import QecError
from qec.training import data, mixture
from qec.training.data import BatchStream, batches
from qec.training.loop import train
from qec.training.loss import cross_entropy
from qec.training.mixture import Source
from qec.training.muon import Muon
from qec.training.optim import build_optimisers
from qec.training.settings import TrainSettings
from qec.training.training_state import TrainingState

TINY = [
    "model={width: 8, layers: 3}",
    "threshold=0.8",
    "distances=[3]",
    "orientations=[ZV]",
    "orders=[across]",
    "noises=[uniform]",
    "ps=[0.01]",
    "with_cz=0",
    "spread=0",
    "shots=640",
    "log_every=5",
    "workers=0",
]


def overrides(out, *more: str) -> list[str]:
    """TINY with some keys replaced."""
    replaced = {text.partition("=")[0] for text in more}
    kept = [text for text in TINY if text.partition("=")[0] not in replaced]
    return [*kept, f"out={out}", *more]


def tiny(out, *more: str) -> TrainSettings:
    return TrainSettings.from_config(load_config("train", overrides(out, *more)))


def all_finite(state) -> bool:
    return all(torch.isfinite(tensor).all() for tensor in load_file(state).values())


@pytest.fixture
def one_thread():
    """Sums in a fixed order, so that equal runs end in equal bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_batches_depend_on_seed_and_number_alone(tmp_path) -> None:
    cfg = tiny(tmp_path)
    alone = BatchStream(cfg, 0, 4)
    for workers in (0, 2):
        ahead = batches(dataclasses.replace(cfg, workers=workers), 1, 4)
        for number, batch in enumerate(ahead, start=1):
            assert torch.equal(batch.events, alone.batch(number).events)
            assert torch.equal(batch.labels, alone.batch(number).labels)


def interrupt(monkeypatch, owner, name: str, call: int) -> None:
    """Ctrl-C when ``owner.name`` is called for the ``call``-th time (from 0), once."""
    real, calls = getattr(owner, name), itertools.count()

    def patched(*args, **kwargs):
        if next(calls) == call:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, patched)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "name"),
    [(TrainingState, "train_step"), (Muon, "step"), (torch.optim.AdamW, "step")],
)
def test_a_resumed_run_ends_like_an_uninterrupted_one(
    tmp_path, monkeypatch, one_thread, owner, name
) -> None:
    """Wherever Ctrl-C strikes, between the steps of two optimisers for one."""
    whole = load_predecoder(train(tiny(tmp_path / "whole")))
    killed = tiny(tmp_path / "killed", "save_every=0")
    interrupt(monkeypatch, owner, name, 4)
    with pytest.raises(KeyboardInterrupt):
        train(killed, ("first", "command"))
    assert saved_step(tmp_path / "killed/state.safetensors") == 4
    assert load_predecoder(killed.checkpoint).metadata["shots"] == 4 * 64  # for use meanwhile
    resumed = load_predecoder(train(killed, ("second", "command")))
    for key, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[key]), key

    sessions = [(s["command"], s["step"]) for s in resumed.metadata["sessions"]]
    assert sessions == [("first command", 0), ("second command", 4)]
    assert all(s["hardware"].startswith("cpu, 1 threads") for s in resumed.metadata["sessions"])


@pytest.mark.slow
def test_ctrl_c_between_saves_keeps_whole_steps_only(tmp_path, monkeypatch) -> None:
    interrupt(monkeypatch, TrainingState, "train_step", 3)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(tmp_path / "between"))
    assert saved_step(tmp_path / "between/state.safetensors") == 3
    monkeypatch.undo()
    interrupt(monkeypatch, Muon, "step", 3)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(tmp_path / "within"))
    assert not (tmp_path / "within/state.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["loss", "weights"])
def test_the_last_good_state_survives_a_divergence(tmp_path, monkeypatch, where) -> None:
    real_step, real_backward = TrainingState.train_step, TrainingState.backward

    def step(run, batch):
        loss = real_step(run, batch)
        if run.step == 5:
            run.network.head.bias.data.fill_(torch.nan)
        return loss

    def backward(run, batch):
        return real_backward(run, batch) * (torch.nan if run.step == 4 else 1)

    if where == "weights":
        monkeypatch.setattr(TrainingState, "train_step", step)
    else:
        monkeypatch.setattr(TrainingState, "backward", backward)
    with pytest.raises(QecError, match=r"at step 5: train again with a lower muon_lr"):
        train(tiny(tmp_path / "run", "save_every=0"))
    assert saved_step(tmp_path / "run/state.safetensors") == 4
    assert all_finite(tmp_path / "run/state.safetensors")


def test_no_state_is_saved_after_an_error(tmp_path, monkeypatch) -> None:
    def fails(*_):
        raise QecError("bad shots")

    monkeypatch.setattr(LabelledSampler, "sample", fails)
    with pytest.raises(QecError, match="bad shots"):
        train(tiny(tmp_path / "run"))
    assert not (tmp_path / "run/state.safetensors").exists()


SEPARABLE = "{width: 16, layers: 4, active_only: true, separable: true}"


@pytest.mark.slow
@pytest.mark.parametrize(("model", "most"), [("{width: 16, layers: 4}", 0.6), (SEPARABLE, 0.9)])
def test_training_learns(tmp_path, model, most) -> None:
    """The loss on a fresh batch falls well below that of the error model's own probabilities.

    All seeds are fixed, so that it varies with the order of sums alone.  Six other seeds reached
    0.41 to 0.48 of that loss, separable networks 0.55 to 0.66: the bounds are six standard
    deviations away.
    """
    out = tmp_path / "learns"
    cfg = tiny(out, "shots=12800", f"model={model}", "ema=0.98")
    network = load_predecoder(train(cfg)).network
    batch = BatchStream(cfg, 10_000, 10_001).batch(10_000)
    with torch.no_grad():
        told = network(batch.events.float(), batch.static)
    prior = batch.static[:, : told.shape[1]].expand_as(told)
    trained, before = (cross_entropy(x, batch.labels, batch.valid, prior[0]) for x in (told, prior))
    assert trained < most * before


@pytest.mark.slow
def test_a_separable_network_starts_from_its_like_only(tmp_path) -> None:
    parent = train(tiny(tmp_path / "parent", "shots=128", f"model={SEPARABLE}"))
    begun = TrainingState(
        tiny(tmp_path / "same", f"init_from={parent}", f"model={SEPARABLE}"), tmp_path / "none"
    )
    for key, tensor in load_predecoder(parent).network.state_dict().items():
        assert torch.equal(tensor, begun.network.state_dict()[key]), key
    wider = SEPARABLE.replace("16", "24")
    with pytest.raises(QecError, match="separable or active_only ones do not grow"):
        train(tiny(tmp_path / "wider", f"init_from={parent}", f"model={wider}"))


def test_command_line(tmp_path) -> None:
    out = tmp_path / "run"
    assert main(["train", *overrides(out)]) == 0
    predecoder = load_predecoder(out / "run.safetensors")
    assert predecoder.metadata["shots"] == 640
    assert predecoder.metadata["distances"] == [3]
    assert predecoder.threshold == 0.8
    assert list((out / "tensorboard").iterdir())
    (session,) = predecoder.metadata["sessions"]
    assert session["command"] == shlex.join(["qec", "train", *overrides(out)])
    assert [path.name for path in out.glob("*.md")] == []  # model cards are no part of training


def test_models_of_files_take_the_place_of_the_mixture(tmp_path, our_circuit) -> None:
    circuit = our_circuit(3, 2, "Z", 0.02)
    circuit.to_file(tmp_path / "own.stim")
    circuit.detector_error_model(decompose_errors=True).to_file(tmp_path / "own.dem")
    files = [str(tmp_path / name) for name in ("own.stim", "own.dem")]
    settings = tiny(tmp_path / "run", "shots=192", f"model_of=[{','.join(files)}]", "distances=[9]")
    assert BatchStream(settings, 0, 1).batch(0).events.shape[2:] == (3, 2, 3)
    assert load_predecoder(train(settings)).metadata["model_of"] == files


BAD_SETTINGS = [
    ("out=/", "out='/'"),
    ("model=m99", "m99"),
    ("model=7", "model=7"),
    ("model={width: 8, depth: 3}", "not valid"),
    ("device=tpu", "device='tpu'"),
    ("device=cuda:99", "device=cuda:99"),
    ("seed=-1", "seed=-1"),
    ("seed=1.5", "seed=1.5"),
    ("distances=[4]", "odd"),
    ("distances=[]", "distances is empty"),
    ("distances=[[3]]", "nested"),
    ("rounds=0", "rounds=0"),
    ("orientations=[ZZ]", "ZZ"),
    ("noises=[pink]", "pink"),
    ("noises=[null]", "None"),
    ("ps=[0.01,0]", "ps=0 "),
    ("ps=[1.1]", "ps=1.1"),
    ("noises=[si1000]|ps=[0.3]", "si1000"),
    ("noises=[uniform,stim]|ps=[0.9]", "over-mixing"),
    ("noises=[random]|ps=[0.9]", "above 1"),
    ("orders=[upwards]", "order='upwards' is unknown: use across, as-x, as-z, along"),
    ("orders=[]", "orders is empty"),
    ("with_cz=1.5", "with_cz=1.5"),
    ("with_cz=true", "with_cz=True"),
    ("spread=-1", "spread=-1"),
    ("model_of=nowhere.stim", "there is no file nowhere.stim"),
    ("threshold=0.4", "threshold=0.4 is not supported: use a probability in [0.5, 1]"),
    ("threshold=[0.7,0.8]", "threshold=[0.7, 0.8] is not supported"),
    ("labels=matching", "train has no key 'labels'"),
    ("workers=-1", "workers=-1"),
    ("shots=0", "shots=0"),
    ("shots=lots", "shots='lots'"),
    ("shots=63", "less than one batch"),
    ("shards=0", "shards=0"),
    ("batch=128|shards=3", "use a multiple of 192"),
    ("precision=half", "auto or bfloat16 or float32"),
    ("tf32=1", "tf32=1"),
    ("hardware=toaster", "hardware=toaster is unknown: use gb300, h100"),
    ("batch=100", "multiple of 64"),
    ("muon_lr=0", "muon_lr=0"),
    ("adamw_lr=true", "adamw_lr=True"),
    ("warmup=null", "warmup=None"),
    ("ema=1", "ema=1"),
    ("init_from=nowhere", "nowhere"),
    ("init_from=standard", "cannot grow"),
    ("log_every=0", "log_every=0"),
    ("save_every=-1", "save_every=-1"),
]


@pytest.mark.parametrize(("override", "message"), BAD_SETTINGS)
@pytest.mark.slow
def test_bad_settings_exit_with_one_line(tmp_path, capsys, override, message) -> None:
    changed = override.split("|")
    assert main(["train", *overrides(tmp_path / "run", *changed)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_one_value_stands_for_a_list_of_one(tmp_path) -> None:
    single = ("distances=3", "orientations=ZV", "orders=across", "noises=uniform", "ps=0.01")
    settings = tiny(tmp_path, *single, "model_of=null", "shots=1e3")
    assert settings == tiny(tmp_path, "model_of=[]", "shots=1000")
    assert tiny(tmp_path, "model_of=a.stim").model_of == ("a.stim",)


@pytest.mark.slow
def test_an_error_in_a_worker_is_one_line(tmp_path, capsys, monkeypatch) -> None:
    def fails(*_, **__):
        raise QecError("bad shots.")

    monkeypatch.setattr(LabelledSampler, "sample", fails)
    assert main(["train", *overrides(tmp_path / "run", "workers=1")]) == 2
    assert capsys.readouterr().err == "qec: error: bad shots.\n"
    assert not multiprocessing.active_children()  # at the exit they would be waited for, for ever


@pytest.mark.slow
def test_a_killed_worker_is_one_line(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(LabelledSampler, "sample", lambda *_: os._exit(1))
    assert main(["train", *overrides(tmp_path / "run", "workers=1")]) == 2
    error = capsys.readouterr().err
    assert "fewer workers=" in error
    assert error.count("\n") == 1


def test_every_circuit_is_built_once(tmp_path, monkeypatch) -> None:
    """Few at a time, and others after a while."""
    built: list[Source] = []

    class Fake:
        grid = types.SimpleNamespace(
            static=torch.zeros(1), valid=torch.zeros(1), pack=lambda *_: torch.zeros(1)
        )

        def sample(self, shots: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.zeros(1), torch.zeros(1)

    monkeypatch.setattr(data, "sampler_of", lambda source: built.append(source) or Fake())
    monkeypatch.setattr(mixture, "_RENEWED", 400)
    settings = tiny(tmp_path, "ps=[0.001,0.01]")
    for last, most in ((400, 32), (2000, 160)):
        built.clear()
        list(BatchStream(settings, 0, last))
        assert len(built) == len(set(built))
        assert most / 2 < len(built) <= most


@pytest.mark.slow
def test_state_of_another_model_is_refused(tmp_path) -> None:
    train(tiny(tmp_path / "run"))
    with pytest.raises(QecError, match="cannot resume"):
        train(tiny(tmp_path / "run", "model={width: 12, layers: 3}"))
    (tmp_path / "run" / "state.safetensors").write_bytes(b"half a file")
    with pytest.raises(QecError, match="cannot resume"):
        train(tiny(tmp_path / "run"))


@pytest.mark.parametrize(
    "override",
    [
        *("seed=2", "batch=128", "distances=[5]", "ps=[0.02]", "noises=[stim]", "muon_lr=0.02"),
        *("adamw_lr=0.01", "rounds=2", "orientations=[XV]", "orders=[as-z]", "with_cz=0.5"),
        *("spread=0.1", "warmup=1", "ema=0.9"),
    ],
)
@pytest.mark.slow
def test_resuming_with_other_settings_is_refused(tmp_path, capsys, override) -> None:
    train(tiny(tmp_path / "run", "shots=64"))
    before = (tmp_path / "run/state.safetensors").read_bytes()
    assert main(["train", *overrides(tmp_path / "run", override)]) == 2
    error = capsys.readouterr().err
    key, _, value = override.partition("=")
    was = tiny(tmp_path, "shots=64").deciding()[key]
    assert f"has {key}={was}, this command {key}={value}".replace("'", "") in error.replace("'", "")
    assert error.count("\n") == 1
    assert (tmp_path / "run/state.safetensors").read_bytes() == before


@pytest.mark.slow
def test_a_run_goes_on_for_more_shots_and_with_another_threshold(tmp_path) -> None:
    train(tiny(tmp_path / "run", "shots=64"))
    more = ("shots=192", "log_every=1", "workers=1", "threshold=0.6")
    done = load_predecoder(train(tiny(tmp_path / "run", *more)))
    assert done.metadata["shots"] == 192
    assert done.threshold == 0.6  # decides nothing about the weights


@pytest.mark.slow
def test_the_parent_is_the_one_it_started_from(tmp_path) -> None:
    parent = train(tiny(tmp_path / "parent", "shots=64"))
    settings = tiny(tmp_path / "run", "shots=64", f"init_from={parent}")
    first = load_predecoder(train(settings)).metadata["started_from"]
    assert first.startswith("parent@")
    parent.unlink()  # or replaced by a later training
    again = load_predecoder(train(dataclasses.replace(settings, shots=128)))
    assert again.metadata["started_from"] == first


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_trains_on_cuda(tmp_path) -> None:
    train(tiny(tmp_path / "run", "device=cuda"))


@pytest.mark.slow
def test_without_muon_adamw_trains_every_weight(tmp_path) -> None:
    settings = tiny(tmp_path / "run", "muon_lr=null", "shots=64")
    network = build_network(settings.model)
    (optimiser,) = build_optimisers(network, settings)
    trained = sum(p.numel() for group in optimiser.param_groups for p in group["params"])
    assert trained == sum(p.numel() for p in network.parameters())
    assert load_predecoder(train(settings)).metadata["muon_lr"] is None


@pytest.mark.slow
def test_a_larger_network_starts_from_a_smaller_one(tmp_path) -> None:
    parent = train(tiny(tmp_path / "parent", "shots=64"))
    larger = "model={width: 12, layers: 4}"
    grown = train(tiny(tmp_path / "run", "shots=64", f"init_from={parent}", larger))
    found = load_predecoder(grown)
    assert found.network.stem.shape[0] == 12
    assert found.metadata["started_from"].startswith("parent@")
