"""`qec draw`: what is drawn is what the decoder does, and the files open."""

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree

import numpy as np
import pytest
import stim
from hypothesis import given, settings
from hypothesis import strategies as st

from qec.circuits.lattice import SpaceTimeLattice, detector_error_model
from qec.cli.commands import main
from qec.decoding.decoder import named_decoder
from qec.decoding.draw_shot import DRAWN, sampled_shot
from qec.decoding.drawn_shot import DrawnShot, edge_count, odd_edges
from qec.matching.memory_edges import MemoryEdges

FILES = ["pipeline.png", "pipeline.svg", "shot.html", "shot.png", "shot.svg"]


@pytest.fixture(scope="module")
def drawn(stim_circuit, our_circuit):
    """(kind of circuit, decoder, seed) -> a sampled shot with 6 events or more, as drawn."""
    circuits = {
        "stim": stim_circuit(5, 4, "Z", 0.008),
        "ours": our_circuit(3, 5, "X", 0.01, "XH"),
        "turned": turned(stim_circuit(3, 3, "X", 0.01)),
    }
    made = {}

    def make(kind, name, seed):
        if (kind, name) not in made:
            dem = detector_error_model(circuits[kind])
            lattice = SpaceTimeLattice.from_dem(dem)
            made[kind, name] = lattice, named_decoder(name, dem, predecoder="standard")
        lattice, decoder = made[kind, name]
        shot = sampled_shot(lattice, seed, number=0, least=6)
        parts = shot.events, shot.errors, shot.truth, shot.name
        return circuits[kind], decoder, DrawnShot.of(decoder, name, "standard", lattice, *parts)

    return make


def turned(circuit):
    """Its coordinates in a frame like that of Google's devices, at 45 degrees."""

    def turn(match):
        x, y, t = (float(part) for part in match[1].split(","))
        return f"DETECTOR({(x + y) / 2:g}, {(y - x) / 2:g}, {t:g})"

    return stim.Circuit(re.sub(r"DETECTOR\(([^)]*)\)", turn, str(circuit.flattened())))


def ends(edges, detectors):
    """uint8 (detectors,), the parity with which edges end on each."""
    flat = edges[edges >= 0]
    return (np.bincount(flat, minlength=detectors) % 2).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stim", "ours"])
