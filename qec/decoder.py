"""The pipeline as one object: detection events in, predicted observable flips out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import stim

from qec.ensemble import EnsembleMatcher
from qec.errors import QecError
from qec.fallback import Fallback, Matched
from qec.lattice import SpaceTimeLattice, detector_error_model
from qec.matching import Matcher, MemoryMatcher, matching_model
from qec.predecoder.rule import CommitRule, Predecoded

if TYPE_CHECKING:
    from qec.predecoder.correction import BoundPredecoder, Predecoder

DEFAULT_PREDECODER = "fast"

_CHUNK = 4096  # recorded shots that are decoded at a time

_NAMED: dict[str, dict[str, object]] = {
    "pymatching": {"decomposition": "stim"},
    "pymatching-correlated": {"decomposition": "stim", "correlated": True},
    "pymatching-css": {},
    "pymatching-memory-css": {"memory_only": True},
    "pymatching-correlated-css": {"correlated": True},
    "pymatching-ensemble-css": {"correlated": True, "members": 31},
    "predecoder+pymatching": {},
    "predecoder+pymatching-correlated": {"correlated": True},
    "predecoder+pymatching-nofallback": {"fallback": False},
    "predecoder+pymatching-correlated-nofallback": {"correlated": True, "fallback": False},
}
DECODER_NAMES = tuple(_NAMED)


class Decoder:
    """Pre-decoder and matching for one detector error model.

    Build it with ``from_dem``.  On CPUs a shot gets the same prediction whatever else is in its
    batch, with any number of threads and on any kind of CPU.  float32 sums differ there in their
    last bits; where these could decide, float64 does (``BoundPredecoder``).  It is not promised for
    ``precision="bfloat16"``, 8-bit backends and GPUs, nor from one version of torch to another.
    Measured from SSE2 to AVX2 on 20,000 shots: `swift` at d = 5, 9 and 13, `fast` at d = 5.
    Example:

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
        self,
        num_detectors: int,
        matcher: Matcher | MemoryMatcher | EnsembleMatcher | Fallback,
        predecoder: BoundPredecoder | None = None,
        rule: CommitRule | None = None,
    ) -> None:
        self.num_detectors = num_detectors
        self._matcher = matcher
        self.predecoder = predecoder
        self._rule = rule

    @classmethod
    def from_dem(
        cls,
        dem: stim.DetectorErrorModel,
        *,
        predecoder: Predecoder | str | Path | None = None,
        correlated: bool = False,
        decomposition: str = "css",
        fallback: bool = True,
        memory_only: bool = False,
        members: int = 1,
        device: str = "cpu",
        backend: str = "eager",
        precision: str = "auto",
        threads: int = 1,
    ) -> Decoder:
        """Builds a decoder from a detector error model.

        Args:
            dem: model of a rotated surface-code memory experiment, with detector coordinates (they
                are not needed for ``predecoder=None, decomposition="stim"``).
            predecoder: a loaded one, the name of a shipped checkpoint, a path, or None.
            correlated: use PyMatching's correlated matching; with a pre-decoder that falls back,
                aim at its accuracy.
            decomposition: "css" splits every mechanism by check basis (the stronger one), "stim"
                keeps the model's own ``^`` decomposition.
            fallback: whether shots whose residual decides the observable narrowly are matched
                anew, as a whole and correlated.  How narrowly is part of the checkpoint's commit
                rule, one value for each of ``correlated``.
            memory_only: without a pre-decoder, match the memory checks alone: the predictions of
                uncorrelated "css" matching in half the time.
            members: without a pre-decoder, from how many perturbed correlated matchings the
                correction is put together (``qec.ensemble``).
            device: where the network runs, "cpu" or "cuda".
            backend: what runs it, "eager", "compile", "onnxruntime" or "openvino", the last two
                with "-int8" behind for 8-bit hidden layers (``qec.predecoder.runtime``).
            precision: in which it computes, "float32", "bfloat16" or "auto": float32 on a CPU,
                bfloat16 on a GPU.
            threads: of the CPU, that the network may use; torch's own number stays as it is.  One
                in processes that are forked after this: others would wait for ever.

        Raises:
            QecError: the model is no rotated surface code, is not decomposed, or has not exactly
                one observable; the checkpoint cannot be loaded; the device, backend or precision
                is not there; ``members`` or ``memory_only`` together with a pre-decoder.
        """
        if dem.num_observables != 1:
            raise QecError(
                f"the detector error model has {dem.num_observables} observables; these decoders "
                "predict exactly one."
            )
        plain = predecoder is None and decomposition == "css"
        if memory_only and not (plain and not correlated and members == 1):
            raise QecError("memory_only needs css, and nothing but uncorrelated matching.")
        if members > 1 and not (plain and correlated):
            raise QecError("members > 1 needs correlated=True, css and no pre-decoder.")
        needs_lattice = predecoder is not None or decomposition == "css"
        lattice = SpaceTimeLattice.from_dem(dem) if needs_lattice else None
        bound = rule = None
        if predecoder is not None:
            from qec.predecoder.checkpoint import as_predecoder  # torch only where needed
            from qec.predecoder.precision import resolve_device, resolve_precision

            predecoder = as_predecoder(predecoder)
            dtype = resolve_precision(precision, resolve_device(device))
            bound = predecoder.bind(lattice, device, dtype=dtype, backend=backend, threads=threads)
            rule = predecoder.rules.ahead_of(correlated).on(lattice, fallback)
        if rule is not None and rule.falls_back:
            return cls(dem.num_detectors, Fallback(lattice, rule), bound, rule)
        if memory_only:
            return cls(dem.num_detectors, MemoryMatcher(lattice))
        if members > 1:
            return cls(dem.num_detectors, EnsembleMatcher(lattice, members))
        model = matching_model(dem, lattice, decomposition)
        return cls(dem.num_detectors, Matcher(model, correlated), bound, rule)

    @property
    def falls_back(self) -> bool:
        """Whether doubtful shots are matched anew, as a whole."""
        return isinstance(self._matcher, Fallback)

    @classmethod
    def from_circuit(cls, circuit: stim.Circuit, **options: object) -> Decoder:
        """As ``from_dem``, with the detector error model of ``circuit``."""
        return cls.from_dem(detector_error_model(circuit), **options)

    def predecode(self, detectors: np.ndarray) -> Predecoded:
        """The pre-decoder's part; without one, everything is left and nothing committed.

        Args:
            detectors: uint8 (B, num_detectors).

        Raises:
            QecError: ``detectors`` has the wrong shape or dtype.
        """
        return self.predecode_also_for([], detectors)[0]

    def predecode_also_for(
        self, others: Sequence[Decoder], detectors: np.ndarray
    ) -> list[Predecoded]:
        """``predecode`` by this decoder and by others of the same checkpoint and model.

        They may differ in their commit rule; the network runs once.
        """
        detectors = unpacked(np.asarray(detectors), self.num_detectors, packed=False)
        decoders = (self, *others)
        if self.predecoder is None:
            return [
                Predecoded.sure(detectors, np.zeros(len(detectors), np.uint8)) for _ in decoders
            ]
        limits = [limit for d in decoders if d.falls_back for limit in d._matcher.limits]
        return self.predecoder.apply(detectors, *(d._rule for d in decoders), limits=limits)

    def match(self, detectors: np.ndarray, predecoded: Predecoded) -> Matched:
        """Matching's part.

        Args:
            detectors: uint8 (B, num_detectors), the whole syndrome.
            predecoded: what ``predecode`` made of it.
        """
        if self.falls_back:
            return self._matcher.match(detectors, predecoded)
        flips = self._matcher.decode_batch(predecoded.residual) ^ predecoded.committed
        nobody = np.zeros(len(flips), dtype=np.bool_)
        return Matched(flips, nobody, nobody)

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
        detectors = unpacked(np.asarray(shots), self.num_detectors, bit_packed_shots)
        return self.match(detectors, self.predecode(detectors)).flips[:, None]

    def decode_recorded(self, shots: np.ndarray) -> np.ndarray:
        """Bit-packed shots of any number, some thousands at a time, so that memory does not grow.

        Args:
            shots: uint8 (B, ceil(num_detectors / 8)), little-endian.

        Returns:
            uint8 (B, 1), as ``decode_batch``.
        """
        starts = range(0, len(shots), _CHUNK)
        parts = [self.decode_batch(shots[k : k + _CHUNK], bit_packed_shots=True) for k in starts]
        return np.concatenate([np.empty((0, 1), dtype=np.uint8), *parts])


