r"""The decoders of this package as sinter decoders.

sinter collect --custom_decoders_module_function "qec.sinter_plugin:sinter_decoders" \
    --decoders predecoder+matching-cascade --circuits circuit.stim ...

sinter calls that function without arguments.  What takes arguments needs a module of one's own, in
a folder of PYTHONPATH.  With this one in mine.py, ``"mine:decoders"`` also has decoders that
discard doubtful shots, ``matching-cascade:discard-below-5``, and samplers that count shots and
errors by confidence, ``matching-cascade:by-confidence``:

    from qec.sinter_plugin import sinter_decoders

    def decoders():
        return sinter_decoders(discard_below=5, by_confidence=True)
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import sinter
import stim

from qec.decoding.confidence_bins import counts_by_nat
from qec.decoding.decoder import DEFAULT_PREDECODER, Decoder, named_decoder
from qec.decoding.decoder_names import DECODER_NAMES, has_predecoder
from qec.predecoder.checkpoint import load_predecoder
from qec.predecoder.shipped import shipped_checkpoints
from qec.support.errors import QecError


class CompiledSinterDecoder(sinter.CompiledDecoder):
    """A decoder configured for one detector error model."""

    def __init__(self, decoder: Decoder, discard_below: float | None = None) -> None:
        self._decoder = decoder
        self._discard_below = discard_below

    def decode_shots_bit_packed(self, *, bit_packed_detection_event_data: np.ndarray) -> np.ndarray:
        """uint8 (B, ceil(num_detectors / 8)) -> uint8 (B, 1), both bit-packed little-endian.

        With ``discard_below`` uint8 (B, 2): in sinter a second byte that is not 0 discards a shot.
        """
        found = self._decoder.decode_batch(
            bit_packed_detection_event_data,
            bit_packed_shots=True,
            bit_packed_predictions=True,
            return_confidence=self._discard_below is not None,
        )
        if isinstance(found, np.ndarray):
            return found
        predictions, confidence = found
        discarded = (confidence < self._discard_below).view(np.uint8)
        return np.column_stack([predictions, discarded])


class SinterDecoder(sinter.Decoder):
    """A named decoder; pickles as its settings and is built inside the worker.

    Args:
        name: one of ``qec.decoding.decoder_names``.
        predecoder: checkpoint of those that have a pre-decoder.
        discard_below: nats; shots of less confidence (``qec.decoding.confidence``) are discarded,
            and are no errors.  None: none is.
    """

    def __init__(
        self,
        name: str,
        predecoder: str = DEFAULT_PREDECODER,
        discard_below: float | None = None,
    ) -> None:
        self.name = name
        self.predecoder = predecoder
        self.discard_below = discard_below

    def compile_decoder_for_dem(self, *, dem: stim.DetectorErrorModel) -> CompiledSinterDecoder:
        """Builds the decoder for ``dem``; raises QecError as ``qec.Decoder.from_dem``."""
        decoder = named_decoder(self.name, dem, self.predecoder)
        return CompiledSinterDecoder(decoder, self.discard_below)


@dataclasses.dataclass(frozen=True)
class ConfidenceSampler(sinter.Sampler):
    """Counts shots and errors of a named decoder by bins of its confidence.

    They are in ``custom_counts`` of sinter's rows, with the keys of
    ``qec.decoding.confidence_bins.counts_by_nat``.  ``qec.decoding.confidence_bins.post_selection``
    reads them. Nothing is discarded: ``errors`` are all.

    Attributes:
        name, predecoder: as in ``SinterDecoder``.
        seed: of the shots; None: Stim's choice.  Workers of one seed sample the same shots.
    """

    name: str
    predecoder: str = DEFAULT_PREDECODER
    seed: int | None = None

    def compiled_sampler_for_task(self, task: sinter.Task) -> CompiledConfidenceSampler:
        """Builds the decoder for the task's error model.

        Raises:
            QecError: as ``qec.Decoder.from_dem``, or the task post-selects by sinter's masks.
        """
        if task.postselection_mask is not None or task.postselected_observables_mask is not None:
            raise QecError(
                "counts by confidence go without sinter's post-selection: leave its masks out."
            )
        return CompiledConfidenceSampler(self, task)


class CompiledConfidenceSampler(sinter.CompiledSampler):
    """``ConfidenceSampler`` for one circuit."""

    def __init__(self, sampler: ConfidenceSampler, task: sinter.Task) -> None:
        self._decoder = named_decoder(sampler.name, task.detector_error_model, sampler.predecoder)
        self._shots = task.circuit.compile_detector_sampler(seed=sampler.seed)

    def sample(self, suggested_shots: int) -> sinter.AnonTaskStats:
        """Samples and decodes that many shots, as sinter asks for them."""
        started = time.monotonic()
        packed, flips = self._shots.sample(
            suggested_shots, separate_observables=True, bit_packed=True
        )
        predictions, confidence = self._decoder.decode_recorded(packed, return_confidence=True)
        wrong = predictions[:, 0] != flips[:, 0]
        return sinter.AnonTaskStats(
            shots=len(wrong),
            errors=int(np.count_nonzero(wrong)),
            seconds=time.monotonic() - started,
            custom_counts=counts_by_nat(confidence, wrong),
        )


def sinter_decoders(
    *checkpoints: str,
    discard_below: float | Sequence[float] = (),
    by_confidence: bool = False,
) -> dict[str, sinter.Decoder | sinter.Sampler]:
    """All decoders by name, for sinter's ``--custom_decoders_module_function``.

    Args:
        checkpoints: paths of further checkpoints.
        discard_below: nats, one or several.  For each, every name is there once more, with
            ``:discard-below-5`` behind it: shots of less confidence are discarded.
        by_confidence: whether every name is there once more as a ``ConfidenceSampler``, with
            ``:by-confidence`` behind it.

    Returns:
        Decoders for ``sinter.collect(custom_decoders=...)``.

    Raises:
        QecError: a checkpoint cannot be loaded; nats that are negative or not finite.

    sinter identifies rows by decoder name, not by checkpoint.  So each shipped checkpoint also has
    names that carry its digest, e.g. ``predecoder[small@1a2b3c4d]+pymatching``: use those where
    rows of different trainings must never be merged.
    """
    limits: Any = [discard_below] if isinstance(discard_below, numbers.Real) else discard_below
    settings = {name: (name, DEFAULT_PREDECODER) for name in DECODER_NAMES}
    for checkpoint in (*shipped_checkpoints(), *checkpoints):
        predecoder = load_predecoder(checkpoint)
        tag = f"predecoder[{predecoder.name}@{predecoder.digest}]"
        for name in DECODER_NAMES:
            if has_predecoder(name):
                settings[name.replace("predecoder", tag, 1)] = (name, checkpoint)
    decoders: dict[str, sinter.Decoder | sinter.Sampler] = {
        name: SinterDecoder(*made)
        for name, made in settings.items()
        if name not in sinter.BUILT_IN_DECODERS
    }
    for nats in limits:
        ending = f":discard-below-{_in_words(nats)}"
        decoders |= {name + ending: SinterDecoder(*s, nats) for name, s in settings.items()}
    if by_confidence:
        decoders |= {f"{name}:by-confidence": ConfidenceSampler(*s) for name, s in settings.items()}
    return decoders


def _in_words(nats: float) -> str:
    """The shortest text that stands for this number alone: 5, 0.5."""
    if not isinstance(nats, numbers.Real) or not 0 <= nats < math.inf:
        raise QecError(f"discard_below={nats!r} is not supported: use a number of nats >= 0.")
    return np.format_float_positional(float(nats), trim="-")
