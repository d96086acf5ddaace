"""Trains the noise network: ``qec train-noise-network [key=value ...]``.

Every example is a fresh draw of channels and detection events simulated with them.  The loss is in
the rates of mechanisms, not in the parameters, which are not all determined by them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from qec.circuits.memory_circuit import memory_circuit
from qec.circuits.noise_model import CircuitNoise
from qec.circuits.surface_code import RotatedSurfaceCode
from qec.noise_learning.error_structure import ErrorStructure
from qec.noise_learning.faults import parameter_rates
from qec.noise_learning.mechanism_classes import formula_classes
from qec.noise_learning.network import NoiseNetwork, Patches, save_network
from qec.noise_learning.random_noise import draw_channels
from qec.predecoder.device import autocast, network_dtype
from qec.support.child_processes import end_with_parent, signals_blocked
from qec.support.errors import QecError, first_line
from qec.support.files import atomic_path
from qec.support.folder_lock import writes_out_alone
from qec.support.settings import plain_values, required_path, value_list


@dataclasses.dataclass(frozen=True)
class NoiseNetworkSettings:
    """conf/train-noise-network.yaml."""

    out: Path
    steps: int
    shots_per_step: int
    shots: tuple[int, ...]
    distances: tuple[int, ...]
    p: tuple[float, float]
    lr: float
    width: int
    ema: float
    seed: int
    workers: int
    save_every: float


class Setting:
    """What is the same for all draws of one distance and basis.

    Attributes:
        patches: where detectors stand.
        classes: float32 (classes, parameters): x of a mechanism class = classes @ x of parameters.
        members: float32 (classes,), mechanisms in each.
    """

    def __init__(self, distance: int, basis: str) -> None:
        self.distance, self.basis = distance, basis
        structure = ErrorStructure.of(self.circuit(CircuitNoise.uniform(0.005)))
        faults = structure.faults
        self.names = faults.parameter_names
        label = formula_classes(faults, structure.num_mechanisms)
        first = np.unique(label, return_index=True)[1]
        counts = np.zeros((structure.num_mechanisms, len(self.names)), dtype=np.float32)
        np.add.at(counts, (faults.mechanism, faults.parameter), 1)
        self.classes = torch.from_numpy(counts[first])
        self.members = torch.from_numpy(np.bincount(label).astype(np.float32))
        self.patches = Patches.of(structure)

    def circuit(self, noise: CircuitNoise) -> object:
        """The experiment with that noise."""
        code = RotatedSurfaceCode(self.distance)
        return memory_circuit(code, noise, self.distance, self.basis)


class Examples(torch.utils.data.IterableDataset):
    """Endless (distance, basis, x of the parameters, shots, events of all draws of a step)."""

    def __init__(
        self, settings: NoiseNetworkSettings, first_step: int, names: tuple[str, ...]
    ) -> None:
        self.settings, self.first_step, self.names = settings, first_step, names

    def __iter__(self) -> Iterator[tuple[int, str, np.ndarray, np.ndarray]]:
        worker = torch.utils.data.get_worker_info()
        offset, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in range(self.first_step + offset, self.settings.steps, stride):
            yield self.example(step)

    def example(self, step: int) -> tuple[int, str, np.ndarray, np.ndarray]:
        """What a training step learns from.

        Returns:
            Distance, basis, float32 (draws, parameters), the true rates, and uint8
            (draws, shots, detectors), detection events.
        """
        s = self.settings
        rng = np.random.default_rng((s.seed, step))
        distance, basis = int(rng.choice(s.distances)), str(rng.choice(["X", "Z"]))
        shots = int(rng.choice(s.shots))
        code = RotatedSurfaceCode(distance)
        rates, events = [], []
        for _ in range(max(1, s.shots_per_step // shots)):
            noise = draw_channels(float(np.exp(rng.uniform(*np.log(s.p)))), rng)
            circuit = memory_circuit(code, noise, distance, basis)
            sampler = circuit.compile_detector_sampler(seed=int(rng.integers(2**62)))
            events.append(sampler.sample(shots).view(np.uint8))
            found = parameter_rates(memory_circuit(RotatedSurfaceCode(3), noise, 2, basis))
            rates.append([found[name] for name in self.names])
        return distance, basis, np.array(rates, dtype=np.float32), np.stack(events)


def _start_worker(_: int) -> None:
    end_with_parent(at_once=False)


def loss_of(logs: torch.Tensor, rates: torch.Tensor, setting: Setting) -> torch.Tensor:
    """Squared error of ln x of the mechanisms, the frequent ones weighing more.

    Args:
        logs: float32 (draws, parameters), logarithms of the learned rates.
        rates: float32 (draws, parameters), the true ones.
        setting: whose mechanisms are compared.

    Returns:
        A float32 scalar.
    """
    true = rates.clamp(min=1e-9) @ setting.classes.T
    learned = logs.exp() @ setting.classes.T
    weight = setting.members * true.sqrt()
    error = (learned / true).log() ** 2
    return ((weight * error).sum(dim=1) / weight.sum(dim=1)).mean()


def train(settings: NoiseNetworkSettings) -> Path:
    """Trains, or goes on where state.safetensors in the output folder stands.

    Raises:
        QecError: distances with different noise parameters, or a state of another training.
    """
    torch.manual_seed(settings.seed)
    known = {(d, b): Setting(d, b) for d in set(settings.distances) for b in "XZ"}
    names = known[settings.distances[0], "X"].names
    if any(set(setting.names) != set(names) for setting in known.values()):
        raise QecError("the distances do not all have the same noise parameters.")
    for setting in known.values():
        setting.classes = setting.classes[:, [setting.names.index(name) for name in names]]
    network = NoiseNetwork(len(names), settings.width)
    average = AveragedModel(
        network, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.lr, weight_decay=0.0)
    run = _Run(settings, network, average, optimiser, names)
    step = run.resume()
    loader = torch.utils.data.DataLoader(
        Examples(settings, step, names),
        batch_size=None,
        num_workers=settings.workers,
        worker_init_fn=_start_worker,
    )
    with signals_blocked():
        examples = iter(loader)
    cpu, recent, saved = torch.device("cpu"), [], time.monotonic()
    dtype = network_dtype(cpu)
    bar = track(examples, "training", settings.steps - step, console=Console(stderr=True))
    for distance, basis, rates, events in bar:
        for group in optimiser.param_groups:
            warm = min(1.0, (step + 1) / 100)
            group["lr"] = settings.lr * warm * (1 - step / settings.steps)
        setting = known[distance, str(basis)]
        rates, events = torch.as_tensor(rates), np.asarray(events)
        with autocast(cpu):
            features = torch.stack(
                [network.features(setting.patches.tensor(e, dtype)) for e in events]
            )
        network.observe(features.detach(), decay=min(0.99, 1 - 1 / (step + 1)))
        shots = torch.full((len(events),), float(events.shape[1]))
        loss = loss_of(network.rates(features, shots, distance), rates, setting)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        average.update_parameters(network)
        step += 1
        recent.append(loss.item())
        if step % 100 == 0:
            print(f"step {step} loss {np.mean(recent[-100:]):.4f}", flush=True)
        if time.monotonic() - saved > settings.save_every:
            run.save(step)
            saved = time.monotonic()
    run.save(step)
    path = settings.out / "network.safetensors"
    save_network(
        path, cast(NoiseNetwork, average.module), names, {"steps": step, "settings": repr(settings)}
    )
    return path


@dataclasses.dataclass
class _Run:
    settings: NoiseNetworkSettings
    network: NoiseNetwork
    average: AveragedModel
    optimiser: torch.optim.Optimizer
    names: tuple[str, ...]

    def _state(self) -> Path:
        return self.settings.out / "state.safetensors"

    def _tensors(self) -> dict[str, torch.Tensor]:
        """What is there before any step."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        return tensors | {f"average.{k}": v for k, v in self.average.state_dict().items()}

    def save(self, step: int) -> None:
        tensors = {"step": torch.tensor(step), **self._tensors()}
        for k, p in enumerate(self.network.parameters()):
            for name, value in self.optimiser.state.get(p, {}).items():
                tensors[f"optimiser.{k}.{name}"] = value
        with atomic_path(self._state()) as temporary:
            save_file({k: v.contiguous().clone() for k, v in tensors.items()}, temporary)

    def resume(self) -> int:
        """The step of the state that is there, which it takes over; 0 without one.

        Raises:
            QecError: it is damaged, or of a network of another kind.
        """
        if not self._state().exists():
            return 0
        try:
            tensors = load_file(self._state())
            step = tensors.pop("step")
            wanted = self._tensors()
            parameters = dict(enumerate(self.network.parameters()))
            for k, p in parameters.items():
                wanted |= {f"optimiser.{k}.{name}": p for name in ("exp_avg", "exp_avg_sq")}
                wanted[f"optimiser.{k}.step"] = torch.tensor(0.0)
            missing = sorted(wanted.keys() ^ tensors.keys())
            odd = [
                k
                for k, v in tensors.items()
                if (v.shape, v.dtype) != ((like := wanted.get(k, v)).shape, like.dtype)
            ]
            if missing or odd or step.dtype != torch.int64 or step.shape or step < 0:
                raise ValueError(f"{(missing + odd + ['step'])[0]} is not as expected")
            if not all(tensor.isfinite().all() for tensor in tensors.values()):
                raise ValueError("not all numbers are finite")
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise QecError(
                f"cannot resume from {self._state()} ({first_line(error)}): it is damaged or of "
                "other settings. Remove it or choose another out=."
            ) from error

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.network.load_state_dict(part("network."))
        self.average.load_state_dict(part("average."))
        for k, p in parameters.items():
            self.optimiser.state[p] = part(f"optimiser.{k}.")
        return int(step)


@writes_out_alone
def train_from(config: DictConfig, _: Sequence[str] = ()) -> None:
    """Trains as configured by conf/train-noise-network.yaml, and prints the checkpoint's path."""
    values = plain_values(config)
    for key in ("shots", "distances", "p"):
        values[key] = value_list(key, values[key])
    values["out"] = required_path(config, "out")
    print(train(NoiseNetworkSettings(**values)))
