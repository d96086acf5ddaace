"""The pipeline as one object: detection events in, predicted observable flips out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import stim

from qec.errors import QecError
from qec.lattice import SpaceTimeLattice, detector_error_model
from qec.matching import Matcher, matching_model

if TYPE_CHECKING:
    from qec.predecoder.correction import BoundPredecoder, Predecoder

DEFAULT_PREDECODER = "fast"

# name -> (with pre-decoder, correlated, decomposition)
_NAMED = {
    "pymatching": (False, False, "stim"),
    "pymatching-correlated": (False, True, "stim"),
    "pymatching-css": (False, False, "css"),
    "pymatching-correlated-css": (False, True, "css"),
    "predecoder+pymatching": (True, False, "css"),
    "predecoder+pymatching-correlated": (True, True, "css"),
}
DECODER_NAMES = tuple(_NAMED)


class Decoder:
    """Pre-decoder and matching for one detector error model.

    Build it with ``from_dem``.  Example:

    >>> import stim, qec
    >>> circuit = stim.Circuit.generated("surface_code:rotated_memory_x", distance=5, rounds=5,
    ...                                  after_clifford_depolarization=0.005)
    >>> dem = circuit.detector_error_model(decompose_errors=True)
    >>> decoder = qec.Decoder.from_dem(dem)
    >>> dets = circuit.compile_detector_sampler(seed=1).sample(10)
    >>> decoder.decode_batch(dets).shape
    (10, 1)
    """

    def __init__(
        self, num_detectors: int, matcher: Matcher, predecoder: BoundPredecoder | None
    ) -> None:
        self.num_detectors = num_detectors
        self._matcher = matcher
        self._predecoder = predecoder

    @classmethod
    def from_dem(
        cls,
        dem: stim.DetectorErrorModel,
        *,
        predecoder: Predecoder | str | Path | None = None,
        correlated: bool = False,
        decomposition: str = "css",
        device: str = "cpu",
    ) -> Decoder:
        """Builds a decoder from a detector error model.

        Args:
            dem: model of a rotated surface-code memory experiment, with detector coordinates (they
                are not needed for ``predecoder=None, decomposition="stim"``).
            predecoder: a loaded one, the name of a shipped checkpoint, a path, or None.
            correlated: use PyMatching's correlated matching.
            decomposition: "css" splits every mechanism by check basis (the stronger one), "stim"
                keeps the model's own ``^`` decomposition.
            device: where the network runs, "cpu" or "cuda".

        Raises:
            QecError: the model is no rotated surface code, is not decomposed, or has not exactly
                one observable; the checkpoint cannot be loaded; the device is not there.
        """
        if dem.num_observables != 1:
            raise QecError(
                f"the detector error model has {dem.num_observables} observables; these decoders "
                "predict exactly one."
            )
        needs_lattice = predecoder is not None or decomposition == "css"
        lattice = SpaceTimeLattice.from_dem(dem) if needs_lattice else None
        matcher = Matcher(matching_model(dem, lattice, decomposition), correlated)
        bound = None
        if predecoder is not None:
            if isinstance(predecoder, str | Path):
                from qec.predecoder.checkpoint import load_predecoder  # torch only where needed

                predecoder = load_predecoder(predecoder)
            bound = predecoder.bind(lattice, device)
        return cls(dem.num_detectors, matcher, bound)

    @classmethod
    def from_circuit(cls, circuit: stim.Circuit, **options: object) -> Decoder:
        """As ``from_dem``, with the detector error model of ``circuit``."""
        return cls.from_dem(detector_error_model(circuit), **options)

    def predecode(self, detectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pre-decoder's part.

        Args:
            detectors: uint8 (B, num_detectors).

        Returns:
            residual detection events uint8 (B, num_detectors), and flips of observable 0 by the
            committed corrections uint8 (B,).  Without a pre-decoder: the input, and zeros.

        Raises:
            QecError: ``detectors`` has the wrong shape or dtype.
        """
        detectors = self._unpacked(np.asarray(detectors), packed=False)
        if self._predecoder is None:
            return detectors, np.zeros(len(detectors), dtype=np.uint8)
        return self._predecoder.apply(detectors)

    def match(self, residual: np.ndarray) -> np.ndarray:
        """Matching's part: uint8 (B, num_detectors) -> flips of observable 0, uint8 (B,)."""
        return self._matcher.decode_batch(residual)

    def decode(self, shot: np.ndarray) -> np.ndarray:
        """One shot, bool or uint8 (num_detectors,) -> uint8 (1,), the flip of observable 0."""
        return self.decode_batch(np.asarray(shot)[None])[0]

    def decode_batch(
        self,
        shots: np.ndarray,
        *,
        bit_packed_shots: bool = False,
        bit_packed_predictions: bool = False,
    ) -> np.ndarray:
        """Decodes a batch, with the arguments of ``pymatching.Matching.decode_batch``.

        Args:
            shots: bool or uint8 (B, num_detectors), or bit-packed uint8 (B, ceil(num_detectors/8)),
                little-endian.
            bit_packed_shots: whether ``shots`` is bit-packed.
            bit_packed_predictions: whether to bit-pack the result.

        Returns:
            uint8 (B, 1): the predicted flip of observable 0.  With one observable the bit-packed
            result is the same array.

        Raises:
            QecError: ``shots`` has the wrong shape or dtype.
        """
        del bit_packed_predictions  # one observable: one byte a shot either way
        detectors = self._unpacked(np.asarray(shots), bit_packed_shots)
        residual, flips = self.predecode(detectors)
        return (self.match(residual) ^ flips)[:, None]

    def _unpacked(self, shots: np.ndarray, packed: bool) -> np.ndarray:
        width = -(-self.num_detectors // 8) if packed else self.num_detectors
        if shots.ndim != 2 or shots.shape[1] != width or shots.dtype not in (np.uint8, np.bool_):
            raise QecError(
                f"shots have shape {shots.shape} and dtype {shots.dtype}; the model has "
                f"{self.num_detectors} detectors, so give uint8 or bool of shape (B, {width})"
                f"{' (bit-packed)' if packed else ''}."
            )
        if packed:
            return np.unpackbits(shots, axis=1, count=self.num_detectors, bitorder="little")
        return np.ascontiguousarray(shots).view(np.uint8)


def named_decoder(
    name: str, dem: stim.DetectorErrorModel, predecoder: str = DEFAULT_PREDECODER
) -> Decoder:
    """The decoder called ``name`` (one of ``DECODER_NAMES``) in sweeps and in sinter.

    Args:
        name: e.g. "predecoder+pymatching-correlated".
        dem: the detector error model.
        predecoder: checkpoint for the names that start with "predecoder+".

    Raises:
        QecError: unknown name, or as ``Decoder.from_dem``.
    """
    if name not in _NAMED:
        raise QecError(f"decoder {name!r} is unknown: use one of {', '.join(DECODER_NAMES)}.")
    with_predecoder, correlated, decomposition = _NAMED[name]
    return Decoder.from_dem(
        dem,
        predecoder=predecoder if with_predecoder else None,
        correlated=correlated,
        decomposition=decomposition,
    )
