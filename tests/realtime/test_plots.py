"""The figures of `qec realtime`, of runs that never were."""

import types

import numpy as np
import pytest
from matplotlib.colors import same_color

from qec.realtime.plots import plot_backlog, plot_latency, plot_load
from qec.support.figures import decoder_colors

NAMES = ("pymatching-css", "matching-cascade")


def run(decoder, period_us, latency, *, deadline_us=None):
    return types.SimpleNamespace(
        decoder=decoder,
        period_us=period_us,
        deadline_us=deadline_us,
        commit=5,
        decided=50,
        stable=period_us > 2,
        latencies_us=latency * np.arange(1.0, 51),
        latency_us={"all": [25.0 * latency, 45.0 * latency, 49.0 * latency]},
        backlog=np.stack([np.linspace(0.1, 1, 50), np.full(50, latency)], axis=1),
    )


RUNS = [run(name, period, k + 1) for k, name in enumerate(NAMES) for period in (0, 2, 4, 8)]


@pytest.fixture
def figures(monkeypatch):
    found = []
    monkeypatch.setattr("qec.realtime.plots.save_figure", lambda figure, *_: found.append(figure))
    return found


@pytest.mark.parametrize(("plot", "panels"), [(plot_latency, 4), (plot_backlog, 3)])
def test_panels_of_a_period_share_frames_and_colours(figures, tmp_path, plot, panels):
    plot(RUNS, tmp_path, "d = 5")
    (figure,) = figures
    shown = [axes for axes in figure.axes if axes.axison]
    assert len(shown) == panels
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in shown}) == 1
    for axes in shown:
        handles, labels = axes.get_legend_handles_labels()
        assert tuple(labels) == NAMES
        for name, handle in zip(labels, handles, strict=True):
            assert same_color(handle.get_color(), decoder_colors(NAMES)[name])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(NAMES)
    assert figure.get_suptitle() == "d = 5"


def test_the_load_says_who_keeps_up(figures, tmp_path):
    plot_load(RUNS, tmp_path, "d = 5")
    (axes,) = figures[0].axes
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert {tuple(line.get_xdata()) for line in hollow} == {(2,), ()}  # and the legend's
    labels = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert labels[:2] == list(NAMES)
    assert "falls behind" in labels


@pytest.mark.parametrize("plot", [plot_latency, plot_backlog, plot_load])
def test_runs_that_say_nothing_are_drawn(tmp_path, plot):
    """All rounds at once, and nothing decided."""
    empty = run(NAMES[0], 0, 1)
    empty.decided, empty.latencies_us, empty.backlog = 0, np.zeros(0), np.zeros((0, 2))
    assert all(path.stat().st_size > 1000 for path in plot([empty], tmp_path, "d = 5"))
