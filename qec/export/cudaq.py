"""The files that CUDA-Q QEC's pre-decoder pipeline takes next to the graph.

What is known of that pipeline, and where from (read in November 2026):

- Its ``trt_decoder`` builds an engine from ``onnx_load_path``.  The graph has exactly one input and
  one output, whose names do not matter, each float32 or uint8; a dynamic number of shots needs the
  parameter ``batch_size``.  The output row is the observables' flips followed by the residual
  detectors; with ``global_decoder`` (say "pymatching") the residual is decoded by it, on the same H
  and O, and the flips are added.  NVIDIA/cudaq-qec,
  libs/qec/lib/decoders/plugins/trt_decoder/trt_decoder.cpp.
- ``engine_output_format="observables_and_residual_detectors"`` must be said; ``precision`` does not
  change the types of the graph, which is strongly typed.  NVIDIA/cudaq-qec,
  docs/sphinx/api/qec/trt_decoder_api.rst.
- Its ``decoder_config`` takes a detector error model, such as our model.dem, by ``stim_dem_path``
  in place of matrices.  NVIDIA/cudaq-qec,
  docs/sphinx/examples/qec/color_code_demo/color_code_demo.py.
- The streaming benchmark reads H_csr.bin, O_csr.bin, priors.bin, detectors.bin and observables.bin,
  little-endian, laid out as below; metadata.txt is for people.  NVIDIA/cudaq-qec,
  docs/sphinx/examples_rst/qec/realtime_predecoder_pymatching.rst ("Data Directory Layout"), and
  NVIDIA/Ising-Decoding, code/export/generate_test_data.py, which writes them: columns of H and O
  are matching edges, priors their probabilities, strictly between 0 and 1.

Ours are the edges of the basis-split model, on which ``qec`` itself matches.  Not written:
D_sparse.txt, which the decoding server wants.  It maps the measurements of the device to detectors,
and a detector error model does not know them.  None of this was run with CUDA-Q QEC.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

from qec.circuits.lattice import SpaceTimeLattice
from qec.matching.matcher import basis_split, matching_graph

_NAMES = {"d": "distance", "r": "n_rounds", "p": "p_error", "b": "basis", "o": "code_rotation"}
_TINY = 1e-14


def cudaq_files(
    lattice: SpaceTimeLattice,
    detectors: np.ndarray,
    flips: np.ndarray,
    experiment: Mapping[str, Any],
) -> dict[str, bytes]:
    """Contents of the files by name.

    Args:
        lattice: that of the detector error model.
        detectors: uint8 (B, num_detectors), shots for the benchmark.
        flips: uint8 (B,), their flips of observable 0.
        experiment: what is known of it, with the keys of ``qec.circuits.experiment_grid``.
    """
    checks, observables, priors = matching_edges(lattice)
    named = {_NAMES.get(key, key): value for key, value in experiment.items()}
    return {
        "H_csr.bin": _csr(checks),
        "O_csr.bin": _csr(observables),
        "priors.bin": _header(len(priors)) + priors.astype("<f8").tobytes(),
        "detectors.bin": _dense(detectors),
        "observables.bin": _dense(flips[:, None]),
        "metadata.txt": "".join(f"{k}={v}\n" for k, v in named.items()).encode(),
    }


def matching_edges(
    lattice: SpaceTimeLattice,
) -> tuple[sparse.csr_matrix, sparse.csr_matrix, np.ndarray]:
    """The edges that matching works on, parallel ones merged.

    Returns:
        H (num_detectors, edges) and O (1, edges), both 0/1, and float64 (edges,) probabilities in
        (0, 1).
    """
    edges = matching_graph(basis_split(lattice)).edges()
    ends = [(row, k) for k, edge in enumerate(edges) for row in edge[:2] if row is not None]
    flips = [(0, k) for k, edge in enumerate(edges) if edge[2]["fault_ids"]]
    priors = np.array([edge[2]["error_probability"] for edge in edges])
    return (
        _binary(ends, (lattice.num_detectors, len(edges))),
        _binary(flips, (1, len(edges))),
        np.clip(priors, _TINY, 1 - _TINY),
    )


def _binary(entries: list[tuple[int, int]], shape: tuple[int, int]) -> sparse.csr_matrix:
    row, column = np.array(entries).T
    return sparse.csr_matrix((np.ones(len(row), np.uint8), (row, column)), shape)


def _header(*counts: int) -> bytes:
    return np.array(counts, "<u4").tobytes()


def _csr(matrix: sparse.csr_matrix) -> bytes:
    header = _header(*matrix.shape, matrix.nnz)
    return header + matrix.indptr.astype("<i4").tobytes() + matrix.indices.astype("<i4").tobytes()


def _dense(table: np.ndarray) -> bytes:
    return _header(*table.shape) + table.astype("<i4").tobytes()
