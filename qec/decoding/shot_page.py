"""The page of `qec draw`: a shot in space-time that can be turned, its steps switched on and off.

Plotly draws it.  Its program is part of the page, so that it opens without a network connection.
"""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np

from qec.decoding.drawn_shot import DrawnShot
from qec.decoding.shot_figures import (
    COMMITTED_COLOUR,
    ERROR_COLOUR,
    LOGICAL_COLOUR,
    MATCHED_COLOUR,
    MEMORY_COLOUR,
    OTHER_COLOUR,
    QUIET_COLOUR,
)
from qec.support.files import atomic_path


def write_page(shot: DrawnShot, folder: Path) -> Path:
    """Writes shot.html.

    Raises:
        ModuleNotFoundError: Plotly is not installed, an optional package.
        QecError: the folder cannot be written to.
    """
    import plotly.graph_objects

    traces = [plotly.graph_objects.Scatter3d(**trace) for trace in _traces(shot)]
    figure = plotly.graph_objects.Figure(traces, _layout(shot))
    path = folder / "shot.html"
    with atomic_path(path) as temporary:
        figure.write_html(
            temporary, include_plotlyjs=True, div_id="shot", config={"displaylogo": False}
        )
    return path


def _traces(shot: DrawnShot) -> list[dict]:
    """Arguments of ``plotly.graph_objects.Scatter3d``, one for each entry of the legend."""
    fired = shot.events > 0
    left = shot.residual > 0
    quiet = {"size": 2.5, "color": QUIET_COLOUR}
    traces = [
        _sheets(shot),
        _observable(shot),
        _marks(shot, shot.memory, "detectors of memory checks", quiet),
        _marks(shot, shot.other, "detectors of other checks", quiet | {"symbol": "diamond"}),
    ]
    if shot.errors is not None:
        line = {"color": ERROR_COLOUR, "width": 14}
        # Half transparent: what lies in it is seen from all sides.
        traces.append(_lines(shot, shot.errors, "errors that happened", line) | {"opacity": 0.5})
    memory, other = {"size": 6, "color": MEMORY_COLOUR}, {"size": 5, "color": OTHER_COLOUR}
    outlined = {"line": {"color": "black", "width": 1}}
    traces += [
        _marks(shot, shot.memory & fired, "events of memory checks", memory | outlined),
        _marks(
            shot,
            shot.other & fired,
            "events of other checks",
            other | outlined | {"symbol": "diamond"},
        ),
        _lines(
            shot,
            shot.committed,
            "edges committed by the network",
            {"color": COMMITTED_COLOUR, "width": 7},
        ),
        _marks(
            shot,
            shot.memory & left,
            "residual events",
            {"size": 11, "color": "black", "symbol": "circle-open"},
        ),
        _lines(
            shot,
            shot.matched,
            "edges of matching",
            {"color": MATCHED_COLOUR, "width": 7, "dash": "longdash"},
        ),
    ]
    return traces


def _marks(shot: DrawnShot, which: np.ndarray, name: str, marker: dict) -> dict:
    x, y, t = shot.places[which].T.tolist()
    return {
        "x": x,
        "y": y,
        "z": t,
        "mode": "markers",
        "name": f"{name} ({len(x)})",
        "marker": marker,
        "text": [f"D{k}" for k in np.flatnonzero(which)],
        "hovertemplate": "%{text}: x = %{x:g}, y = %{y:g}, layer %{z}<extra></extra>",
    }


def _lines(shot: DrawnShot, edges: np.ndarray, name: str, line: dict) -> dict:
    return _path(shot.segments(edges), f"{name} ({len(edges)})", line)


def _path(pieces: np.ndarray, name: str, line: dict) -> dict:
    """Lines through places, float64 (k, points, 3), with a gap after each of the k."""
    gaps = np.full((len(pieces), 1, 3), np.nan)
    x, y, t = np.concatenate([pieces, gaps], axis=1).reshape(-1, 3).T
    columns = {
        key: [None if np.isnan(v) else v for v in column.tolist()]
        for key, column in zip("xyz", (x, y, t), strict=True)
    }
    return {**columns, "mode": "lines", "name": name, "line": line, "hoverinfo": "skip"}


def _sheets(shot: DrawnShot) -> dict:
    """The outline of the patch in every layer."""
    rows, cols = shot.lattice.shape
    corners = np.array([0, 0, rows, rows, 0]), np.array([0, cols, cols, 0, 0])
    layers = range(shot.lattice.rounds + 1)
    outlines = np.array([shot.at(*corners, layer) for layer in layers])
    return _path(outlines, "layers", {"color": "#dddddd", "width": 2})


def _observable(shot: DrawnShot) -> dict:
    """The data qubits of the observable in the first layer."""
    support = np.argwhere(shot.lattice.logical_support) + 0.5
    line = shot.at(support[:, 0], support[:, 1], 0)
    return _path(line[None], "logical observable", {"color": LOGICAL_COLOUR, "width": 6})


def _layout(shot: DrawnShot) -> dict:
    lattice = shot.lattice
    heads = (
        f"{lattice}, R = {lattice.rounds}, {shot.title}",
        f"{shot.steps}; observable {', '.join(filter(None, shot.verdict))}",
    )
    rows, cols = lattice.shape
    widest = max(rows, cols)
    return {
        "title": {"text": "<br>".join(html.escape(head) for head in heads), "font": {"size": 15}},
        "template": "plotly_white",
        "font": {"size": 13},
        "margin": {"l": 0, "r": 0, "b": 0, "t": 70},
        "legend": {"itemsizing": "constant", "title": {"text": "click to hide or show"}},
        "scene": {
            "xaxis": {"title": {"text": "x"}},
            "yaxis": {"title": {"text": "y"}},
            "zaxis": {"title": {"text": "layer"}, "dtick": max(1, lattice.rounds // 10)},
            "aspectmode": "manual",
            "aspectratio": {"x": 1, "y": 1, "z": min(max(lattice.rounds / widest, 0.5), 3) * 1.2},
            "camera": {
                "eye": {"x": 1.4, "y": -1.7, "z": 0.7},
                "projection": {"type": "orthographic"},
            },
        },
    }