@pytest.mark.parametrize("name", ["predecoder+matching-cascade", "matching-cascade"])
@settings(max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_edges_explain_the_events_they_stand_between(drawn, kind, name, seed):
    _, decoder, shot = drawn(kind, name, seed)
    n, memory = len(shot.events), shot.memory
    assert (ends(shot.errors, n) == shot.events).all()
    assert (shot.events ^ ends(shot.committed, n) == shot.residual).all()
    assert (ends(shot.matched, n)[memory] == shot.residual[memory]).all()
    assert memory[shot.committed[shot.committed >= 0]].all()
    assert memory[shot.matched[shot.matched >= 0]].all()
    assert shot.prediction == decoder.decode_batch(shot.events[None])[0, 0]
    if not shot.handed_on:
        edges = MemoryEdges.of(shot.lattice)
        flips = {
            frozenset(pair): flip
            for pair, flip in zip(edges.ends.tolist(), edges.flips, strict=True)
        }
        solution = [*shot.committed.tolist(), *shot.matched.tolist()]
        assert sum(flips[frozenset(pair)] for pair in solution) % 2 == shot.prediction


@pytest.mark.slow
def test_the_network_commits_edges_and_leaves_fewer_events(drawn):
    """In 20 shots together: not in each."""
    name = "predecoder+pymatching"
    shots = [drawn("stim", name, seed)[2] for seed in range(20)]
    assert sum(len(shot.committed) for shot in shots) > 20
    assert sum(int(shot.residual.sum()) for shot in shots) < sum(
        int(shot.events.sum()) for shot in shots
    )


@pytest.mark.parametrize("kind", ["stim", "ours", "turned"])
def test_detectors_are_drawn_where_the_circuit_says(drawn, kind):
    circuit, _, shot = drawn(kind, "matching-cascade", 1)
    found = circuit.get_detector_coordinates()
    where = np.array([found[k] for k in range(len(found))])
    np.testing.assert_allclose(shot.places[:, :2], where[:, :2], atol=1e-9)
    later = np.subtract.outer(where[:, 2], where[:, 2]) > 0
    layers = np.subtract.outer(shot.places[:, 2], shot.places[:, 2])
    assert (layers[later] > 0).all()


@pytest.mark.parametrize("kind", ["stim", "ours"])
def test_lines_join_the_ends_of_their_edges_or_leave_the_patch(drawn, kind):
    shot = drawn(kind, "matching-cascade", 2)[2]
    edges = MemoryEdges.of(shot.lattice).ends
    lines = shot.segments(edges)
    inner = edges[:, 1] >= 0
    np.testing.assert_array_equal(lines[:, 0], shot.places[edges[:, 0]])
    np.testing.assert_array_equal(lines[inner, 1], shot.places[edges[inner, 1]])
    turned = shot.segments(edges[:, ::-1])  # Stim, PyMatching and the network order them otherwise
    np.testing.assert_array_equal(turned[~inner], lines[~inner])
    middle = shot.lattice.shape[1]  # in units of half a site, as Stim's coordinates are
    for near, far in lines[~inner]:
        along = np.flatnonzero(~np.isclose(near, far))
        assert along.tolist() in ([0], [1])
        assert middle - 1 < abs(far[along[0]] - middle) < middle  # beyond the data qubits


def test_edges_that_happen_twice_cancel():
    edges = np.array([[0, 1], [2, -1], [1, 0], [-1, 2], [3, -1], [2, -1]])
    assert odd_edges(edges).tolist() == [[-1, 2], [-1, 3]]
    assert edge_count(edges[:1]) == "1 edge"


# The command -------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path, monkeypatch, stim_circuit):
    """A circuit and 20 recorded shots of it in the working folder; returns events and flips."""
    monkeypatch.chdir(tmp_path)
    circuit = stim_circuit(3, 3, "X", 0.01)
    circuit.to_file("memory.stim")
    text = re.sub(r"DETECTOR\([^)]*\)", "DETECTOR", str(circuit.flattened()))
    (tmp_path / "nowhere.stim").write_text(text)
    dem = re.sub(r"error\(\S+\)", "error(0.7)", str(detector_error_model(circuit)), count=1)
    (tmp_path / "likely.dem").write_text(dem)
    events, flips = circuit.compile_detector_sampler(seed=5).sample(20, separate_observables=True)
    for name, bits in (("events.01", events), ("flips.01", flips)):
        stim.write_shot_data_file(data=bits, path=name, format="01", num_detectors=bits.shape[1])
    return events, flips


def numbers(text):
    return [int(n) for n in re.findall(r"\d+", text)]


@pytest.mark.slow
def test_a_sampled_shot_is_drawn_in_all_formats(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["draw", "distance=3", "p=0.02", "basis=Z", "seed=7"]
    assert main([*words, "events=12", "out=a"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == FILES
    for name in ("shot.svg", "pipeline.svg"):
        xml.etree.ElementTree.parse(tmp_path / "a" / name)
    assert told[0].startswith("p = 0.02, uniform noise, basis Z; seed 7, shot ")
    memory, other = numbers(told[1])[:2]
    assert memory + other >= 12
    # The same shot by its number, counted without regard to its events.
    number = re.search(r"shot (\d+)", told[0])[1]
    assert main([*words, f"shot={number}", "out=b"]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == told[:3]
    page = (tmp_path / "a/shot.html").read_text()
    assert page == (tmp_path / "b/shot.html").read_text()


@pytest.mark.slow
def test_recorded_shots_are_drawn_by_their_number(data, capsys):
    events, flips = data
    base = ["draw", "circuit=memory.stim", "dets=events.01", "decoder=matching-cascade"]
    for k in (0, 19):
        assert main([*base, f"shot={k}", "obs=flips.01", "out=out"]) == 0
        told = capsys.readouterr().out.splitlines()
        assert told[0].startswith(f"memory.stim; events.01, shot {k}; no network")
        assert sum(numbers(told[1])[:2]) == events[k].sum()
        assert f"truth: {'flip' if flips[k, 0] else 'no flip'}, " in told[2]
    assert main([*base, "shot=0", "events=4", "out=out"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert f"events.01, shot {np.argmax(events.sum(axis=1) >= 4)};" in told[0]
    assert "truth: not known" in told[2]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a shot."""
    out = tmp_path_factory.mktemp("page")
    words = ["distance=3", "p=0.02", "events=10", "decoder=predecoder+pymatching"]
    assert main(["draw", *words, f"out={out}"]) == 0
    return out / "shot.html"


@pytest.mark.slow
def test_the_page_is_self_contained_and_has_an_entry_for_each_step(page):
    text = page.read_text()
    tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", text.split("</script>")[-1])
    tags += re.findall(r"<script\b[^>]*>", text)
    assert tags
    assert not [tag for tag in tags if "src=" in tag or "href=" in tag]
    names = [trace["name"].partition(" (")[0] for trace in traces_of(text)]
    assert names == [
        *("layers", "logical observable"),
        *("detectors of memory checks", "detectors of other checks", "errors that happened"),
        *("events of memory checks", "events of other checks"),
        *("edges committed by the network", "residual events", "edges of matching"),
    ]


@pytest.mark.slow
def test_the_page_shows_what_it_counts(page):
    for trace in traces_of(page.read_text()):
        count = numbers(trace["name"])
        if trace["mode"] == "markers":
            assert count == [len(trace["x"])]
        elif count:
            assert len(trace["x"]) == 3 * count[0]  # two ends and a gap


def traces_of(text):
    """The traces that a page hands to Plotly."""
    start = text.index("[", text.rindex("Plotly.newPlot("))
    return json.JSONDecoder().raw_decode(text, start)[0]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs the browser chromium")
def test_the_page_opens_in_a_browser_without_errors(page, tmp_path):
    options = ["--headless", "--no-sandbox", "--enable-unsafe-swiftshader", "--dump-dom"]
    options += [f"--user-data-dir={tmp_path}", "--virtual-time-budget=9000"]
    options += ["--enable-logging=stderr", "--log-level=0"]
    done = subprocess.run(
        ["chromium", *options, page.as_uri()], capture_output=True, text=True, timeout=300
    )
    entries = [trace for trace in traces_of(page.read_text()) if trace["x"]]
    assert done.stdout.count('class="legendtext"') == len(entries) > 5
    assert "<canvas" in done.stdout
    for line in done.stderr.splitlines():
        assert not re.search(r"CONSOLE.*(Uncaught|Error)", line), line


@pytest.mark.slow
def test_without_plotly_the_figures_are_written_and_the_page_is_not(data, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "plotly", None)
    words = ["circuit=memory.stim", "decoder=pymatching-memory-css", "out=out"]
    assert main(["draw", *words]) == 0
    told = capsys.readouterr().out
    assert (
        "shot.html is left out: plotly is not installed: pip install 'qec-predecoder[draw]'" in told
    )
    assert "files in out: shot.png shot.svg" in told
    assert "out/shot.html" not in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shot=20", "dets=events.01"], "shot=20: events.01 holds 20 shots, counted from 0"),
        (["shot=-1"], "shot=-1 is not supported: use an integer >= 0"),
        (["events=many"], "events='many' is not supported: use a number"),
        (["events=24"], "seed=1 gives 65536 shots, 0 of them with 24 events or more"),
        (["events=24", "dets=events.01"], "events.01 holds 20 shots, 0 of them with 24 events"),
        (["dets=flips.01"], "does not hold 24 bits per shot"),
        (["circuit=null", "dets=events.01"], "dets needs circuit=FILE"),
        (["circuit=nowhere.stim"], "24 of 24 detectors have no (x, y, t) coordinates"),
        (["circuit=likely.dem"], "a mechanism of the model happens in half of the shots or more"),
        (["circuit=missing.stim"], "there is no file missing.stim"),
        (["circuit=null", "distance=3,5"], "that is 2 experiments"),
        (["circuit=null", "rounds=100000"], "a picture of"),
        (["decoder=pymatching"], "decoder=pymatching has no steps to draw: use one of"),
        (["decoder=predecoder+pymatching", "predecoder=null"], "no pre-decoder checkpoint 'None'"),
        (["out=null"], "out is empty: give out=PATH"),
        (["out=memory.stim/x"], "cannot write to the folder memory.stim"),
    ],
)
def test_bad_input_is_answered_in_one_line(data, tmp_path, capsys, words, message):
    before = sorted(path.name for path in tmp_path.iterdir())
    base = ["draw", "circuit=memory.stim", "decoder=pymatching-memory-css", "out=out"]
    assert main([*base, *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("qec: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_decoders_that_can_be_drawn_are_those_that_begin_with_memory_checks():
    assert "pymatching-memory-css" in DRAWN
    assert {"pymatching", "pymatching-css", "belief-matching", "tesseract"}.isdisjoint(DRAWN)
