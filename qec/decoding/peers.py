"""Decoders of other packages behind the call of this one's, so that sweeps compare them.

Each gets the form of the error model that suits it best, its own call for a batch of shots, and one
thread.  They come with ``pip install 'qec-predecoder[peers]'``; none is needed for anything else.
"""

from __future__ import annotations

import importlib
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import stim

from qec.circuits.error_model import silent_detectors
from qec.circuits.lattice import SpaceTimeLattice
from qec.decoding.decoder_names import check_decoder_name
from qec.matching.matcher import basis_split, matching_graph, memory_edges
from qec.support.errors import QecError, first_line

Decode = Callable[[np.ndarray], np.ndarray]
"""Of uint8 (B, num_detectors) the flips of observable 0, (B,) of any dtype that holds 0 and 1."""


class Peer:
    """A decoder of another package for one detector error model.

    Args:
        name: one of ``qec.decoding.decoder_names.PEERS``.
        dem: the model, without probabilities above 1/2; its hyperedges may be decomposed.
        lattice: of the model; None for those that take any code.

    Raises:
        QecError: the package is not installed, or refuses the model.
    """

    def __init__(
        self, name: str, dem: stim.DetectorErrorModel, lattice: SpaceTimeLattice | None
    ) -> None:
        check_decoder_name(name)
        if lattice is None and name not in _TESSERACT:
            raise QecError(f"peer={name!r} needs decomposition='css'.")
        self.name = name
        self._silent = silent_detectors(dem)
        try:
            self._decode = _decode_by(name, dem, lattice)
        except (ValueError, RuntimeError) as error:
            raise self._refused("model", error) from error

    def decode_batch(self, detectors: np.ndarray) -> np.ndarray:
        """uint8 (B, num_detectors) -> uint8 (B,), predicted flips of observable 0.

        Raises:
            QecError: the package refuses the shots.  Where no set of mechanisms explains a shot,
                Tesseract predicts no flip.
        """
        if len(self._silent):  # their events mean nothing
            detectors = detectors.copy()
            detectors[:, self._silent] = 0
        try:
            return self._decode(detectors).astype(np.uint8)
        except (ValueError, RuntimeError) as error:
            raise self._refused("shots", error) from error

    def _refused(self, what: str, error: Exception) -> QecError:
        if isinstance(error, QecError):
            return error
        return QecError(f"{self.name} refuses the {what}: {first_line(error)}.")


def _decode_by(name: str, dem: stim.DetectorErrorModel, lattice: SpaceTimeLattice | None) -> Decode:
    if name in _TESSERACT:
        return tesseract(dem, _TESSERACT[name])
    assert lattice is not None  # ``Peer`` has checked it
    return _ON_LATTICES[name](lattice)


_TESSERACT = {
    "tesseract": "tesseract-long-beam",
    "tesseract-short-beam": "tesseract-short-beam",
    "tesseract-short-beam-sparsify": "tesseract-short-beam-sparsify-surface-code-like",
}


def tesseract(dem: stim.DetectorErrorModel, settings: str) -> Decode:
    """Tesseract, a search for the most likely error (Beni, Higgott, Shutty, arXiv:2503.10988).

    It reads hyperedges whole, decomposed or not.  The settings are the package's own:

    - "tesseract-long-beam": the more accurate one of the paper's two: a beam of 20 with beam
      climbing and 21 orders of the detectors;
    - "tesseract-short-beam": the other one, a beam of 15 with 16 orders;
    - "tesseract-short-beam-sparsify-surface-code-like": that, with the hyperedges that a shot
      suggests only, as the package advises for surface codes.
    """
    made = importlib.import_module("tesseract_decoder").make_tesseract_sinter_decoders_dict()
    decoder = made[settings].compile_decoder_for_dem(dem=dem)

    def decode(detectors: np.ndarray) -> np.ndarray:
        packed = _packed(detectors)
        return decoder.decode_shots_bit_packed(bit_packed_detection_event_data=packed)[:, 0]

    return decode


def belief_matching(lattice: SpaceTimeLattice) -> Decode:
    """Belief matching (Higgott et al., Phys. Rev. X 13, 031007), its authors' implementation.

    Belief propagation runs on the hyperedges, 20 iterations of product-sum as the package sets
    it, and matching on the parts that ``basis_split`` makes of them.
    """
    module = importlib.import_module("beliefmatching")
    with warnings.catch_warnings(action="ignore"):  # it calls ldpc by names of its first version
        decoder = module.BeliefMatching(basis_split(lattice))
    return lambda detectors: decoder.decode_batch(detectors)[:, 0]


