"""The figures of `qec calibrate`: legends below, a decoder in its colour, intervals where known."""

import numpy as np
import pytest
from matplotlib.colors import same_color

from qec.calibration.confidence_against_errors import Calibration
from qec.calibration.plots import plot_post_selection, plot_reliability
from qec.support.figures import decoder_colors

NAMES = ("pymatching-css", "predecoder[a]+pymatching", "predecoder[b]+pymatching")


@pytest.fixture(scope="module")
def found():
    rng = np.random.default_rng(3)
    nats = rng.uniform(0, 6, 4000)
    wrong = rng.random(4000) < 1 / (1 + np.exp(nats))
    return [Calibration.of(name, wrong, nats, nats) for name in NAMES]


@pytest.mark.parametrize(("plot", "panels"), [(plot_reliability, 2), (plot_post_selection, 1)])
def test_decoders_have_their_colours_and_one_legend(found, monkeypatch, tmp_path, plot, panels):
    figures = []
    monkeypatch.setattr(
        "qec.calibration.plots.save_figure", lambda figure, *_: figures.append(figure)
    )
    plot(found, "d=3 R=3 p=0.01", tmp_path)
    (figure,) = figures
    assert len(figure.axes) == panels
    heads = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
    assert "d=3 R=3 p=0.01, 4,000 shots" in heads
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    for name, color in decoder_colors(NAMES).items():
        (handle,) = (
            handle
            for handle, label in zip(*figure.axes[0].get_legend_handles_labels(), strict=True)
            if label.startswith(name)
        )
        line = handle if plot is plot_post_selection else handle.lines[0]
        assert same_color(line.get_color(), color)
        assert sum(label.startswith(name) for label in labels) == 1
