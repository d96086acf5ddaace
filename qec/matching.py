"""PyMatching on a detector error model, with the basis-split decomposition.

Stim's ``decompose_errors`` splits a hyperedge by whatever pieces happen to be graphlike, and keeps
two-detector mechanisms that join an X check with a Z check.  Splitting each mechanism into its part
on the memory checks and its part on the other checks makes the matching graph two separate planar
graphs; PyMatching decodes it better at no cost.
"""

from __future__ import annotations

import numpy as np
import pymatching
import stim

from qec.errors import QecError
from qec.lattice import SpaceTimeLattice


def basis_split(lattice: SpaceTimeLattice) -> stim.DetectorErrorModel:
    """The model of ``lattice`` with each mechanism split into ``memory part ^ other part``.

    Parts with more than two detectors (no CSS circuit has them) fall back on the pieces of the
    decomposition that the model came with, regrouped by sector.

    Raises:
        QecError: a part that flips more than two detectors and has no suggested pieces.
    """
    table = lattice.mechanisms
    sector = lattice.sector[table.detector].tolist()
    # The observable is a memory-basis operator, so it goes with the memory part.
    parts: list[list[list[tuple[int, int]]]] = [[[], []] for _ in table.probability]
    entries = zip(
        table.mechanism.tolist(), table.detector.tolist(), table.component.tolist(), sector, strict=True
    )
    for mechanism, detector, component, s in entries:
        parts[mechanism][s].append((component, detector))
    lines = []
    flips = table.flips_observable.tolist()
    for p, flip, (memory, other) in zip(table.probability.tolist(), flips, parts, strict=True):
        pieces = [_targets(piece) for piece in _graphlike(memory)]
        if flip:
            if pieces:
                pieces[0] += " L0"
            else:
                pieces = ["L0"]
        pieces += [_targets(piece) for piece in _graphlike(other)]
        if pieces:
            lines.append(f"error({p!r}) {' ^ '.join(pieces)}")
    # Detectors that no mechanism touches still have to be counted.
    lines.append(f"detector D{lattice.num_detectors - 1}")
    lines.append("logical_observable L0")
    return stim.DetectorErrorModel("\n".join(lines))


def _graphlike(part: list[tuple[int, int]]) -> list[list[int]]:
    if len(part) <= 2:
        return [[detector for _, detector in part]] if part else []
    pieces: dict[int, list[int]] = {}
    for component, detector in part:
        pieces.setdefault(component, []).append(detector)
    if max(map(len, pieces.values())) > 2:
        raise QecError(
            f"a mechanism flips {len(part)} detectors of one basis ({sorted(d for _, d in part)}): "
            "matching cannot use it. Decompose the model (Stim's decompose_errors=True) first."
        )
    return list(pieces.values())


def _targets(detectors: list[int]) -> str:
    return " ".join(f"D{d}" for d in detectors)


class Matcher:
    """PyMatching behind one call; ``correlated`` switches its two-pass correlated matching on.

    Args:
        dem: a graphlike-decomposed model.
        correlated: see ``pymatching.Matching.decode_batch(enable_correlations=...)``.
    """

    def __init__(self, dem: stim.DetectorErrorModel, correlated: bool) -> None:
        self.correlated = correlated
        self.graph = pymatching.Matching.from_detector_error_model(
            dem, enable_correlations=correlated
        )

    def decode_batch(self, detectors: np.ndarray) -> np.ndarray:
        """uint8 (B, num_detectors) -> uint8 (B,), predicted flips of observable 0."""
        return self.graph.decode_batch(detectors, enable_correlations=self.correlated)[:, 0]


def matching_model(
    dem: stim.DetectorErrorModel, lattice: SpaceTimeLattice | None, decomposition: str
) -> stim.DetectorErrorModel:
    """The model that the matcher is built on: ``"css"`` (basis-split) or ``"stim"`` (as given)."""
    if decomposition == "css":
        return basis_split(lattice or SpaceTimeLattice.from_dem(dem))
    if decomposition == "stim":
        return dem
    raise QecError(f"decomposition={decomposition!r} is unknown: use 'css' or 'stim'.")


