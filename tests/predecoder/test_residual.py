"""What committed edges leave, on three detectors."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from qec.predecoder.residual import Residual
from qec.predecoder.threshold import log_odds

GRID = SimpleNamespace(
    lattice=SimpleNamespace(layer=np.zeros(3, dtype=np.int64), num_detectors=3),
    edges=SimpleNamespace(
        ends=np.array([[0, 1], [1, 2], [2, -1]]), flips=np.array([False, False, True])
    ),
    predicted=np.arange(3),
    place=np.arange(3),
    shape=(1, 1, 1),
)


@pytest.mark.parametrize(
    ("told", "left", "flip"),
    [((3, 1, -3), [0, 1, 1], 0), ((3, 3, -3), [0, 0, 0], 0), ((-3, -3, 3), [1, 0, 0], 1)],
)
def test_the_worked_example(told, left, flip):
    residual = Residual(GRID, torch.device("cpu"))
    events = torch.tensor([[1, 0, 1]], dtype=torch.uint8)
    edges = torch.tensor([told], dtype=torch.float32)
    cut = log_odds(0.9)
    assert cut == pytest.approx(np.log(9))
    for found in (
        residual(events, edges.view(1, 3, 1, 1, 1), cut),
        residual.by_tensors(events, edges, cut),
    ):
        assert found[0].tolist() == [left]
        assert found[1].tolist() == [flip]
