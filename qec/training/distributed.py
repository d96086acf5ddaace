"""The processes that train together: which of them this one is, and what they tell each other.

srun and torchrun say so in the environment of the processes that they start.  Every other process
is alone; then nothing is exchanged, and the same code trains.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping

import torch
from torch import distributed, nn

from qec.support.errors import QecError

# The rank, the number of processes, the rank among those of the same node.  Slurm's are those of a
# step: in a batch script, outside of srun, SLURM_NTASKS would promise processes that do not exist.
_LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
)


@dataclasses.dataclass(frozen=True)
class ProcessGroup:
    """One of ``size`` processes that train together.

    Attributes:
        rank: number of this process, from 0; rank 0 writes the files and prints.
        size: how many there are.
        local_rank: number of this process on its node.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def discover(cls, environment: Mapping[str, str] = os.environ) -> ProcessGroup:
        """What srun or torchrun say.

        Raises:
            QecError: several processes that are not told where they meet.
        """
        for names in _LAUNCHERS:
            if all(name in environment for name in names):
                found = cls(*(int(environment[name]) for name in names))
                if found.size > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
                    raise QecError(
                        f"{found.size} processes are to train together, but MASTER_ADDR and "
                        "MASTER_PORT are not set: start them with slurm/train.sbatch or torchrun."
                    )
                return found
        return SINGLE_PROCESS

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device of this process; "cuda" is a GPU for each process of a node.

        Raises:
            QecError: a numbered GPU for several processes.
        """
        if self.size == 1 or name == "cpu":
            return torch.device(name)
        if name != "cuda":
            raise QecError(f"device={name} for {self.size} processes: use device=cuda.")
        return torch.device("cuda", self.local_rank % torch.cuda.device_count())

    @contextlib.contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """Context in which the processes can talk: NCCL between GPUs, gloo between CPUs."""
        if self.size == 1:
            yield
            return
        backend = "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(device)
            backend = "cpu:gloo,cuda:nccl"
        distributed.init_process_group(backend, rank=self.rank, world_size=self.size)
        yield
        # Not after an error: the others, who would have to take part, are in the middle of a step.
        distributed.destroy_process_group()

    def parallel(self, network: nn.Module) -> nn.Module:
        """The network with gradients that are means over the processes."""
        if self.size == 1:
            return network
        return nn.parallel.DistributedDataParallel(network, gradient_as_bucket_view=True)

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean over the processes, the same bits in each.

        Args:
            value: of any shape and floating dtype, the same in all processes.

        Returns:
            Its shape and dtype stay.
        """
        if self.size > 1:
            value = value.clone()
            distributed.all_reduce(value)
            value /= self.size
        return value

    def maximum(self, *values: int) -> list[int]:
        """The largest of each value over the processes.  GPUs are not waited for."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values)
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return tensor.tolist()

    def wait(self) -> None:
        """Until all processes are here."""
        self.maximum(0)


SINGLE_PROCESS = ProcessGroup()