def fusion_blossom(lattice: SpaceTimeLattice) -> Decode:
    """Uncorrelated matching by fusion-blossom (Wu, Zhong, arXiv:2305.08307), its serial solver.

    It gets the graph of the memory checks, as ``MemoryMatcher``, and shots by its call for batches,
    which reads and writes files.
    """
    solver, flips = fusion_blossom_solver(lattice)
    checks, masks = lattice.memory_detectors, flips.astype(int).tolist()

    def decode(detectors: np.ndarray) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            events, found = Path(folder, "events.b8"), Path(folder, "flips.b8")
            _packed(detectors.take(checks, axis=1)).tofile(events)
            shape = (len(detectors), len(checks), 1)  # shots, detectors, observables
            solver.stim_integration_predict_bit_packed_data(str(events), str(found), masks, *shape)
            return np.fromfile(found, dtype=np.uint8)

    return decode


FUSION_BLOSSOM_STEPS = 2**20
"""Of how many steps its heaviest edge is: fusion-blossom takes integers, even ones."""


def fusion_blossom_solver(lattice: SpaceTimeLattice) -> tuple[Any, np.ndarray]:
    """Its ``SolverSerial`` for the memory checks of a lattice, and which edges flip observable 0.

    Returns:
        The solver, and bool (edges,).
    """
    module = importlib.import_module("fusion_blossom")
    graph = matching_graph(basis_split(lattice), silent=lattice.silent)
    u, v, weight, flips = memory_edges(graph, lattice)
    steps = 2 * np.round(weight * (FUSION_BLOSSOM_STEPS / 2 / weight.max())).astype(np.int64)
    checks, outside = len(lattice.memory_detectors), v < 0
    # A virtual vertex for each edge to the boundary: faster than one for all.
    v = np.where(outside, checks + np.cumsum(outside) - 1, v)
    vertices = checks + int(outside.sum())
    edges = list(zip(u.tolist(), v.tolist(), steps.tolist(), strict=True))
    made = module.SolverInitializer(vertices, edges, list(range(checks, vertices)))
    return module.SolverSerial(made), flips


def stabilizer_matching(lattice: SpaceTimeLattice) -> Decode:
    """Correlated matching by stabilizer-qec, on the model that ``basis_split`` makes.

    The first example of the package's documentation decodes a rotated surface code so.
    """
    module = importlib.import_module("stabilizer_qec")
    decoder = module.Matching(str(basis_split(lattice)), enable_correlations=True)
    return _by_stabilizer(decoder, enable_correlations=True)


def stabilizer_belief_matching(lattice: SpaceTimeLattice) -> Decode:
    """What ``belief_matching`` does, by stabilizer-qec's implementation."""
    module = importlib.import_module("stabilizer_qec")
    return _by_stabilizer(module.BeliefMatching(str(basis_split(lattice))))


def stabilizer_predecoder(lattice: SpaceTimeLattice) -> Decode:
    """stabilizer-qec's pre-decoder with its shipped weights, and matching that it reweights.

    The package trained it on circuits of its own with depolarising noise of p = 0.006, d = 9.
    """
    model = in_stabilizer_frame(lattice)
    return _by_stabilizer(importlib.import_module("stabilizer_qec").PreDecoder.pretrained(model))


def in_stabilizer_frame(lattice: SpaceTimeLattice) -> str:
    """The basis-split model with detectors where stabilizer-qec's own circuits have them.

    Its gate order is Stim's in the canonical frame (``qec.circuits.patch``) turned by 180 degrees.
    """
    places = np.stack([-2 * lattice.col, -2 * lattice.row, lattice.layer], axis=1)
    places -= places.min(axis=0)
    lines = (f"detector({x}, {y}, {t}) D{k}" for k, (x, y, t) in enumerate(places.tolist()))
    return f"{basis_split(lattice)}\n" + "\n".join(lines)


def _by_stabilizer(decoder: Any, **options: bool) -> Decode:
    def decode(detectors: np.ndarray) -> np.ndarray:
        packed = _packed(detectors)
        return decoder.decode_batch(packed, bit_packed_shots=True, threads=1, **options)[:, 0]

    return decode


def _packed(detectors: np.ndarray) -> np.ndarray:
    return np.packbits(detectors, axis=1, bitorder="little")


_ON_LATTICES: dict[str, Callable[[SpaceTimeLattice], Decode]] = {
    "beliefmatching": belief_matching,
    "fusion-blossom": fusion_blossom,
    "stabilizer-qec": stabilizer_matching,
    "stabilizer-qec-beliefmatching": stabilizer_belief_matching,
    "stabilizer-qec-predecoder": stabilizer_predecoder,
}
