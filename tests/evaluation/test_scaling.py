"""Error suppression and thresholds of sweeps, on rates with known ones."""

import dataclasses

import numpy as np
import pytest

from qec.evaluation.plots import plot_ler
from qec.evaluation.scaling import fit_threshold, print_scalings, scalings
from qec.evaluation.sweep_table import SweepRow

P_TH, NU = 0.008, 1.3
STRENGTHS = (0.0065, 0.007, 0.0075, 0.008, 0.0085, 0.009, 0.0095)


def row(d, p, errors, shots, *, r=None, decoder="a"):
    metadata = {"d": d, "r": r or d, "p": p, "b": "X", "noise": "uniform", "o": "ZV"}
    return SweepRow(
        task_id=str(metadata), metadata=metadata, decoder=decoder, baseline="a", shots=shots,
        errors=int(errors), baseline_errors=0, both_errors=0, predecode_ns=0, match_ns=1, events=1,
        events_left=1, fallbacks=0,
    )  # fmt: skip


def critical(d, p):
    """An error rate per shot that scales with the distance around P_TH."""
    x = (p - P_TH) * d ** (1 / NU)
    return 0.1 + 12 * x + 400 * x**2


def crossing(shots, rng=None, distances=(3, 5, 7), strengths=STRENGTHS):
    """Rows with errors as expected, or drawn."""
    draw = round if rng is None else lambda mean: rng.binomial(shots, mean / shots)
    return [row(d, p, draw(shots * critical(d, p)), shots) for d in distances for p in strengths]


def exponential(shots, suppression, distances=(3, 5, 7), **kind):
    """Rows whose error rates per round fall by a factor for every two in distance."""
    rows = []
    for d in distances:
        for k, p in enumerate((0.002, 0.003, 0.004)):
            per_round = 0.003 * (k + 1) * suppression ** (-(d - 3) / 2)
            r = kind.get("r", d)
            rows.append(row(d, p, round(shots * (1 - (1 - 2 * per_round) ** r) / 2), shots, **kind))
    return rows


def test_the_threshold_of_expected_counts_is_found():
    found = fit_threshold(crossing(10**7))
    assert found.p.value == pytest.approx(P_TH, rel=1e-4)
    assert found.nu == pytest.approx(NU, rel=0.01)
    assert found.strengths == (STRENGTHS[0], STRENGTHS[-1])
    assert found.freedom == 3 * 7 - 5
    assert found.chi_square < 0.1


def test_the_interval_of_the_threshold_holds_it():
    """Of 100 intervals of 95 %, 79 or fewer hold it with a probability below 1e-7."""
    rng = np.random.default_rng(1)
    found = [fit_threshold(crossing(20_000, rng)) for _ in range(100)]
    held = [one for one in found if one is not None and one.p.low <= P_TH <= one.p.high]
    assert len(held) > 79
    assert np.median([one.p.relative_half_width for one in held]) < 0.02  # and says something


def test_points_far_from_the_threshold_are_left_out():
    """Rates that the quadratic does not describe do not move the crossing."""
    far = [row(d, 0.002, 10**6 * 0.4 / d, 10**6) for d in (3, 5, 7)]
    found = fit_threshold([*far, *crossing(10**6)])
    assert found.strengths[0] == STRENGTHS[0]
    assert found.p.low < P_TH < found.p.high


def test_no_threshold_where_lines_do_not_cross():
    assert fit_threshold(exponential(10**6, 2.0)) is None
    assert fit_threshold(crossing(10**6, strengths=STRENGTHS[:3])) is None


@pytest.mark.parametrize("distances", [(3, 5, 7), (5, 9)])
def test_the_suppression_is_that_of_two_in_distance(distances):
    (found,) = scalings(exponential(10**9, 2.5, distances))
    for by_p in found.suppression.values():
        assert list(by_p) == [0.002, 0.003, 0.004]
        for estimate in by_p.values():
            assert estimate.value == pytest.approx(2.5, rel=1e-4)
            assert estimate.low < 2.5 < estimate.high


def test_rounds_that_do_not_grow_give_a_suppression_alone():
    (found,) = scalings(exponential(10**8, 2.0, r=10))
    assert found.threshold is None
    assert found.title.endswith("R = 10")
    assert found.suppression[3, 5][0.002].value == pytest.approx(2, rel=1e-3)


def test_nothing_is_said_of_few_points():
    rows = crossing(1000)
    assert scalings([one for one in rows if one.metadata["d"] == 3]) == []
    assert scalings([one for one in rows if one.metadata["p"] < 0.0075]) == []
    file = [
        dataclasses.replace(one, metadata={**one.metadata, "circuit": "x.stim"}) for one in rows
    ]
    for one in file:
        del one.metadata["p"]
    assert scalings(file) == []


def test_the_table_fits_a_terminal(capsys):
    longest = "predecoder+matching-cascade-ensemble"
    rows = [dataclasses.replace(one, decoder=longest) for one in crossing(10**5)]
    print_scalings(scalings(rows))
    text = capsys.readouterr().out
    assert "0.800 (0.79" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "basis X, uniform noise, ZV, R = d" in text


def drawn(monkeypatch, rows, folder):
    figures = []
    monkeypatch.setattr(
        "qec.evaluation.plots.save_figure", lambda figure, *_: figures.append(figure)
    )
    plot_ler(rows, scalings(rows), folder)
    (figure,) = figures
    return figure


def test_the_figure_shows_rates_suppression_and_thresholds(monkeypatch, tmp_path):
    figure = drawn(monkeypatch, crossing(10**5), tmp_path)
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "logical error rate per shot",
        "error suppression \N{GREEK CAPITAL LETTER LAMDA}",
        "threshold",
    ]
    assert not any(axes.get_legend() for axes in figure.axes)
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[:4] == ["a", "d = 3", "d = 5", "d = 7"]
    (note,) = figure.axes[2].texts
    assert note.get_text().startswith("0.80 %")


def test_the_figure_of_one_strength_is_over_the_distance(monkeypatch, tmp_path):
    rows = [one for one in crossing(1000) if one.metadata["p"] == 0.008]
    (axes,) = drawn(monkeypatch, rows, tmp_path).axes
    assert axes.get_xlabel() == "code distance d"
    assert axes.get_ylabel() == "logical error rate per round"
