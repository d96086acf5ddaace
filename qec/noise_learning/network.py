"""The amortised estimator: a network that reads the noise parameters off detection events.

After arXiv:2604.12841: two consecutive bulk rounds are an image of detection events, a 2D CNN looks
at it, its features are averaged over the patch, and the noise parameters come out between bounds,
in logarithms.  Two things differ from the paper.  Features, not logits, are averaged over rounds
and shots, so that what follows can be any function of the statistics; and the number of shots is an
input, so that few shots give cautious answers.  It knows ``qec.memory_circuit`` of orientation ZV
(Stim's layout).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from qec.circuits.lattice import SpaceTimeLattice
from qec.circuits.surface_code import RotatedSurfaceCode
from qec.noise_learning.error_structure import ErrorStructure
from qec.predecoder.device import autocast, network_dtype
from qec.support.errors import QecError, first_line
from qec.support.files import atomic_path, resource_dir

FORMAT = "qec-noise-network-1"
LOWEST, HIGHEST = 1e-6, 5e-2
"""Bounds of x = -ln(1 - 2 p) of a parameter."""

MOST_SHOTS = 512
"""Number of shots that the network was shown at most; more are announced to it as this many."""

_SMALL = 1e-4
_PATCHES = 1 << 18  # that go through the CNN at a time


class NoiseNetwork(nn.Module):
    """Detection events of pairs of rounds -> x of the noise parameters.

    Args:
        parameters: number of noise parameters.
        width: channels of the CNN; twice as many features are averaged.
    """

    mean: torch.Tensor
    variance: torch.Tensor

    def __init__(self, parameters: int, width: int = 48) -> None:
        super().__init__()
        # A 3 x 3 and a 1 x 1 convolution, as matrix products: on small images that is far faster.
        self.cnn = nn.Sequential(
            nn.Linear(6 * 9, width), nn.ReLU(), nn.Linear(width, 2 * width), nn.ReLU()
        )
        self.mlp = nn.Sequential(
            nn.Linear(2 * width + 2, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU()
        )
        self.last = nn.Linear(256, parameters)
        # What the logarithms of the features are like over the draws: they differ by little.
        self.register_buffer("mean", torch.zeros(2 * width))
        self.register_buffer("variance", torch.ones(2 * width))

    def observe(self, features: torch.Tensor, decay: float) -> None:
        """Follows the logarithms of features, (draws, 2 width), in training."""
        logs = torch.log(features + _SMALL)
        self.mean.lerp_(logs.mean(dim=0), 1 - decay)
        self.variance.lerp_(((logs - self.mean) ** 2).mean(dim=0), 1 - decay)

    def features(self, patches: torch.Tensor) -> torch.Tensor:
        """(patches, 54) -> (2 width,), averages over all of them."""
        return self.cnn(patches).float().mean(dim=0)

    def rates(self, features: torch.Tensor, shots: torch.Tensor, distance: int) -> torch.Tensor:
        """Features (draws, 2 width) and shots (draws,) -> ln x, (draws, parameters)."""
        announced = torch.log10(shots.clamp(max=MOST_SHOTS)) / 4
        context = torch.stack([announced, torch.full_like(announced, 5 / distance)], dim=1)
        logs = (torch.log(features + _SMALL) - self.mean) / (self.variance + _SMALL).sqrt()
        logits = self.last(self.mlp(torch.cat([logs, context], dim=1)))
        span = math.log(HIGHEST / LOWEST)
        return math.log(LOWEST) + span * torch.sigmoid(logits)


@dataclasses.dataclass(frozen=True)
class Patches:
    """The 3 x 3 neighbourhoods of the inner checks in the images of pairs of bulk rounds.

    Attributes:
        distance: code distance.
        detectors: int64 (windows * sites, 36), X and Z checks in a round and in the next;
            num_detectors where there is none.
        exists: float32 (windows * sites, 18), 1 where there is an X, a Z check.
    """

    distance: int
    detectors: np.ndarray
    exists: np.ndarray

    @classmethod
    def of(cls, structure: ErrorStructure) -> Patches:
        """Raises QecError if the structure is not one that the network knows."""
        lattice = SpaceTimeLattice.from_dem(structure.model)
        d, n = lattice.distance, lattice.num_detectors
        coords = structure.model.get_detector_coordinates()
        place = np.array([coords[k][:2] for k in range(n)])
        images = np.full((lattice.rounds + 1, 2, d + 1, d + 1), n)
        exists = np.zeros((2, d + 1, d + 1), dtype=np.float32)
        for k, basis in enumerate("XZ"):
            for x, y in RotatedSurfaceCode(d).check_coords(basis):
                exists[k, y // 2, x // 2] = 1
                here = np.flatnonzero((place == (x, y)).all(axis=1))
                images[lattice.layer[here], k, y // 2, x // 2] = here
        if np.count_nonzero(images < n) != n or not _x_checks(structure) <= set(
            images[:, 0].ravel().tolist()
        ):
            raise QecError(
                "the noise network knows only qec.memory_circuit of orientation ZV: use another "
                "method."
            )
        if lattice.rounds < 3:
            raise QecError("the noise network needs at least 3 rounds: use another method.")
        bulk = range(1, lattice.rounds - 1)
        pairs = np.stack([np.concatenate([images[k], images[k + 1]]) for k in bulk])
        detectors = _neighbourhoods(pairs).reshape(-1, 36)
        masks = _neighbourhoods(exists[None]).reshape(-1, 18)
        return cls(d, detectors, np.tile(masks, (len(pairs), 1)))

    def tensor(self, events: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
        """uint8 (shots, num_detectors) -> (shots * windows * sites, 54)."""
        padded = np.concatenate([events, np.zeros((len(events), 1), dtype=np.uint8)], axis=1)
        fired = torch.from_numpy(padded[:, self.detectors]).to(dtype)
        masks = torch.from_numpy(self.exists).to(dtype).expand(len(events), -1, -1)
        return torch.cat([fired, masks], dim=2).flatten(0, 1)


def _x_checks(structure: ErrorStructure) -> set[int]:
    """Detectors of X checks: those that a wrong result of an X measurement flips."""
    faults = structure.faults
    found = faults.mechanism[faults.parameter == faults.parameter_names.index("flip before MX.Z")]
    return set(structure.sets[np.unique(found)].indices.tolist())


def _neighbourhoods(images: np.ndarray) -> np.ndarray:
    """(n, channels, rows, cols) -> (n, rows - 2, cols - 2, channels, 3, 3)."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5)


