"""What is known of an experiment's errors before looking at data: mechanisms, and a first guess."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import stim
from scipy.sparse import csr_array

from qec.circuits.error_model import Mechanisms
from qec.circuits.lattice import detector_error_model
from qec.noise_learning.faults import CircuitFaults, Faults, symptom_words
from qec.noise_learning.mechanism_classes import faults_by_shape
from qec.support.errors import QecError


@dataclasses.dataclass(frozen=True, eq=False)
class ErrorStructure:
    """Error mechanisms, and the model that their rates are written back to.

    A mechanism is a set of detectors: what flips the same detectors is the same to detection
    events, whatever it does to the observable, and keeps its share of the mechanism.  Rates are
    kept as x = -ln(1 - 2 p), in which independent causes add up.  Mechanisms are in a canonical
    order, by size and then by detectors, the same for every model with the same mechanisms.

    Attributes:
        model: the flattened model that the structure came from or was derived to.
        sets: int64 sparse (m, num_detectors), 1 for the detectors that each mechanism flips.
        x: float64 (m,), the mechanisms' rates in the model.
        line_mechanism: int64 (lines,), the mechanism of each ``error`` line of the model; -1 for
            one that no detector sees.
        line_share: float64 (lines,), the line's part of its mechanism's x.
        faults: what adds up to the mechanisms: the faults of a circuit; for a model, which knows
            none, each mechanism is its own, of the parameter of its shape.
    """

    model: stim.DetectorErrorModel
    sets: csr_array
    x: np.ndarray
    line_mechanism: np.ndarray
    line_share: np.ndarray
    faults: Faults

    @classmethod
    def of(
        cls, structure: ErrorStructure | stim.Circuit | stim.DetectorErrorModel
    ) -> ErrorStructure:
        """The structure of a circuit (with its faults) or of a detector error model (without).

        Raises:
            QecError: no mechanism, a rate of 1/2 or more, or as ``CircuitFaults.of``.
        """
        if isinstance(structure, ErrorStructure):
            return structure
        if isinstance(structure, stim.DetectorErrorModel):
            return cls._of_model(structure)
        if isinstance(structure, stim.Circuit):
            found = cls._of_model(detector_error_model(structure))
            return dataclasses.replace(found, faults=_faults_of(structure, found))
        raise QecError(f"structure is a {type(structure).__name__}: give a stim circuit or model.")

    @classmethod
    def _of_model(cls, dem: stim.DetectorErrorModel) -> ErrorStructure:
        flat = dem.flattened()
        table = Mechanisms.from_dem(flat)
        lines = len(table.probability)
        if not len(table.detector):
            raise QecError("the detector error model has no mechanism that a detector sees.")
        if (table.probability >= 0.5).any():
            raise QecError("the detector error model has rates of 1/2 or more: lower them.")
        ones = np.ones(len(table.detector), dtype=np.int64)
        shape = (lines, table.num_detectors)
        by_line = csr_array((ones, (table.mechanism, table.detector)), shape=shape)
        hashes = _hashes(by_line)
        seen = np.bincount(table.mechanism, minlength=lines) > 0
        _, first, which = np.unique(hashes[seen], axis=0, return_index=True, return_inverse=True)
        sets = by_line[np.flatnonzero(seen)[first]]
        order = _lexical_order(sets)
        mechanism = np.full(lines, -1)
        mechanism[seen] = np.argsort(order)[which.ravel()]
        x_line = -np.log1p(-2 * table.probability)
        x = np.bincount(mechanism[seen], x_line[seen], minlength=len(first))
        number = np.bincount(mechanism[seen])
        owner = np.maximum(mechanism, 0)
        total = x[owner]
        share = np.where(total > 0, x_line / np.where(total > 0, total, 1), 1 / number[owner])
        sets = sets[order]
        faults = faults_by_shape(sets, x, detector_coordinates(flat))
        return cls(flat, sets, x, mechanism, share, faults)

    @property
    def num_mechanisms(self) -> int:
        """How many mechanisms there are, m."""
        return len(self.x)

    @property
    def num_detectors(self) -> int:
        """How many detectors there are, n."""
        return self.sets.shape[1]

    @functools.cached_property
    def size(self) -> np.ndarray:
        """int64 (m,), detectors that each mechanism flips."""
        return np.diff(self.sets.indptr)

    def has_mechanisms_of(self, other: ErrorStructure) -> bool:
        """Whether both have the same mechanisms."""
        return self.sets.shape == other.sets.shape and not (self.sets != other.sets).nnz

    def members(self, mechanism: int) -> list[int]:
        """The detectors of one mechanism, ascending."""
        start, end = self.sets.indptr[mechanism : mechanism + 2]
        return sorted(self.sets.indices[start:end].tolist())

    def to_dem(self, x: np.ndarray) -> stim.DetectorErrorModel:
        """The model with other rates: same lines in the same order, same decomposition.

        Args:
            x: float64 (m,), finite and not negative.

        Raises:
            QecError: as the rates should never be.
        """
        if x.shape != self.x.shape or not np.isfinite(x).all() or (x < 0).any():
            raise QecError("learned rates must be finite and non-negative, one per mechanism.")
        line_x = x[np.maximum(self.line_mechanism, 0)] * self.line_share
        probability = -np.expm1(-line_x) / 2
        learned, k = stim.DetectorErrorModel(), 0
        for instruction in self.model:
            if instruction.type != "error":
                learned.append(instruction)
                continue
            if self.line_mechanism[k] >= 0:
                targets = instruction.targets_copy()
                learned.append("error", [float(probability[k])], targets, tag=instruction.tag)
            else:
                learned.append(instruction)
            k += 1
        return learned


def _lexical_order(sets: csr_array) -> np.ndarray:
    """Rows by number of detectors, then by their detectors in ascending order."""
    sets.sort_indices()
    size = np.diff(sets.indptr)
    padded = np.full((len(size), size.max()), -1)
    padded[np.arange(size.max()) < size[:, None]] = sets.indices
    return np.lexsort([*padded.T[::-1], size])


def detector_coordinates(model: stim.DetectorErrorModel) -> np.ndarray | None:
    """float64 (num_detectors, 3), x, y and t; None where a detector lacks one."""
    found = model.get_detector_coordinates()
    if any(len(found.get(k, ())) < 3 for k in range(model.num_detectors)):
        return None
    return np.array([found[k][:3] for k in range(model.num_detectors)])


def _hashes(sets: csr_array) -> np.ndarray:
    """uint64 (m, 2): equal for equal sets, and different for others but for 2^-128."""
    words = symptom_words(sets.shape[1])
    hashes = np.zeros((sets.shape[0], 2), dtype=np.uint64)
    row = np.repeat(np.arange(sets.shape[0]), np.diff(sets.indptr))
    np.bitwise_xor.at(hashes, row, words[sets.indices])
    return hashes


def _faults_of(circuit: stim.Circuit, structure: ErrorStructure) -> Faults:
    """The circuit's faults, each pointing to its mechanism of the structure.

    Faults of rate zero whose symptom the model lacks are dropped, and those that no detector sees.
    """
    found = CircuitFaults.of(circuit)
    place = {tuple(h): k for k, h in enumerate(_hashes(structure.sets).tolist())}
    mechanism = np.array([place.get(tuple(h), -1) for h in _hashes(found.sets).tolist()])
    mechanism = mechanism[found.faults.mechanism]
    kept = mechanism >= 0
    fields = ("x", "parameter", "location", "site")
    return dataclasses.replace(
        found.faults,
        mechanism=mechanism[kept],
        **{name: getattr(found.faults, name)[kept] for name in fields},
    )
