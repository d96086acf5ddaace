# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From a circuit to a residual
#
# A surface-code memory experiment produces *detection events*.  Matching explains them globally,
# and its cost grows with their number.  A *pre-decoder* is a small convolutional network that
# explains most of them locally first; matching gets the *residual*.  This notebook follows one shot
# through the pipeline, then compares logical error rates.
#
# Open it in Jupyter with the jupytext extension, or make a plain notebook of it with
# `jupytext --to ipynb notebooks/pipeline.py`.

# %%
import matplotlib.pyplot as plt
import numpy as np

from qec import (
    CircuitNoise,
    Decoder,
    RotatedSurfaceCode,
    SpaceTimeLattice,
    load_predecoder,
    memory_circuit,
)
from qec.circuits.patch import MEMORY, OTHER
from qec.decoding.decoder import named_decoder
from qec.support.statistics import error_rate, paired_ratio

plt.rcParams["figure.dpi"] = 80
MEMORY_COLOUR, OTHER_COLOUR, DATA_COLOUR = "tab:blue", "tab:orange", "0.25"

# %% [markdown]
# ## The circuit and its lattice
#
# Distance 9, 9 rounds, preparation and readout in the X basis, uniform circuit noise of strength
# $p = 0.006$.  Everything that the decoder knows it reads off the *detector error model*.

# %%
DISTANCE, ROUNDS, P = 9, 9, 0.006
circuit = memory_circuit(RotatedSurfaceCode(DISTANCE), CircuitNoise.uniform(P), ROUNDS, "X")
dem = circuit.detector_error_model(decompose_errors=True)
lattice = SpaceTimeLattice.from_dem(dem)
print(f"{lattice.num_detectors} detectors, {dem.num_errors} error mechanisms")


# %%
def draw_lattice(axis, title=""):
    """Plaquettes at integer (column, row), data qubits between them."""
    for sector, colour in ((MEMORY, MEMORY_COLOUR), (OTHER, OTHER_COLOUR)):
        row, col = np.nonzero(lattice.check_sites[sector])
        axis.scatter(col, row, s=110, marker="s", color=colour, alpha=0.18, linewidths=0)
    row, col = np.mgrid[:DISTANCE, :DISTANCE] + 0.5
    axis.scatter(col, row, s=5, color=DATA_COLOUR)
    axis.set(title=title, xticks=[], yticks=[], aspect="equal")
    axis.invert_yaxis()
    axis.set_frame_on(False)


fig, axis = plt.subplots(figsize=(5, 5))
draw_lattice(axis, "blue: memory checks (X), orange: the others; crosses: the logical operator")
row, col = np.nonzero(lattice.logical_support)
_ = axis.scatter(col + 0.5, row + 0.5, marker="x", color="tab:red", s=50)
# %% [markdown]
# ## One shot, before and after the pre-decoder
#
# An *edge* of the matching graph flips one or two detectors, and may flip the observable.  For each
# edge among the memory checks the network tells the probability $q_e$ that it has fired, from the
# events of both kinds of checks and the error model's own probabilities.  Edges with $q_e$ above
# a threshold are committed.  What is left of the events is the residual:
#
# $$ d' = d + \partial c, $$
#
# where $c$ are the committed edges and $\partial$ maps an edge to its detectors.

# %%
predecoder = load_predecoder("standard")
decoder = Decoder.from_dem(dem, predecoder=predecoder)
detectors, observables = circuit.compile_detector_sampler(seed=1).sample(
    4096, separate_observables=True
)
detectors = detectors.astype(np.uint8)
residual, flips = decoder.predecode(detectors)
memory = lattice.memory_detectors
before, after = detectors[:, memory].sum(), residual[:, memory].sum()
print(
    f"threshold {predecoder.threshold:.2f}: {before / len(detectors):.1f} events of memory checks "
    f"a shot before, {after / len(detectors):.2f} after the pre-decoder (1 / {before / after:.1f})"
)

# %% [markdown]
# A shot for which something is left over.  Filled: the detection events.  Layer by layer, first row
# the input, second row the committed edges, third row the residual.

