"""The pipeline as one object: detection events in, predicted observable flips out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import stim

from qec.circuits.error_model import MOST_DETECTORS, AtMostHalf, at_most_half
from qec.circuits.lattice import SpaceTimeLattice, detector_error_model
from qec.decoding.cascade import NATS, RESIDUAL_NATS, Cascade
from qec.decoding.confidence import Confidence
from qec.decoding.decoder_names import DECODERS, check_decoder_name, has_predecoder
from qec.decoding.peers import Peer
from qec.matching.belief_matching import BeliefMatcher
from qec.matching.matcher import (
    Matcher,
    MemoryMatcher,
    Unexplained,
    matching_graph,
    matching_model,
    unexplained,
)
from qec.predecoder.threshold import PredecodeResult
from qec.support.errors import QecError

if TYPE_CHECKING:
    from qec.predecoder.predecoder import CompiledPredecoder, Predecoder

DEFAULT_PREDECODER = "standard"

_CHUNK = 4096  # recorded shots that are decoded at a time


class MatchResult(NamedTuple):
    """What matching makes of a batch.

    Attributes:
        flips: uint8 (B,), predicted flips of observable 0, committed corrections included.
        handed_on: bool (B,), shots whose whole syndrome a cascade's last stage decoded.
        confidence: float64 (B,), logarithm of the odds of the prediction, in nats, as the stage
            that made it sees them; None if nobody asked.
    """

    flips: np.ndarray
    handed_on: np.ndarray
    confidence: np.ndarray | None = None


class Decoder:
    """Pre-decoder and matching for one detector error model.

    Build it with ``from_dem``.  On CPUs a shot gets the same prediction whatever else is in its
    batch, with any number of threads and on any kind of CPU.  float32 sums differ there in their
    last bits; where these could decide, float64 does (``CompiledPredecoder``).  It is not promised
    for ``precision="bfloat16"``, 8-bit backends and GPUs, nor from one version of torch to another.

    Examples:
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
        matcher: Matcher | MemoryMatcher | Cascade | BeliefMatcher | Peer,
        predecoder: CompiledPredecoder | None = None,
    ) -> None:
        self.num_detectors = num_detectors
        self._matcher = matcher
        self.predecoder = predecoder
        self._likely: AtMostHalf | None = None
        self._made_of: tuple[stim.DetectorErrorModel, dict[str, Any]] | None = None

    def __reduce__(self) -> tuple:
        """A matching graph cannot be pickled or copied: the decoder is built anew."""
        if self._made_of is None or self._likely is None:
            raise QecError("only decoders made by from_dem or from_circuit can be pickled.")
        dem, options = self._made_of
        return functools.partial(Decoder.from_dem, **options), (dem,)

    @classmethod
    def from_dem(
        cls,
        dem: stim.DetectorErrorModel,
        *,
        predecoder: Predecoder | str | Path | None = None,
        correlated: bool = False,
        decomposition: str = "css",
        memory_only: bool = False,
        cascade: bool | None = None,
        members: int = 0,
        beliefs: bool = False,
        peer: str | None = None,
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
            correlated: use PyMatching's correlated matching, without a pre-decoder.
            decomposition: "css" splits every mechanism by check basis (the stronger one), "stim"
                keeps the model's own ``^`` decomposition.
            memory_only: without a pre-decoder, match the memory checks alone: the predictions of
                uncorrelated "css" matching in half the time.
            cascade: match the memory checks, or what the pre-decoder leaves of them, and in doubt
                the whole syndrome, correlated: the accuracy of correlated matching for less
                (``qec.decoding.cascade``).  None: with a pre-decoder.  Where the network does not
                fit the model (``qec.predecoder.model_fit``), that goes on without it, with a
                warning.
            members: with a cascade, from how many perturbed correlated matchings doubtful shots
                are decoded (``qec.matching.ensemble``): 15 are nearly as accurate as the likeliest
                error.
            beliefs: belief matching (``qec.matching.belief_matching``) of the doubtful shots of a
                cascade; without one and without a pre-decoder, of all shots.
            peer: name of another package's decoder that does it all (``qec.decoding.peers``).
            device: where the network runs, "cpu" or "cuda".
            backend: what runs it, "eager", "compile", "onnxruntime" or "openvino", the last two
                with "-int8" behind for 8-bit hidden layers (``qec.predecoder.backends``).
            precision: in which it computes, "float32", "bfloat16" or "auto": float32 on a CPU,
                bfloat16 on a GPU.
            threads: of the CPU, that the network may use; torch's own number stays as it is.  One
                in processes that are forked after this: others would wait for ever.

        Raises:
            QecError: the model is no rotated surface code, is not decomposed, or has not exactly
                one observable; the checkpoint cannot be loaded; the device, backend or precision
                is not there; ``cascade``, ``members`` or ``memory_only`` together with what they
                do not go with; a pre-decoder without a cascade on a model that it does not fit; a
                peer that is not installed, or one together with options of this package's decoders.
        """
        options = {name: value for name, value in locals().items() if name not in ("cls", "dem")}
        _check_model(dem)
        if cascade is None:
            cascade = predecoder is not None
        css = decomposition == "css" and not correlated
        if memory_only + (cascade or beliefs) > 1 or (
            not css and (memory_only or predecoder is not None or cascade or beliefs)
        ):
            raise QecError(
                "memory_only excludes cascade and beliefs; they and pre-decoders need "
                "decomposition='css' and correlated=False."
            )
        if predecoder is not None and (memory_only or (beliefs and not cascade)):
            raise QecError(
                "memory_only goes without a pre-decoder, and so does beliefs without a cascade."
            )
        if members < 0 or (members and (beliefs or not cascade)):
            raise QecError(
                f"members={members} needs cascade=True without beliefs, and is not negative."
            )
        if peer is not None and (predecoder or correlated or memory_only or cascade or beliefs):
            raise QecError(f"peer={peer!r} decodes by itself: leave the options of matching out.")
        likely = at_most_half(dem)
        needs_lattice = predecoder is not None or decomposition == "css"
        lattice = SpaceTimeLattice.from_dem(likely.dem) if needs_lattice else None
        bound = None
        if predecoder is not None:
            from qec.predecoder.checkpoint import as_predecoder  # torch only where needed
            from qec.predecoder.device import resolve_device, resolve_precision
            from qec.predecoder.model_fit import bind_where_it_fits

            assert lattice is not None
            predecoder = as_predecoder(predecoder)
            dtype = resolve_precision(precision, resolve_device(device))
            bound = bind_where_it_fits(
                predecoder,
                lattice,
                device,
                needed=not cascade,
                dtype=dtype,
                backend=backend,
                threads=threads,
            )
        matcher: Peer | Cascade | BeliefMatcher | MemoryMatcher | Matcher
        if peer is not None:
            matcher = Peer(peer, likely.dem, lattice)
        elif lattice is None or not (cascade or beliefs or memory_only or bound is not None):
            model = matching_model(likely.dem, lattice, decomposition)
            matcher = Matcher(model, correlated, None if lattice is None else lattice.silent)
        elif cascade:
            nats = NATS if bound is None else RESIDUAL_NATS
            matcher = Cascade(lattice, members, nats, beliefs)
        elif beliefs:
            matcher = BeliefMatcher.of(lattice)
        else:
            matcher = MemoryMatcher(lattice)
        decoder = cls(dem.num_detectors, matcher, bound)
        decoder._likely = likely
        decoder._made_of = dem, options
        return decoder

    @classmethod
    def from_circuit(cls, circuit: stim.Circuit, **options: Any) -> Decoder:
        """As ``from_dem``, with the detector error model of ``circuit``."""
        return cls.from_dem(detector_error_model(circuit), **options)

    def predecode(self, detectors: np.ndarray) -> PredecodeResult:
        """The pre-decoder's part; without one, everything is left and nothing committed.

        Args:
            detectors: uint8 (B, num_detectors).

        Raises:
            QecError: ``detectors`` has the wrong shape or dtype.
        """
        detectors = self._usual(unpacked(np.asarray(detectors), self.num_detectors, packed=False))
        if self.predecoder is None:
            return PredecodeResult(detectors, np.zeros(len(detectors), np.uint8))
        return self.predecoder.apply(detectors)

    def match(
        self, detectors: np.ndarray, predecoded: PredecodeResult, *, confidence: bool = False
    ) -> MatchResult:
        """Matching's part.

        Args:
            detectors: uint8 (B, num_detectors), the whole syndrome.
            predecoded: what ``predecode`` made of it.
            confidence: whether to tell how sure each prediction is (``qec.decoding.confidence``).

        Raises:
            QecError: in asking for confidence, a model that is no rotated surface code's.
        """
        detectors = self._usual(detectors)
        if isinstance(self._matcher, Cascade):
            match = self._matcher.match_with_confidence if confidence else self._matcher.match
            matched = MatchResult(*match(detectors, predecoded))
        else:
            flips = self._matcher.decode_batch(predecoded.residual) ^ predecoded.committed
            matched = MatchResult(flips, np.zeros(len(flips), dtype=np.bool_))
        if confidence and matched.confidence is None:
            matched = matched._replace(confidence=self._sure(detectors, matched.flips))
        if self._likely is not None and self._likely.flip:
            matched = matched._replace(flips=matched.flips ^ 1)
        return matched

    def _sure(self, detectors: np.ndarray, flips: np.ndarray) -> np.ndarray:
        """float64 (B,), nats: how sure predictions are (``qec.decoding.confidence``)."""
        if isinstance(self._matcher, Peer):
            raise QecError("decoders of other packages tell no confidence.")
        # A wrong commit leaves no event that tells of it, so residuals do not count.
        assert not isinstance(self._matcher, Cascade)  # which tells it itself
        if self._matcher.correlated:
            return self._confidence.correlated(detectors, flips)
        return self._confidence.uncorrelated(detectors, flips)

    @functools.cached_property
    def _confidence(self) -> Confidence:
        if self._likely is None:
            raise QecError("only decoders made by from_dem or from_circuit tell confidence.")
        return Confidence(SpaceTimeLattice.from_dem(self._likely.dem))

    def _usual(self, detectors: np.ndarray) -> np.ndarray:
        """The events that are left of shots, uint8 (B, n), by what happens more often than not."""
        if self._likely is None or not self._likely.events.any():
            return detectors
        return detectors ^ self._likely.events

    def decode(
        self, shot: np.ndarray, *, return_confidence: bool = False
    ) -> np.ndarray | tuple[np.ndarray, float]:
        """One shot, bool or uint8 (num_detectors,) -> uint8 (1,), the flip of observable 0.

        With ``return_confidence`` also how sure it is, in nats, as in ``decode_batch``.
        """
        found = self.decode_batch(np.asarray(shot)[None], return_confidence=return_confidence)
        return (found[0][0], float(found[1][0])) if return_confidence else found[0]

    def decode_batch(
        self,
        shots: np.ndarray,
        *,
        bit_packed_shots: bool = False,
        bit_packed_predictions: bool = False,
        return_confidence: bool = False,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Decodes a batch, with the arguments of ``pymatching.Matching.decode_batch``.

        Args:
            shots: bool or uint8 (B, num_detectors), or bit-packed uint8 (B, ceil(num_detectors/8)),
                little-endian.
            bit_packed_shots: whether ``shots`` is bit-packed.
            bit_packed_predictions: whether to bit-pack the result.
            return_confidence: whether to tell how sure each prediction is.
                ``qec.decoding.confidence`` says what that takes; predictions stay the same.

        Returns:
            uint8 (B, 1): the predicted flip of observable 0.  With one observable the bit-packed
            result is the same array.  With ``return_confidence`` a tuple of that and float64 (B,):
            the complementary gap in nats, of which ``qec.decoding.confidence`` says what it
            promises.

        Raises:
            QecError: ``shots`` has the wrong shape or dtype, or a shot has events that no set of
                the model's mechanisms explains.  Events of detectors that no mechanism flips mean
                nothing.  Confidence needs a rotated surface code with coordinates.
        """
        del bit_packed_predictions  # one observable: one byte a shot either way
        detectors = unpacked(np.asarray(shots), self.num_detectors, bit_packed_shots)
        try:
            predecoded = self.predecode(detectors)
            matched = self.match(detectors, predecoded, confidence=return_confidence)
        except Unexplained as error:
            raise self._named(error, detectors) from error
        predictions = matched.flips[:, None]
        return predictions if matched.confidence is None else (predictions, matched.confidence)

    def _named(self, error: Unexplained, detectors: np.ndarray) -> Unexplained:
        """The error with the first such shot and its detectors."""
        if self._made_of is None or self._likely is None:
            return error
        model = matching_model(self._likely.dem, None, self._made_of[1]["decomposition"])
        found = unexplained(matching_graph(model), self._usual(detectors))
        return error if found is None else Unexplained(*found)

    def decode_recorded(
        self,
        shots: np.ndarray,
        over: Callable[[Sequence[int]], Iterable[int]] = iter,
        *,
        return_confidence: bool = False,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Bit-packed shots of any number, some thousands at a time, so that memory does not grow.

        Args:
            shots: uint8 (B, ceil(num_detectors / 8)), little-endian.
            over: runs over the parts; may show how far it is.
            return_confidence: as in ``decode_batch``.

        Returns:
            As ``decode_batch``.
        """
        parts, nats = [np.empty((0, 1), dtype=np.uint8)], [np.empty(0)]
        for start in over(range(0, len(shots), _CHUNK)):
            part = shots[start : start + _CHUNK]
            try:
                found = self.decode_batch(
                    part, bit_packed_shots=True, return_confidence=return_confidence
                )
            except Unexplained as error:
                raise error.after(start) from error
            if isinstance(found, tuple):
                found, confidence = found
                nats.append(confidence)
            parts.append(found)
        predictions = np.concatenate(parts)
        return (predictions, np.concatenate(nats)) if return_confidence else predictions


def _check_model(dem: stim.DetectorErrorModel) -> None:
    """QecError unless it is a detector error model with one observable."""
    if isinstance(dem, stim.Circuit):
        raise QecError("a circuit was given in place of its error model: use from_circuit.")
    if not isinstance(dem, stim.DetectorErrorModel):
        raise QecError(f"a stim.DetectorErrorModel is needed, not {type(dem).__name__}.")
    if dem.num_detectors > MOST_DETECTORS:
        raise QecError(
            f"the detector error model has {dem.num_detectors} detectors, more than the "
            f"{MOST_DETECTORS} that qec takes: is an index mistyped?"
        )
    if dem.num_observables != 1:
        raise QecError(
            f"the detector error model has {dem.num_observables} observables; these decoders "
            "predict exactly one."
        )


def unpacked(shots: np.ndarray, num_detectors: int, packed: bool) -> np.ndarray:
    """Shots as 0 or 1, uint8 (B, num_detectors); the array itself where it is that already.

    As in numpy, whatever is not 0 is an event.

    Raises:
        QecError: the wrong shape or dtype.
    """
    width = -(-num_detectors // 8) if packed else num_detectors
    dtypes = (np.uint8,) if packed else (np.uint8, np.bool_)
    if shots.ndim != 2 or shots.shape[1] != width or shots.dtype not in dtypes:
        raise QecError(
            f"shots have shape {shots.shape} and dtype {shots.dtype}; the model has "
            f"{num_detectors} detectors, so give uint8{'' if packed else ' or bool'} of shape "
            f"(B, {width}){' (bit-packed)' if packed else ''}."
        )
    if packed:
        return np.unpackbits(shots, axis=1, count=num_detectors, bitorder="little")
    events = np.ascontiguousarray(shots).view(np.uint8)
    return (events > 0).view(np.uint8) if events.max(initial=0) > 1 else events


def named_decoder(
    name: str,
    model: stim.Circuit | stim.DetectorErrorModel,
    predecoder: Predecoder | str = DEFAULT_PREDECODER,
    **options: Any,
) -> Decoder:
    """The decoder called ``name`` in sweeps and in sinter (``qec.decoding.decoder_names``).

    Args:
        name: e.g. "predecoder+matching-cascade".
        model: the circuit, or its detector error model.
        predecoder: checkpoint for the names that start with "predecoder+".
        options: further arguments of ``Decoder.from_dem``.

    Raises:
        QecError: unknown name, or as ``Decoder.from_dem``.

    Examples:
        >>> import qec, stim
        >>> circuit = stim.Circuit.generated(
        ...     "surface_code:rotated_memory_x", distance=3, rounds=3,
        ...     after_clifford_depolarization=0.01,
        ... )
        >>> decoder = qec.named_decoder("matching-cascade", circuit)
        >>> decoder.decode_batch(circuit.compile_detector_sampler().sample(5)).shape
        (5, 1)
    """
    check_decoder_name(name)
    dem = detector_error_model(model) if isinstance(model, stim.Circuit) else model
    network = predecoder if has_predecoder(name) else None
    return Decoder.from_dem(dem, predecoder=network, **DECODERS[name], **options)


def named_decoders(
    names: Sequence[str],
    dem: stim.DetectorErrorModel,
    predecoder: str = DEFAULT_PREDECODER,
    device: str = "cpu",
) -> dict[str, Decoder]:
    """Several of them, for the same model; the checkpoint is loaded and bound once."""
    network: str | Predecoder = predecoder
    if any(has_predecoder(name) for name in names):
        from qec.predecoder.checkpoint import as_predecoder  # torch only where needed

        network = as_predecoder(predecoder)
    decoders = {name: named_decoder(name, dem, network, device=device) for name in names}
    bound = [decoder for decoder in decoders.values() if decoder.predecoder is not None]
    for decoder in bound:
        decoder.predecoder = bound[0].predecoder
    return decoders
