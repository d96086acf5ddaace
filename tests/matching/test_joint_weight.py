"""What corrections weigh in both bases together, on three detectors."""

from types import SimpleNamespace

import numpy as np
import pytest

from qec.circuits.patch import MEMORY, OTHER
from qec.matching.joint_weight import EdgeModel
from qec.matching.matching_edges import MatchingEdges
from qec.matching.matching_synthesis import combine


def test_the_worked_example(monkeypatch):
    """An X error flips a and b, a Z error c, a Y error all three."""
    pieces = MatchingEdges(
        layer=np.zeros(3, dtype=np.int64),
        sector=np.array([MEMORY, MEMORY, OTHER]),
        probability=np.full(3, 0.01),
        mechanism=np.array([0, 1, 2, 2]),
        ends=np.array([[0, 1], [2, -1], [0, 1], [2, -1]]),
        flips=np.zeros(4, dtype=np.bool_),
    )
    monkeypatch.setattr(MatchingEdges, "of", lambda _: pieces)
    model = EdgeModel(SimpleNamespace(num_detectors=3))
    assert model.ends.tolist() == [[0, 1], [2, 3]]
    one = np.log(0.99 / 0.01)
    assert model.weights.alone == pytest.approx([one, one])
    assert model.weights.saved == pytest.approx([one, one])
    corrections = np.array([[[True, True]], [[True, False]]])
    for correction, weight in zip(corrections, (one, one), strict=True):
        assert combine(model, correction[None]).weight[0] == pytest.approx(weight)
