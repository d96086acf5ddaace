"""The real-time benchmark: real processes, and what becomes of overload and of a dead worker."""

import json
import os
import signal
import time

import numpy as np
import pytest
import stim
from printed import listed_files
from training_files import trained

from qec.circuits.lattice import detector_error_model
from qec.cli.commands import main
from qec.cli.config import load_config
from qec.realtime import command, commit
from qec.realtime import run as one_run
from qec.realtime.commit import in_one_process
from qec.realtime.plan import Plan, model_rounds
from qec.realtime.report import is_stable
from qec.realtime.settings import RealtimeSettings
from qec.realtime.shared_memory import Layout, SharedRun
from qec.realtime.shortest_period import shortest_period
from qec.support.errors import QecError
from qec.windows.window_decoder import WINDOW_DECODERS, WindowDecoder

SMALL = ["distance=3", "rounds=40", "shots=6", "p=0.004", "seed=3", "commit=3"]


@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize(("rounds", "commit", "buffer"), [(40, 3, 3), (41, 2, 4), (43, 5, 2)])
@pytest.mark.slow
def test_windows_cut_from_a_short_experiment_are_those_of_the_long_one(
    our_circuit, rounds, commit, buffer, correlated
):
    circuit = our_circuit(3, rounds, "X", 0.006)
    shots = circuit.compile_detector_sampler(seed=2).sample(150).view(np.uint8)
    short = our_circuit(3, model_rounds(commit, buffer, 0), "X", 0.006)
    plan = Plan(str(detector_error_model(short)), rounds, commit, buffer, correlated)
    assert len(plan.windows) > 5
    layers = plan.reference.split(shots, rounds)
    state, _, match = in_one_process(plan, layers.reshape(-1, layers.shape[-1]))
    match()
    whole = WindowDecoder(
        detector_error_model(circuit), commit, buffer, parallel=True, correlated=correlated
    )
    found = np.bitwise_xor.reduce(state.flip.reshape(150, -1), axis=1)
    np.testing.assert_array_equal(found, whole.decode_batch(shots)[:, 0])


@pytest.mark.slow
def test_it_decodes_a_stream_and_reports(tmp_path, capsys):
    name = "pymatching-correlated-css"
    overrides = [*SMALL, "period_us=0,200", "workers=2", f"decoders={name}", f"out={tmp_path}"]
    assert main(["realtime", *overrides]) == 0
    text = capsys.readouterr().out
    assert "2 matchers" in text
    tables = text[: text.index("logical answers wrong")].splitlines()[2:-1]
    assert max(map(len, tables)) <= 100
    assert "logical answers wrong" in text
    assert (
        listed_files(text, tmp_path)
        == sorted(p.name for p in tmp_path.iterdir())
        == [
            *("backlog.png", "backlog.svg", "latency.png", "latency.svg", "load.png", "load.svg"),
            "report.json",
        ]
    )
    runs = json.loads((tmp_path / "report.json").read_text())["runs"]
    assert [(r["decoder"], r["period_us"]) for r in runs] == [(name, 0), (name, 200)]
    for run in runs:
        assert run["decided"] == run["windows"] == 6 * 13
        assert run["match_us_per_round"] > 0 == run["predecode_us_per_round"]
        p50, *_, most = run["latency_us"]["all"]
        assert 0 < p50 <= most
        if run["period_us"]:
            assert run["us_per_round"] >= 199  # no faster than the rounds come


def test_the_answers_are_those_of_the_windows_whatever_the_processes_do(tmp_path, capsys):
    overrides = [*SMALL, "period_us=50", "decoders=[pymatching-css]", f"out={tmp_path}"]
    config = load_config("realtime", [*overrides, "workers=2"])
    settings = RealtimeSettings.from_config(config)
    reports = command.realtime(config)
    capsys.readouterr()
    circuit = settings.circuit(settings.rounds)
    shots = circuit.compile_detector_sampler(seed=3).sample(6)
    want = WindowDecoder(detector_error_model(circuit), 3, 3, parallel=True).decode_batch(shots)
    for found in reports:
        np.testing.assert_array_equal(found.answers, want[:, 0])


@pytest.mark.slow
@pytest.mark.parametrize("qubits", [2, 3])
def test_qubits_side_by_side_are_decoded_as_one_after_the_other(tmp_path, capsys, qubits):
    overrides = [*SMALL, "decoders=[matching-cascade]", "period_us=40", f"out={tmp_path}"]
    config = load_config("realtime", [*overrides, f"qubits={qubits}", "workers=2"])
    (found,) = command.realtime(config)
    assert f"{qubits} at once of 6 experiments" in capsys.readouterr().out
    settings = RealtimeSettings.from_config(config)
    circuit = settings.circuit(settings.rounds)
    shots = circuit.compile_detector_sampler(seed=3).sample(6)
    options = WINDOW_DECODERS["matching-cascade"]
    windows = WindowDecoder(detector_error_model(circuit), 3, 3, parallel=True, **options)
    np.testing.assert_array_equal(found.answers, windows.decode_batch(shots)[:, 0])
    assert found.us_per_round >= 0.99 * 40 / qubits
    assert main(["realtime", *overrides, "qubits=4"]) == 2
    assert "shots=6 do not fill 4 qubits evenly" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["matching-cascade", "predecoder+matching-cascade"])