def network_rates(
    structure: ErrorStructure, packed: np.ndarray, path: Path | None = None
) -> np.ndarray:
    """x of the structure's noise parameters as the network sees them, float64 (parameters,).

    Args:
        structure: of a ``qec.memory_circuit``, orientation ZV, at least 3 rounds.
        packed: detection events, uint8 (shots, ceil(num_detectors / 8)), bit-packed.
        path: checkpoint; None is the shipped one.

    Raises:
        QecError: another structure, or a checkpoint that cannot be read.
    """
    shipped = resource_dir("data") / "noise_learning" / "network.safetensors"
    network, names = load_network(path or shipped)
    if set(structure.faults.parameter_names) != set(names):
        raise QecError(
            "the noise network knows only circuits with the 25 parameters of qec.memory_circuit "
            "(all of them above zero): use another method."
        )
    patches = Patches.of(structure)
    cpu = torch.device("cpu")
    total = torch.zeros_like(network.mean)
    at_a_time = max(1, _PATCHES // len(patches.detectors))
    with torch.inference_mode(), autocast(cpu):
        for start in range(0, len(packed), at_a_time):
            chunk = packed[start : start + at_a_time]
            events = np.unpackbits(chunk, axis=1, count=structure.num_detectors, bitorder="little")
            total += len(chunk) * network.features(patches.tensor(events, network_dtype(cpu)))
    with torch.inference_mode():
        shots = torch.tensor([float(len(packed))])
        logs = network.rates((total / len(packed))[None], shots, patches.distance)[0]
    by_name = dict(zip(names, logs.double().exp().tolist(), strict=True))
    return np.array([by_name[name] for name in structure.faults.parameter_names])


def save_network(path: Path, network: NoiseNetwork, names: tuple[str, ...], history: dict) -> None:
    """Saves atomically."""
    description = json.dumps({"format": FORMAT, "parameters": names, "history": history})
    tensors = {k: v.detach().contiguous() for k, v in network.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"qec": description})


_DAMAGE = (
    *(SafetensorError, OSError, ValueError, TypeError, AttributeError, KeyError, IndexError),
    RuntimeError,
)


@functools.lru_cache(maxsize=2)
def load_network(path: Path) -> tuple[NoiseNetwork, tuple[str, ...]]:
    """The network and the names of its outputs.

    Raises:
        QecError: missing, truncated, of another kind, or with weights that are not finite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {}).get("qec", "{}"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if description.get("format") != FORMAT:
            raise ValueError(f"expected format {FORMAT!r}, found {description.get('format')!r}")
        names = tuple(description["parameters"])
        text = all(isinstance(name, str) for name in names)
        if not names or not text or len(set(names)) != len(names):
            raise ValueError("its parameters are no list of different names")
        if not all(tensor.is_floating_point() for tensor in weights.values()):
            raise ValueError("its weights are integers")
        network = NoiseNetwork(len(names), weights["cnn.0.weight"].shape[0])
        network.load_state_dict(weights)
    except _DAMAGE as error:
        raise QecError(
            f"{path} is no checkpoint of a noise network: {first_line(error)}."
        ) from error
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise QecError(f"{path} holds weights that are NaN or infinite: train it again.")
    return network.eval(), names
