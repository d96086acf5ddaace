"""Several checkpoints in one sweep, on the same shots, and the figure of what accuracy costs."""

import itertools
import shutil

import numpy as np
import pytest
import sinter
import torch
from training_files import quiet, trained

from qec.circuits.lattice import detector_error_model
from qec.cli.commands import main
from qec.cli.config import load_config
from qec.decoding.decoder import named_decoder
from qec.evaluation.frontier import microseconds_per_round, plot_frontier
from qec.evaluation.paired_sampler import SAMPLER, PairedSampler
from qec.evaluation.sweep import SweepSettings, tasks
from qec.evaluation.sweep_table import SweepRow, rows_of
from qec.predecoder.checkpoint import load_predecoder, save_predecoder
from qec.predecoder.network import PreDecoderNetwork
from qec.support.errors import QecError

TWO = "decoders=[pymatching-css,predecoder+pymatching]"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two small networks, which load and run at once; they commit nothing, so they always fit."""
    folder, paths = tmp_path_factory.mktemp("checkpoints"), []
    for name, seed in (("one", 1), ("two", 2)):
        torch.manual_seed(seed)
        network = PreDecoderNetwork(width=4, layers=2)
        architecture = {"width": 4, "layers": 2}
        paths.append(folder / f"{name}.safetensors")
        save_predecoder(paths[-1], network.state_dict(), architecture, 1.0, history={})
    return tuple(map(str, paths))


def settings(*overrides):
    return SweepSettings.from_config(load_config("sweep", ["distance=3", "basis=X", *overrides]))


def test_each_checkpoint_has_rows_of_its_own(our_circuit):
    """With the predictions that its decoder makes alone, on the shots that all of them see."""
    checkpoints = (trained(), quiet())
    names = ("pymatching-css", "predecoder+pymatching")
    sampler = PairedSampler(names, checkpoints, batch=1000)
    rows = [
        "pymatching-css",
        "predecoder[small]+pymatching",
        "predecoder[quiet]+pymatching",
    ]
    assert list(sampler.rows()) == rows
    circuit = our_circuit(5, 3, "X", 0.008)
    dem = detector_error_model(circuit)
    (task,) = sampler.tasks([(circuit, dem, {"d": 5, "r": 3})], max_shots=1000)
    compiled = sampler.compiled_sampler_for_task(task)
    sampled, source = [], compiled.stim_sampler

    class Recorder:
        def sample(self, shots, **options):
            sampled.append(source.sample(shots, **options))
            return sampled[-1]

    compiled.stim_sampler = Recorder()
    found = compiled.sample(1000)
    ((dets, truth),) = sampled
    alone = [
        named_decoder(name, dem, path).decode_batch(dets.view(np.uint8)) != truth
        for name, path in zip((names[0], names[1], names[1]), (None, *checkpoints), strict=True)
    ]
    counts = found.custom_counts
    for name, wrong in zip(rows, alone, strict=True):
        assert counts[f"errors:{name}"] == wrong.sum()
        assert counts[f"both:{name}"] == (wrong & alone[0]).sum()
    assert (alone[1] != alone[2]).any()  # they are two networks
    times = [counts[f"predecode_ns:{name}"] for name in rows[1:]]
    assert times[0] != times[1] > 0  # each ran its own

    stat = sinter.TaskStats(
        strong_id="1", decoder=SAMPLER, json_metadata=task.json_metadata, shots=1000,
        errors=found.errors, custom_counts=counts,
    )  # fmt: skip
    tags = [f"{load_predecoder(path).name}@{load_predecoder(path).digest}" for path in checkpoints]
    assert task.json_metadata["predecoder"] == tags
    told = [(row.decoder, row.metadata.get("predecoder")) for row in rows_of(stat)]
    assert told == list(zip(rows, [None, *tags], strict=True))


def test_a_single_checkpoint_has_the_rows_it_always_had(checkpoints):
    """So that sweeps of before go on."""
    sampler = PairedSampler(("pymatching", "predecoder+pymatching"), checkpoints[0], 256)
    assert list(sampler.rows()) == ["pymatching", "predecoder+pymatching"]
    (task,) = tasks(settings(TWO, f"predecoder={checkpoints[0]}"))
    predecoder = load_predecoder(checkpoints[0])
    assert task.json_metadata["predecoder"] == f"one@{predecoder.digest}"
    assert task.json_metadata["decoders"] == [
        "pymatching-css",
        "predecoder+pymatching",
    ]


def test_checkpoints_of_one_name_are_refused(checkpoints, tmp_path):
    twin = tmp_path / "one.safetensors"
    shutil.copy(checkpoints[1], twin)
    with pytest.raises(QecError, match="two checkpoints have one name"):
        list(tasks(settings(TWO, f"predecoder={checkpoints[0]},{twin}")))


@pytest.mark.slow
def test_a_sweep_of_two_checkpoints(checkpoints, tmp_path, capsys):
    overrides = ["distance=3", "rounds=2", "basis=X", TWO, f"predecoder={','.join(checkpoints)}"]
    command = ["sweep", *overrides, "max_shots=600", "num_workers=1", f"out={tmp_path}"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "predecoder[one]+pymatching" in text
    assert "predecoder[two]+pymatching" in text
    assert "frontier.png frontier.svg" in text
    stats = sinter.read_stats_from_csv_files(tmp_path / "stats.csv")
    assert sorted(stat.decoder for stat in stats)[0] == "predecoder[one]+pymatching"
    assert {stat.shots for stat in stats} == {600}
    capsys.readouterr()
    assert main(command) == 0
    assert "0 new shots, 600 resumed" in capsys.readouterr().out


# The figure --------------------------------------------------------------------------------------


def row(decoder, d, errors, match_ns, **metadata):
    metadata = {"d": d, "r": d, "p": 0.006, "b": "X", "noise": "uniform", "o": "ZV"} | metadata
    counts = {"baseline_errors": 50, "both_errors": 0, "events": 9, "events_left": 9}
    return SweepRow(
        task_id=str(metadata), metadata=metadata, decoder=decoder, baseline="a", shots=1000,
        errors=errors, predecode_ns=2_000_000, match_ns=match_ns, fallbacks=0, **counts,
    )  # fmt: skip


def test_time_per_round_is_that_of_network_and_matching():
    assert microseconds_per_round(row("a", 5, 1, 8_000_000)) == 2.0  # 10 ms, 1000 shots, 5 rounds


@pytest.mark.parametrize(
    ("metadata", "panels"),
    [
        ([{"d": 5}, {"d": 9}, {"d": 13}], 3),
        ([{"d": 5}, {"d": 9, "b": "Z"}], 2),  # a grid with holes
        ([{"d": 3, "circuit": "a/x.stim"}, {"d": 3, "circuit": "a/y.stim", "r": 4}], 2),
        ([{"d": 3, "r": 9}, {"d": 3}], 2),
    ],
)
def test_a_panel_per_grid_point(tmp_path, monkeypatch, metadata, panels):
    drawn = []
    monkeypatch.setattr(
        "qec.evaluation.frontier.save_figure", lambda figure, *_: drawn.append(figure)
    )
    names = ("a", "predecoder[x]+pymatching", "b")
    rows = [
        row(name, **{"d": 3, **m}, errors=errors, match_ns=ns)
        for m, (name, errors, ns) in itertools.product(
            metadata, zip(names, (50, 20, 0), (4e6, 9e6, 2e7), strict=True)
        )
    ]
    plot_frontier(rows, tmp_path, "1 process on 2 cores")
    (figure,) = drawn
    shown = [axes for axes in figure.axes if axes.axison]
    assert len(shown) == panels
    assert [axes.get_xscale() for axes in shown] == ["log"] * panels
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(names)
    colours = {tuple(axes.get_legend_handles_labels()[0][0].lines[0].get_color() for axes in shown)}
    assert len({colour for group in colours for colour in group}) == 1  # as everywhere
    assert "1 process on 2 cores" in legend.get_title().get_text().replace("\n", " ")


def test_a_figure_of_nothing_but_zeros_is_drawn(tmp_path):
    plot_frontier([row("a", 3, 0, 4e6)], tmp_path, "1 process on 2 cores")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frontier.png", "frontier.svg"]