def test_what_is_late_is_decided_by_the_stage_before(tmp_path, capsys, name):
    """SI1000 noise: hardly any two corrections weigh the same."""
    overrides = [*SMALL, "noise=si1000", "period_us=0", f"predecoder={trained()}"]
    overrides += [f"decoders=[{name}]", f"out={tmp_path}"]
    config = load_config("realtime", [*overrides, "deadline_us=[0.001,1e9]"])
    late, in_time = command.realtime(config)
    assert "deadline" in capsys.readouterr().out
    assert late.fell_back == in_time.late == 0
    assert late.late > 0.1
    assert in_time.fell_back > 0.1
    settings = RealtimeSettings.from_config(config)
    circuit = settings.circuit(settings.rounds)
    shots = circuit.compile_detector_sampler(seed=3).sample(6)
    windows = WindowDecoder(detector_error_model(circuit), 3, 3, parallel=True)
    np.testing.assert_array_equal(late.answers, windows.decode_batch(shots)[:, 0])


def test_the_core_is_as_small_as_the_period_allows(monkeypatch):
    """Plans are their numbers of layers; these layers cost the less the more a core has."""
    monkeypatch.setattr(commit, "us_per_round", lambda plan, layers: (30 / plan, 12 / plan))

    def chosen(interval, *processes):
        return commit.chosen_plan(lambda layers: layers, 3, interval, processes, None)

    # At 60 % of their time a matcher has 6 us for a round of 10, and needs 10, 5, or 3.3.
    assert [chosen(us, 1, 1) for us in (100, 10, 5, 0.1, 0)] == [3, 6, 9, 9, 9]
    assert chosen(10, 2, 1) == 3
    assert chosen(6, 9, 1) == 6  # the network is what takes longer


def dies_at_work(memory, layout, plan, _):
    """A worker that is killed when the first layer arrives."""
    del plan
    run = SharedRun(layout, memory)
    run.ready[:] = 1  # whichever stage it stands in for
    while not run.arrived[0]:
        time.sleep(1e-4)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["match", "predecode"])
