"""The error model of a window, on a row of three detectors."""

import numpy as np
import stim

from qec.circuits.patch import MEMORY
from qec.matching.matching_edges import MatchingEdges
from qec.windows.template import Window
from qec.windows.window_error_model import window_model

ROW = MatchingEdges(
    layer=np.array([0, 1, 2]),
    sector=np.full(3, MEMORY),
    probability=np.full(4, 0.1),
    mechanism=np.arange(4),
    ends=np.array([[0, -1], [0, 1], [1, 2], [2, -1]]),
    flips=np.array([True, False, False, False]),
)


def lines(model):
    """The mechanisms of a window's model."""
    return [str(line) for line in stim.DetectorErrorModel(model.text) if line.type == "error"]


def test_the_worked_example():
    done = np.zeros(4, dtype=np.bool_)  # -1, no detector, reads the last entry
    first = window_model(ROW, Window(0, 2, 0, 1), done)
    assert lines(first) == ["error(0.1) D0 L0", "error(0.1) D0 D1 L1", "error(0.1) D1"]
    assert first.seam.tolist() == [1]
    done[0] = True
    second = window_model(ROW, Window(1, 3, 1, 3), done)
    assert second.detectors.tolist() == [1, 2]
    assert lines(second) == ["error(0.1) D0 D1", "error(0.1) D1"]
    assert not second.seam.size


def test_edges_out_of_a_window_can_be_told_or_left_out():
    done = np.zeros(4, dtype=np.bool_)
    told = window_model(ROW, Window(0, 2, 0, 1), done, exits=True)
    assert lines(told)[-1] == "error(0.1) D1 L2"
    assert told.exits.tolist() == [1]
    closed = window_model(ROW, Window(0, 2, 0, 1), done, closed=True)
    assert lines(closed) == lines(told)[:2]
