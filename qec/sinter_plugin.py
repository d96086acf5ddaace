"""The decoders of this package as sinter decoders.

sinter collect --custom_decoders_module_function "qec.sinter_plugin:sinter_decoders" \\
    --decoders predecoder+pymatching --circuits circuit.stim ...
"""

from __future__ import annotations

import numpy as np
import sinter
import stim

from qec.decoder import DEFAULT_PREDECODER, Decoder, named_decoder
from qec.decoder_names import DECODER_NAMES, has_predecoder
from qec.predecoder.checkpoint import load_predecoder, shipped_checkpoints


class CompiledSinterDecoder(sinter.CompiledDecoder):
    """A decoder configured for one detector error model."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def decode_shots_bit_packed(self, *, bit_packed_detection_event_data: np.ndarray) -> np.ndarray:
        """uint8 (B, ceil(num_detectors / 8)) -> uint8 (B, 1), both bit-packed little-endian."""
        return self._decoder.decode_batch(
            bit_packed_detection_event_data, bit_packed_shots=True, bit_packed_predictions=True
        )


class SinterDecoder(sinter.Decoder):
    """A named decoder; pickles as its two names and is built inside the worker."""

    def __init__(self, name: str, predecoder: str = DEFAULT_PREDECODER) -> None:
        self.name = name
        self.predecoder = predecoder

    def compile_decoder_for_dem(self, *, dem: stim.DetectorErrorModel) -> CompiledSinterDecoder:
        """Builds the decoder for ``dem``; raises QecError as ``qec.Decoder.from_dem``."""
        return CompiledSinterDecoder(named_decoder(self.name, dem, self.predecoder))


def sinter_decoders(*checkpoints: str) -> dict[str, sinter.Decoder]:
    """All decoders by name, for sinter's ``--custom_decoders_module_function``.

    Args:
        checkpoints: paths of further checkpoints.  sinter calls the function that it is given
            without arguments, so give it one of your own that returns
            ``sinter_decoders("mine.safetensors")``.

    Returns:
        Decoders for ``sinter.collect(custom_decoders=...)``.

    sinter identifies rows by decoder name, not by checkpoint.  So each shipped checkpoint also has
    names that carry its digest, e.g. ``predecoder[fast@1a2b3c4d]+pymatching``: use those where rows
    of different trainings must never be merged.
    """
    decoders: dict[str, sinter.Decoder] = {
        name: SinterDecoder(name) for name in DECODER_NAMES if name not in sinter.BUILT_IN_DECODERS
    }
    for checkpoint in (*shipped_checkpoints(), *checkpoints):
        predecoder = load_predecoder(checkpoint)
        tag = f"predecoder[{predecoder.name}@{predecoder.digest}]"
        for name in DECODER_NAMES:
            if has_predecoder(name):
                full = name.replace("predecoder", tag, 1)
                decoders[full] = SinterDecoder(name, checkpoint)
    return decoders