def test_a_killed_worker_ends_in_a_report(tmp_path, capsys, monkeypatch, stage):
    monkeypatch.setattr(one_run, stage, dies_at_work)
    overrides = [*SMALL, "period_us=100", "decoders=nothing", f"out={tmp_path}"]
    assert main(["realtime", *overrides]) == 2
    done = capsys.readouterr()
    assert "died (exit code -9) after 0 of 78 windows" in done.err
    assert "0 of 78" in done.out
    assert (tmp_path / "report.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["predecoder+pymatching", "predecoder+matching-cascade"])
def test_a_pre_decoder_runs_in_processes_of_its_own(tmp_path, capsys, name):
    overrides = [*SMALL, "period_us=0", "workers=2", "predecoder_workers=2"]
    overrides += [f"predecoder={trained()}"]
    config = load_config("realtime", [*overrides, f"decoders={name}", f"out={tmp_path}"])
    settings = RealtimeSettings.from_config(config)
    (found,) = command.realtime(config)
    capsys.readouterr()
    circuit = settings.circuit(settings.rounds)
    shots = circuit.compile_detector_sampler(seed=3).sample(6)
    dem = detector_error_model(circuit)
    options = dict(WINDOW_DECODERS[name], predecoder=trained())
    want = WindowDecoder(dem, 3, 3, parallel=True, **options).decode_batch(shots)
    np.testing.assert_array_equal(found.answers, want[:, 0])
    assert found.decided == found.windows
    assert found.predecode_us_per_round > 0
    assert len(found.memory_mb) == 4
    assert all(used > 0 for pair in found.memory_mb for used in pair)


@pytest.mark.slow
def test_handing_over_costs_little(tmp_path, capsys):
    overrides = ["distance=3", "rounds=100", "shots=20", "decoders=nothing", "period_us=0"]
    (found,) = command.realtime(load_config("realtime", [*overrides, f"out={tmp_path}"]))
    capsys.readouterr()
    assert found.answers.tolist() == [0] * 20
    windows, rounds = found.windows, 20 * 101
    # 15 to 40 us on a quiet core; the machine that tests run on may be anything but quiet.
    assert found.match_us_per_round * rounds / windows < 1000


@pytest.mark.parametrize("limit", [0.3, 1.0, 7.7, 5000.0])
def test_the_shortest_period_is_found(limit):
    tried = []
    found = shortest_period(lambda period: tried.append(period) or period >= limit, 10.0)
    assert limit <= found <= 1.1 * limit
    assert len(tried) <= 16
    assert np.isnan(shortest_period(lambda period: False, 1.0))


@pytest.mark.slow
def test_the_largest_rate_is_reported(tmp_path, capsys):
    overrides = [
        "distance=3",
        "rounds=200",
        "seed=3",
        "period_us=max",
        "decoders=[pymatching-css]",
        f"out={tmp_path}",
    ]
    assert main(["realtime", *overrides]) == 0
    assert "keeps up with a round every" in capsys.readouterr().out
    runs = json.loads((tmp_path / "report.json").read_text())["runs"]
    assert runs[0]["period_us"] == 0
    assert len({run["stable"] for run in runs[1:]}) == 2


@pytest.mark.slow
def test_recorded_events_are_decoded(tmp_path, capsys, our_circuit):
    circuit = our_circuit(3, 40, "Z", 0.004)
    circuit.to_file(tmp_path / "memory.stim")
    dets, obs = tmp_path / "events.dets", tmp_path / "flips.01"
    circuit.compile_detector_sampler(seed=3).sample_write(
        6, filepath=str(dets), format="dets", obs_out_filepath=str(obs), obs_out_format="01"
    )
    overrides = [f"circuit={tmp_path / 'memory.stim'}", f"dets={dets}", f"obs={obs}"]
    overrides += ["period_us=0", "decoders=[pymatching-css]", f"out={tmp_path / 'out'}"]
    (found,) = command.realtime(load_config("realtime", overrides))
    text = capsys.readouterr().out
    assert f"recorded in {dets}" in text
    assert "of 6 logical answers wrong" in text
    shots = stim.read_shot_data_file(
        path=str(dets), format="dets", num_detectors=circuit.num_detectors
    )
    want = WindowDecoder(detector_error_model(circuit), 3, 3, parallel=True).decode_batch(shots)
    np.testing.assert_array_equal(found.answers, want[:, 0])
    assert main(["realtime", *overrides[:2], *overrides[3:], "shots=4"]) == 0
    text = capsys.readouterr().out
    assert "of 4 answers differ" in text
    assert "wrong" not in text  # without obs nobody knows


def test_overload_is_called_unstable():
    seconds = np.linspace(0, 1, 80)
    assert not is_stable(np.stack([seconds, 100 * seconds], axis=1), 1000)
    assert is_stable(np.stack([seconds, 30 + 5 * np.sin(40 * seconds)], axis=1), 1000)


@pytest.mark.slow
def test_a_run_that_takes_too_long_is_stopped(tmp_path, capsys):
    overrides = [*SMALL, "period_us=1000000", "timeout=4", f"out={tmp_path}"]
    assert main(["realtime", *overrides, "decoders=[pymatching-css]"]) == 2
    assert "timeout=4" in capsys.readouterr().err


def test_shared_arrays_are_seen_by_both_sides():
    layout = Layout(
        layers=5,
        experiments=2,
        qubits=2,
        width=3,
        windows=7,
        blocks=2,
        matchers=1,
        predecoders=1,
    )
    one = SharedRun(layout)
    two = SharedRun(layout, one.memory_block)
    one.events[4, 2] = 1
    two.done[6] = 2**40
    assert two.events.sum() == two.events[4, 2] == 1
    assert one.done.tolist() == [0] * 6 + [2**40]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("decoders=[pymatching]", "does not run in windows"),
        ("decoders=[matching-cascade-ensemble]", "ensemble's proposals have no seam"),
        ("period_us=-1", "period_us=-1"),
        ("workers=0", "workers=0"),
        ("buffer=1", "buffer=1"),
        ("rounds=0", "rounds=0"),
        ("noise=white", "noise='white'"),
        ("predecoder_workers=0", "predecoder_workers=0"),
        ("backend=fastest", "backend='fastest'"),
        ("device=cuda:99", "device=cuda:99"),
        ("circuit=missing.stim", "there is no file missing.stim"),
    ],
)
@pytest.mark.slow
def test_bad_settings_are_refused(tmp_path, capsys, override, message):
    overrides = ["decoders=predecoder+pymatching", override]
    assert main(["realtime", *SMALL, *overrides, f"out={tmp_path}"]) == 2
    assert message in capsys.readouterr().err


def test_models_that_are_too_short_are_refused(our_circuit):
    dem = detector_error_model(our_circuit(3, 9, "X"))
    with pytest.raises(QecError, match="12 are needed"):
        _ = Plan(str(dem), 40, 3, 3, False).windows
