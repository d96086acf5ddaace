"""Rate of the label generator on one core: ``python -m qec.training.benchmark``.

Times sampling (Stim's frames to chains) and canonicalisation, both sectors, and watches memory.
"""

from __future__ import annotations

import argparse
import resource
import time

from rich.console import Console
from rich.table import Table

from qec.chain import canonicalise
from qec.circuit import memory_circuit
from qec.code import RotatedSurfaceCode
from qec.noise import CircuitNoise
from qec.sampling import FrameSampler


def label_rate(sampler: FrameSampler, shots: int, repeats: int) -> tuple[float, float]:
    """Seconds per shot of sampling and of canonicalisation, means over ``repeats`` batches."""
    sampling = reducing = 0.0
    for seed in range(repeats):
        start = time.perf_counter()
        labelled = sampler.sample(shots, seed)
        middle = time.perf_counter()
        canonicalise(labelled.chain, sampler.lattice)
        sampling += middle - start
        reducing += time.perf_counter() - middle
    return sampling / (shots * repeats), reducing / (shots * repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--distance", type=int, default=9)
    parser.add_argument("--p", type=float, default=0.006)
    parser.add_argument("--shots", type=int, default=8192, help="per batch")
    parser.add_argument("--batches", type=int, default=30)
    args = parser.parse_args()
    code, noise = RotatedSurfaceCode(args.distance), CircuitNoise.uniform(args.p)
    table = Table("basis", "shots/s", "sampler us/shot", "canonical form us/shot", "sampler share")
    for basis in ("X", "Z"):
        sampler = FrameSampler(memory_circuit(code, noise, args.distance, basis))
        label_rate(sampler, args.shots, 2)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sampling, reducing = label_rate(sampler, args.shots, args.batches)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        total = sampling + reducing
        table.add_row(
            basis,
            f"{1 / total:,.0f}",
            f"{1e6 * sampling:.2f}",
            f"{1e6 * reducing:.2f}",
            f"{sampling / total:.0%}",
        )
        print(f"{basis}: peak memory grew by {grown:.1f} MiB over {args.batches} batches")
    Console().print(table)
    print(f"one core, d = R = {args.distance}, uniform noise p = {args.p}, both sectors")


if __name__ == "__main__":
    main()