def unpacked(shots: np.ndarray, num_detectors: int, packed: bool) -> np.ndarray:
    """Shots as uint8 (B, num_detectors); the array itself where it is that already.

    Raises:
        QecError: the wrong shape or dtype.
    """
    width = -(-num_detectors // 8) if packed else num_detectors
    if shots.ndim != 2 or shots.shape[1] != width or shots.dtype not in (np.uint8, np.bool_):
        raise QecError(
            f"shots have shape {shots.shape} and dtype {shots.dtype}; the model has "
            f"{num_detectors} detectors, so give uint8 or bool of shape (B, {width})"
            f"{' (bit-packed)' if packed else ''}."
        )
    if packed:
        return np.unpackbits(shots, axis=1, count=num_detectors, bitorder="little")
    return np.ascontiguousarray(shots).view(np.uint8)


def has_predecoder(name: str) -> bool:
    """Whether a decoder of that name runs the network before matching."""
    return name.startswith("predecoder+")


def check_decoder_name(name: str) -> None:
    """QecError unless it is one of ``DECODER_NAMES``."""
    if name not in _NAMED:
        raise QecError(f"decoder {name!r} is unknown: use one of {', '.join(DECODER_NAMES)}.")


def named_decoder(
    name: str,
    dem: stim.DetectorErrorModel,
    predecoder: Predecoder | str = DEFAULT_PREDECODER,
    **options: object,
) -> Decoder:
    """The decoder called ``name`` (one of ``DECODER_NAMES``) in sweeps and in sinter.

    Args:
        name: e.g. "predecoder+pymatching-correlated".
        dem: the detector error model.
        predecoder: checkpoint for the names that start with "predecoder+".
        options: further arguments of ``Decoder.from_dem``.

    Raises:
        QecError: unknown name, or as ``Decoder.from_dem``.
    """
    check_decoder_name(name)
    network = predecoder if has_predecoder(name) else None
    return Decoder.from_dem(dem, predecoder=network, **_NAMED[name], **options)


def named_decoders(
    names: Sequence[str], dem: stim.DetectorErrorModel, predecoder: str = DEFAULT_PREDECODER
) -> dict[str, Decoder]:
    """Several of them, for the same model; the checkpoint is loaded once.

    Where it has one commit rule for both, its decoders that fall back are one object.
    """
    network, one_rule = predecoder, False
    if any(has_predecoder(name) for name in names):
        from qec.predecoder.checkpoint import as_predecoder  # torch only where needed

        network = as_predecoder(predecoder)
        one_rule = network.rules.uncorrelated == network.rules.correlated
    decoders: dict[str, Decoder] = {}
    for name in names:
        twin = decoders.get(name.replace("-correlated", ""))
        shared = one_rule and twin is not None and twin.falls_back
        decoders[name] = twin if shared else named_decoder(name, dem, network)
    return decoders
