"""The detector error model of a window: an edge that leaves it ends on the boundary.

What the window decides beyond the flip of the observable is put into further observables, so that
one call of matching returns all of it for a batch of shots.

Worked example: detectors 0, 1 and 2 stand in layers 0, 1 and 2, and every mechanism has p = 0.1.
The first flips detector 0 and the observable; the next two flip 0 and 1, and 1 and 2; the last
flips 2.  A window sees layers 0 and 1, and layer 0 is its core:

    error(0.1) D0 L0        in the core: committed, and so is its flip of the observable
    error(0.1) D0 D1 L1     committed; L1 says that detector 1, beyond the core, is flipped
    error(0.1) D1           leaves the window for detector 2: it ends on the boundary

The last mechanism is out of sight.  The next window has layer 0 done, so that the first two are
left out of it: they have been decided.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from qec.matching.matching_edges import MatchingEdges
from qec.windows.template import Window


@dataclasses.dataclass(frozen=True, eq=False)
class WindowModel:
    """A window ready to be matched.

    Attributes:
        detectors: int64, those whose events it sees.
        seam: int64, those that its committed corrections may flip beyond its core.
        exits: int64, those of its detectors that edges out of the window end on.
        text: its detector error model.  Observable 0 is that of the experiment, as far as
            committed; observable 1 + k a flip of seam[k]; then, an odd number of edges out of the
            window at exits[k].
    """

    detectors: np.ndarray
    seam: np.ndarray
    exits: np.ndarray
    text: str


def window_model(
    pieces: MatchingEdges,
    window: Window,
    done: np.ndarray,
    *,
    exits: bool = False,
    closed: bool = False,
    memory_seam: bool = False,
) -> WindowModel:
    """The model of a window.

    Args:
        pieces: of the model of the whole experiment.
        done: bool (layers,), what earlier stages have committed.
        exits: make observables of the edges out of the window.
        closed: leave those edges out.
        memory_seam: commit corrections of the memory checks only.  The others, which never flip the
            observable, end freely on either side, whatever was committed.
    """
    exists = pieces.ends >= 0
    layer = np.where(exists, pieces.layer[pieces.ends], -1)
    inside = exists & (layer >= window.start) & (layer < window.end)
    core = exists & (layer >= window.core_start) & (layer < window.core_end)
    seals = pieces.of_memory | (not memory_seam)
    committed = core.any(axis=1) & seals
    leaves = np.any(exists & ~inside, axis=1)
    taken = (exists & done[layer]).any(axis=1) & seals
    kept = np.flatnonzero(inside.any(axis=1) & ~taken & ~(closed & leaves))
    detectors = np.flatnonzero(
        (pieces.layer >= window.start) & (pieces.layer < window.end) & ~done[pieces.layer]
    )
    beyond = exists & ~core & committed[:, None]
    out = inside & leaves[:, None] & exits
    seam, gates = (np.unique(pieces.ends[kept][which[kept]]) for which in (beyond, out))
    number, crossing, gate = (np.full(len(pieces.layer), -1) for _ in range(3))
    number[detectors] = np.arange(len(detectors))
    crossing[seam] = np.arange(1, len(seam) + 1)
    gate[gates] = np.arange(1 + len(seam), 1 + len(seam) + len(gates))
    names = [
        np.where(which[kept], np.char.add(letter, index[pieces.ends[kept]].astype(str)), "")
        for which, letter, index in (
            (inside, "D", number),
            (beyond, "L", crossing),
            (out, "L", gate),
        )
    ]
    observable = np.where(committed[kept] & pieces.flips[kept], "L0", "")[:, None]
    words = np.concatenate([names[0], observable, *names[1:]], axis=1).tolist()
    lines: list[str] = []
    last = -1
    for k, mechanism in enumerate(pieces.mechanism[kept].tolist()):
        text = " ".join(filter(None, words[k]))
        if mechanism == last:
            lines[-1] += f" ^ {text}"
        else:
            lines.append(f"error({float(pieces.probability[mechanism])!r}) {text}")
        last = mechanism
    observables = len(seam) + len(gates)
    lines += [f"detector D{len(detectors) - 1}", f"logical_observable L{observables}"]
    return WindowModel(detectors, seam, gates, "\n".join(lines))