# %%
# What `predecode` does inside, for the sake of the picture: log-odds, threshold, edges.
shot = int(np.argmax((detectors.sum(axis=1) > 40) & (residual[:, memory].sum(axis=1) > 3)))
bound = predecoder.compile_for(lattice)
log_odds = bound.log_odds(detectors[shot : shot + 1])[0]
edges = bound.grid.edges
committed = edges.ends[log_odds > bound.cut]
LAYERS = range(2, 8)


def draw_events(axis, events, k):
    for sector, colour in ((MEMORY, MEMORY_COLOUR), (OTHER, OTHER_COLOUR)):
        here = (events == 1) & (lattice.layer == k) & (lattice.sector == sector)
        axis.scatter(lattice.col[here], lattice.row[here], s=110, marker="s", color=colour)


def draw_edges(axis, ends, k):
    """Lines; to a boundary they end in a circle, to the next layer in a cross."""
    for first, second in ends[lattice.layer[ends[:, 0]] == k]:
        row, col = lattice.row[first], lattice.col[first]
        if second < 0:
            axis.plot(col, row, marker="o", markersize=11, mfc="none", color=MEMORY_COLOUR)
            continue
        style = "-" if lattice.layer[second] == k else ":"
        places = [col, lattice.col[second]], [row, lattice.row[second]]
        axis.plot(*places, style, color=MEMORY_COLOUR, linewidth=3)
        if lattice.layer[second] > k:
            axis.plot(places[0][1], places[1][1], marker="x", color=MEMORY_COLOUR)


fig, axes = plt.subplots(3, len(LAYERS), figsize=(2.3 * len(LAYERS), 7.2))
for column, k in zip(axes.T, LAYERS, strict=True):
    for axis, title in zip(column, (f"layer {k}", "", ""), strict=True):
        draw_lattice(axis, title)
    draw_events(column[0], detectors[shot], k)
    draw_edges(column[1], committed, k)
    draw_events(column[2], residual[shot], k)
for axis, label in zip(axes[:, 0], ("input", "committed", "residual"), strict=True):
    axis.set_ylabel(label)
fig.tight_layout()

# %% [markdown]
# Lines are edges within a layer, dotted ones with a cross lead to the next layer, circles end on a
# boundary.  Events of the other checks stay: they are input only.  The identity holds bit by bit:

# %%
explained = np.bincount(committed[committed >= 0], minlength=lattice.num_detectors) % 2
assert np.array_equal(detectors[shot] ^ explained, residual[shot])
counts = [int(events[memory].sum()) for events in (detectors[shot], explained, residual[shot])]
print("{} events, {} on the ends of the committed edges, {} left".format(*counts))

# %% [markdown]
# ## Logical error rates
#
# All decoders see the same shots, so that ratios are paired.  Intervals are 95 % confidence
# intervals.  `pymatching` uses Stim's decomposition of the error model, all others the split by
# check basis (`css`).  A cascade hands on what it doubts: in the last row, to correlated matching.

# %%
NAMES = [
    *("pymatching", "pymatching-css", "pymatching-correlated-css", "matching-cascade"),
    *("predecoder+pymatching", "predecoder+matching-cascade"),
]
wrong = {
    name: named_decoder(name, dem).decode_batch(detectors)[:, 0] != observables[:, 0]
    for name in NAMES
}
reference = wrong["pymatching"]
print(f"{'decoder':28} {'LER per shot':>12}  {'interval':>18}  LER(pymatching) / LER")
rates = []
for name, errors in wrong.items():
    rate = error_rate(int(errors.sum()), len(errors))
    both = int((errors & reference).sum())
    ratio = paired_ratio(int(reference.sum()), int(errors.sum()), both)
    rates.append(rate)
    print(
        f"{name:28} {rate.value:12.4f}  [{rate.low:.4f}, {rate.high:.4f}]  "
        f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
    )

# %%
value, low, high = (np.array([getattr(r, end) for r in rates]) for end in ("value", "low", "high"))
fig, axis = plt.subplots(figsize=(7, 2.8))
axis.errorbar(value, NAMES, xerr=[value - low, high - value], fmt="o", capsize=3)
axis.set(
    xlabel=f"logical error rate per shot, d = {DISTANCE}, R = {ROUNDS}, p = {P}", xlim=(0, None)
)
axis.invert_yaxis()
axis.grid(axis="x", alpha=0.3)
