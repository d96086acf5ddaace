"""`qec calibrate`: stages, reliability, post-selection; kept measurements; what it refuses."""

import json
import math

import numpy as np
import pytest
import stim
import torch
from printed import listed_files
from training_files import quiet

from qec.calibration import kept
from qec.calibration.confidence_against_errors import (
    SHARES,
    fit_slope,
    post_selection,
    reliability,
    selected_at,
)
from qec.calibration.report import verdict
from qec.calibration.stages import CASCADES, Stage, Stages, measure_stages
from qec.circuits.lattice import SpaceTimeLattice, detector_error_model
from qec.circuits.patch import OTHER
from qec.cli.commands import main
from qec.decoding.decoder import named_decoder
from qec.predecoder.architectures import build_network
from qec.predecoder.checkpoint import save_predecoder
from qec.support.errors import QecError
from qec.support.statistics import error_rate

FILES = {"calibration.json"} | {
    f"{name}.{kind}" for name in ("reliability", "post_selection") for kind in ("png", "svg")
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The user's cache folder of the test; returns that of the stages."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/qec/stages"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, stim_circuit):
    """A folder with a circuit, events and flips."""
    folder = tmp_path_factory.mktemp("recorded")
    circuit = stim_circuit(3, 3, "X", 0.01)
    circuit.to_file(folder / "memory.stim")
    sampler = circuit.compile_detector_sampler(seed=5)
    events, flips = sampler.sample(600, separate_observables=True)
    for data, name, size in ((events, "events.b8", "num_detectors"), (flips, "flips.01", None)):
        bits = {size or "num_observables": data.shape[1]}
        stim.write_shot_data_file(data=data, path=folder / name, format=name[-2:], **bits)
    return folder


def calibrated(out, *words):
    """What calibration.json holds after a run."""
    assert main(["calibrate", *words, f"out={out}"]) == 0
    return json.loads((out / "calibration.json").read_text())


def test_the_command_reports_and_plots(tmp_path, capsys):
    names = ["pymatching-correlated-css", "matching-cascade"]
    words = ["distance=3", "p=0.01", "shots=900", f"decoders={','.join(names)}", "checked=50"]
    found = calibrated(tmp_path / "out", *words)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    text = capsys.readouterr().out
    assert listed_files(text, tmp_path / "out") == sorted(FILES)
    shown = text[: text.index("files in ")]  # paths may be long
    (network,) = (line for line in shown.splitlines() if line.startswith("network standard: "))
    assert max(len(line) for line in shown.splitlines() if line != network) <= 100
    assert "…" not in text
    for stage, name in zip(found["stages"], CASCADES, strict=True):
        assert stage["name"] == name
        assert stage["shots"] == 900
        assert 0 < stage["handed_on"] < 900
        assert stage["checked_handed_on"] == stage["checked_kept"] == 50
        assert min(stage[key] for key in ("memory_us", "handed_on_us", "kept_us")) > 0
        assert f"{name}: o" in text
    assert [one["decoder"] for one in found["decoders"]] == names
    for one in found["decoders"]:
        assert sum(b["shots"] for b in one["raw"]) == 900
        assert sum(b["errors"] for b in one["raw"]) == one["errors"] > 0
        assert sum(b["shots"] for b in one["corrected"]) == 450
        for curve in (one["selected"], one["reference"]):
            assert curve[0]["rate"]["value"] == one["errors"] / 900


def test_it_says_whether_the_network_fits(tmp_path, recorded, capsys):
    """And does without one that does not, as the decoders do."""
    architecture = {"width": 4, "layers": 2}
    network = build_network(architecture)
    torch.nn.init.constant_(network.head.bias, 9.0)  # commits edges whatever the events
    wild = tmp_path / "wild.safetensors"
    save_predecoder(wild, network.state_dict(), architecture, threshold=0.5, history={})
    words = [f"circuit={recorded}/memory.stim", f"dets={recorded}/events.b8"]
    words += [f"obs={recorded}/flips.01"]
    names = "decoders=matching-cascade,predecoder+matching-cascade"
    found = {}
    for path, said in (
        (quiet(), "it commits nothing, in 1024 sampled shots: it fits and is used"),
        (wild, "it does not fit and is left out"),
    ):
        found[said] = calibrated(tmp_path / "out", *words, names, f"predecoder={path}")
        shown = capsys.readouterr()
        assert said in shown.out
        assert ("decoding goes on without it" in shown.err) == (path == wild)
    fits, left_out = found.values()
    assert fits["network"]["fits"]
    assert fits["network"]["committed"] == fits["network"]["wrong"] == 0
    assert not left_out["network"]["fits"]
    assert 0 < left_out["network"]["wrong"] <= left_out["network"]["committed"]
    for one, same in zip(left_out["decoders"], fits["decoders"], strict=True):
        assert one["raw"] == same["raw"]  # of the cascade alone


def test_errors_are_those_of_the_decoders(tmp_path, recorded):
    words = [f"circuit={recorded}/memory.stim", f"dets={recorded}/events.b8"]
    words += [f"obs={recorded}/flips.01", "decoders=[matching-cascade-ensemble]"]
    (found,) = calibrated(tmp_path, *words)["decoders"]
    circuit = stim.Circuit.from_file(recorded / "memory.stim")
    decoder = named_decoder("matching-cascade-ensemble", detector_error_model(circuit))
    files = {"path": recorded / "events.b8", "format": "b8"}
    events = stim.read_shot_data_file(**files, num_detectors=circuit.num_detectors)
    flips = stim.read_shot_data_file(path=recorded / "flips.01", format="01", num_observables=1)
    assert found["errors"] == (decoder.decode_batch(events) != flips).sum() > 0


def test_recorded_events_need_no_truth(tmp_path, recorded, capsys):
    words = [f"circuit={recorded}/memory.stim", f"dets={recorded}/events.b8"]
    found = calibrated(tmp_path / "out", *words)
    assert found["decoders"] == []
    assert [stage["shots"] for stage in found["stages"]] == [600] * len(CASCADES)
    assert "give obs=FILE" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["calibration.json"]


def test_a_second_run_answers_from_the_first(tmp_path, recorded, capsys, cache):
    words = [f"circuit={recorded}/memory.stim", f"dets={recorded}/events.b8"]
    first = calibrated(tmp_path, *words)
    assert not first["stages_known"]
    assert "earlier run" not in capsys.readouterr().out
    second = calibrated(tmp_path, *words)
    assert second["stages_known"]
    assert second["stages"] == first["stages"]
    assert "earlier run" in capsys.readouterr().out
    assert not calibrated(tmp_path, *words, "cached=false")["stages_known"]
    assert len(list(cache.iterdir())) == 1
    # Other settings, and other events, are another measurement.
    assert not calibrated(tmp_path, *words, "checked=7")["stages_known"]
    assert not calibrated(tmp_path, words[0], "shots=600", "decoders=pymatching-css")[
        "stages_known"
    ]
    assert len(list(cache.iterdir())) == 3


DAMAGES = {
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "another number": lambda text: text.replace('\\"shots\\": 600', '\\"shots\\": 601'),
    "no object": lambda text: "[1, 2]",
    "no text": lambda text: '{"sha256": "", "stages": 3}',
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_measured_anew(tmp_path, cache, stim_circuit, damage):
    circuit = stim_circuit(3, 3, "X", 0.01)
    dem = detector_error_model(circuit)
    events = circuit.compile_detector_sampler(seed=5).sample(600, bit_packed=True)
    first = kept.kept_stages(dem, events, checked=5, seed=0)
    whole = first.path.read_text()
    assert DAMAGES[damage](whole) != whole
    first.path.write_text(DAMAGES[damage](whole))
    again = kept.kept_stages(dem, events, checked=5, seed=0)
    assert not again.known
    assert kept.kept_stages(dem, events, checked=5, seed=0) == kept.Kept(
        again.stages, first.path, True
    )


def test_a_cache_that_cannot_be_written_is_no_obstacle(tmp_path, recorded, capsys, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    words = [f"circuit={recorded}/memory.stim", f"dets={recorded}/events.b8"]
    calibrated(tmp_path / "out", *words)
    error = capsys.readouterr().err
    assert error.count("qec: warning: the measured stages are not kept: cannot write") == 1


# Stages ------------------------------------------------------------------------------------------


def test_stages_count_what_the_decoders_change(stim_circuit):
    """With all shots checked, the counts are differences of two decoders' predictions."""
    circuit = stim_circuit(5, 5, "X", 0.008)
    dem = detector_error_model(circuit)
    events = circuit.compile_detector_sampler(seed=3).sample(2000, bit_packed=True)
    memory, correlated, cascade = (
        named_decoder(name, dem).decode_batch(events, bit_packed_shots=True)[:, 0]
        for name in ("pymatching-memory-css", "pymatching-correlated-css", "matching-cascade")
    )
    stage = measure_stages(dem, events, checked=2000).stages[0]
    assert stage.checked_handed_on == stage.handed_on
    assert stage.checked_kept == 2000 - stage.handed_on
    assert stage.changed_handed_on == (cascade != memory).sum() > 0
    assert stage.changed_handed_on + stage.changed_kept == (correlated != memory).sum()


def test_stages_sample_the_model_themselves(stim_circuit):
    dem = detector_error_model(stim_circuit(3, 3, "X", 0.01))
    counts = [
        [(s.shots, s.handed_on, s.changed_handed_on) for s in found.stages]
        for found in (measure_stages(dem, shots=300, checked=20, seed=s) for s in (1, 1, 2))
    ]
    assert counts[0] == counts[1] != counts[2]
    assert [stage[0] for stage in counts[0]] == [300] * len(CASCADES)


def test_mechanisms_that_happen_mostly_are_taken_for_granted(stim_circuit):
    """The same shots, told as of a model with an error that nearly always happens."""
    dem = detector_error_model(stim_circuit(3, 3, "X", 0.01)).flattened()
    place, first = next((k, item) for k, item in enumerate(dem) if item.type == "error")
    p, targets = first.args_copy()[0], first.targets_copy()
    flipped = stim.DetectorErrorModel()
    for k, item in enumerate(dem):
        flipped.append("error", 1 - p, targets) if k == place else flipped.append(item)
    bits, _, _ = dem.compile_sampler(seed=4).sample(400)
    ends = [t.val for t in targets if t.is_relative_detector_id()]
    other = bits.copy()
    other[:, ends] ^= True
    found = [
        [(s.handed_on, s.changed_handed_on) for s in measure_stages(model, packed).stages]
        for model, packed in (
            (dem, np.packbits(bits, axis=1, bitorder="little")),
            (flipped, np.packbits(other, axis=1, bitorder="little")),
        )
    ]
    assert found[0] == found[1]


def stage_of(**changes):
    values = {
        **{"name": "correlated matching", "nats": 5.0, "shots": 1000, "handed_on": 100},
        **{"checked_handed_on": 50, "changed_handed_on": 5, "checked_kept": 50, "changed_kept": 0},
        **{"memory_us": 1.0, "handed_on_us": 20.0, "kept_us": 10.0},
    }
    return Stage(**{**values, **changes})


def test_times_add_up_by_kind():
    stage = stage_of()
    assert stage.cascade_us == pytest.approx(1 + 0.1 * 20)
    assert stage.alone_us == pytest.approx(0.1 * 20 + 0.9 * 10)
    assert stage.time_share == pytest.approx(3 / 11)


@pytest.mark.parametrize(
    ("changes", "asked", "words"),
    [
        ({}, "doubtful", "on, for shots in doubt; 0.27 of its time"),
        ({"memory_us": 9.1}, "all", "on, for all shots"),
        ({"handed_on": 1000, "checked_kept": 0, "kept_us": 0.0}, "all", "saves no time"),
        ({"changed_handed_on": 0}, "none", "off, it changes none of 100 predictions"),
    ],
)
def test_a_stage_is_on_where_it_pays(changes, asked, words):
    stage = stage_of(**changes)
    assert stage.asked == asked
    assert words in verdict(stage)


def test_stages_survive_json():
    stages = Stages(tuple(stage_of(name=name) for name in CASCADES))
    assert Stages.from_json(json.loads(json.dumps(stages.to_json()))) == stages
    with pytest.raises(ValueError, match="other stages"):
        Stages.from_json(stages.to_json()[:1])
    with pytest.raises(TypeError):
        Stages.from_json([{"name": "ensemble"}])


# Confidence --------------------------------------------------------------------------------------


def synthetic(slope, shots, seed):
    """Gaps, and errors whose odds are exp(-slope * gap)."""
    rng = np.random.default_rng(seed)
    nats = rng.uniform(0, 8, shots)
    return nats, rng.random(shots) < 1 / (1 + np.exp(slope * nats))


@pytest.mark.parametrize("slope", [0.5, 1.0, 1.4])
def test_a_known_slope_is_recovered(slope):
    """Within 5.5 standard errors of a normal estimate: by chance not so in 4e-8 of seeds."""
    nats, wrong = synthetic(slope, 40_000, 11)
    found = fit_slope(nats, wrong)
    error = (found.high - found.low) / 2 / 1.96
    assert error < 0.03
    assert abs(found.value - slope) < 5.5 * error


def test_the_slope_maximises_the_likelihood():
    nats, wrong = synthetic(0.7, 500, 3)

    def cost(slope):
        return np.logaddexp(0, np.where(wrong, 1, -1) * slope * nats).sum()

    slope = fit_slope(nats, wrong).value
    assert cost(slope) < min(cost(slope - 0.01), cost(slope + 0.01))


@pytest.mark.parametrize("wrong", [[0, 0], [1, 1], []])
def test_without_errors_or_successes_there_is_no_slope(wrong):
    found = fit_slope(np.array([1.0, 2.0])[: len(wrong)], np.array(wrong, dtype=bool))
    assert math.isnan(found.value)
    assert (found.low, found.high) == (0, math.inf)


def test_bins_agree_with_odds_that_are_right():
    """Every bin within 5.5 binomial standard deviations: by chance not in 8 * 4e-8 of seeds."""
    nats, wrong = synthetic(0.7, 40_000, 12)
    bins = reliability(nats, wrong, 0.7)
    assert [b.low for b in bins] == list(range(8))
    assert sum(b.shots for b in bins) == 40_000
    for b in bins:
        p = b.predicted / (1 + b.predicted)
        assert abs(b.errors - b.shots * p) < 5.5 * math.sqrt(b.shots * p * (1 - p))
    # Odds exp(-gap) would be too sure, by exp(0.3 gap).
    assert reliability(nats, wrong)[4].ratio.low > 2


def test_bins_by_hand():
    low, high = reliability(np.array([0.0, 0.0, 2.5]), np.array([True, False, False]))
    assert (low.low, low.shots, low.errors, low.predicted) == (0, 2, 1, 1.0)
    assert low.observed.value == low.ratio.value == 1.0
    assert (high.low, high.shots, high.errors) == (2, 1, 0)
    assert high.predicted == pytest.approx(math.exp(-2.5))


@pytest.mark.parametrize("shots", [1, 2, 30, 5000])
def test_post_selection_leaves_ever_fewer_errors(shots):
    nats, wrong = synthetic(0.8, shots, shots)
    curve = post_selection(nats, wrong)
    assert curve[0].discarded == 0
    assert curve[0].rate == error_rate(int(wrong.sum()), shots)
    order = np.argsort(nats)
    for point in curve:
        assert point.discarded + point.shots == shots
        assert point.errors == wrong[order[point.discarded :]].sum()
    assert np.all(np.diff([point.discarded for point in curve]) > 0)
    assert np.all(np.diff([point.errors for point in curve]) <= 0)
    for share in SHARES:
        assert selected_at(curve, share).discarded == int(share * shots)


# Bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["distance=3,5"], "distance"),
        (["shots=0"], "shots=0 is not supported"),
        (["checked=0"], "checked=0 is not supported"),
        (["decoders=[foo]"], "'foo' is unknown"),
        (["decoders=[]"], "decoders is empty"),
        (["obs=flips.01"], "there is no file flips.01"),
        (["append_observables=true"], "need dets=FILE"),
        (["circuit=nowhere.stim"], "there is no file nowhere.stim"),
        (["shot=5"], "did you mean"),
        (["cached=1"], "use true or false"),
    ],
)
def test_slips_are_one_line(tmp_path, capsys, words, message):
    assert main(["calibrate", *words, f"out={tmp_path}/out"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_another_code_is_refused(tmp_path, capsys):
    circuit = stim.Circuit.generated(
        "repetition_code:memory", distance=3, rounds=3, before_measure_flip_probability=0.01
    )
    circuit.to_file(tmp_path / "line.stim")
    assert main(["calibrate", f"circuit={tmp_path}/line.stim", f"out={tmp_path}/out"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_events_of_another_model_are_refused_by_their_shot(stim_circuit):
    """Where the checks that do not decide the observable have no boundary, a lone event is odd."""
    dem = detector_error_model(stim_circuit(3, 3, "X", 0.01)).flattened()
    other = SpaceTimeLattice.from_dem(dem).sector == OTHER
    joined = stim.DetectorErrorModel()
    for item in dem:
        ends = [t.val for t in item.targets_copy() if t.is_relative_detector_id()]
        if item.type != "error" or other[ends].sum() % 2 == 0:
            joined.append(item)
    events = np.zeros((3, dem.num_detectors), dtype=np.uint8)
    events[1, np.flatnonzero(other)[0]] = 1
    with pytest.raises(QecError, match="shot 1 has an odd number of detection events"):
        measure_stages(joined, np.packbits(events, axis=1, bitorder="little"), checked=3)
