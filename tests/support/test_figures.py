"""What the figures of all commands share."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from qec.decoding.decoder_names import DECODERS
from qec.support.figures import PALETTE, decoder_colors, legend_below, save_figure

# Machado, Oliveira and Fernandes, IEEE Trans. Vis. Comput. Graph. 15, 1291 (2009), severity 1.
SEEN = {
    "as it is": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def lab(color, seen):
    """CIE L*a*b* of a colour as it is seen."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(seen) @ linear, 0, 1)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = to_xyz @ linear / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("seen", SEEN.values(), ids=SEEN)
def test_colours_stay_apart_for_colour_blind_readers(seen):
    """A distance of 2.3 is just noticeable; thin lines need several times that."""
    for a, b in itertools.combinations(PALETTE, 2):
        assert np.linalg.norm(lab(a, seen) - lab(b, seen)) > 15, (a, b)
    for color in PALETTE:
        assert np.linalg.norm(lab(color, seen) - lab("white", seen)) > 25, color


def test_a_decoder_has_its_colour_in_every_figure():
    few, many = decoder_colors(["pymatching-css"]), decoder_colors(DECODERS)
    assert few["pymatching-css"] == many["pymatching-css"]
    assert set(many) == set(DECODERS)
    assert set(many.values()) == set(PALETTE)


def test_the_networks_of_a_figure_are_told_apart():
    names = ["predecoder[small]+pymatching", "predecoder[standard]+pymatching", "pymatching-css"]
    colors = decoder_colors([*names, *names])
    assert list(colors) == names
    assert len(set(colors.values())) == 3
    assert colors["pymatching-css"] == decoder_colors(["pymatching-css"])["pymatching-css"]


def test_the_legend_lists_a_label_once_and_lies_outside():
    figure = Figure(figsize=(6, 3), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, labels in zip(panels, ("ab", "bc"), strict=True):
        for label in labels:
            axes.plot([0, 1], [0, 1], label=label)
    legend_below(figure, "what is drawn")
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]
    assert legend.get_title().get_text() == "what is drawn"
    frame = legend.get_window_extent()
    assert not any(frame.overlaps(axes.get_tightbbox()) for axes in panels)


def test_files_keep_the_colours(tmp_path):
    """PNG files have 256 colours: those of thin lines are among them."""
    figure = Figure(figsize=(4, 3))
    axes = figure.subplots()
    for k, color in enumerate(PALETTE):
        axes.plot([0, 1], [k, k + 0.5], color=color, linewidth=2)
    png, svg = save_figure(figure, tmp_path, "lines")
    assert (png.name, svg.name) == ("lines.png", "lines.svg")
    with Image.open(png) as image:
        assert image.mode == "P"
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3) / 255
    for color in PALETTE:
        assert np.abs(pixels - to_rgb(color)).max(axis=1).min() < 0.02, color
