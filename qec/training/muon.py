"""Muon: momentum with orthogonal updates (Jordan et al., kellerjordan.github.io/posts/muon).

torch.optim.Muon iterates on the whole kernel in bfloat16, which takes longer than a training step
of a small network on a CPU.  Here the iteration runs on the Gram matrix, in float32: 5 times fewer
multiply-adds for a kernel (64, 64 * 27), and 50 times less time on a CPU without bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

# The quintic whose iteration drives singular values in (0, 1] towards 1 (to within 0.3 or so) fast.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, made orthogonal matrix by matrix.

    Args:
        params: matrices (outputs, inputs).
        lr: step of every singular direction.
        momentum: decay of the mean gradient, per step.
    """

    def __init__(
        self, params: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Changes the weights by their gradients; ``closure`` is there for torch and not called."""
        for group in self.param_groups:
            momentum = group["momentum"]
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                mean = state["momentum_buffer"].lerp_(matrix.grad, 1 - momentum)
                update = orthogonalised(matrix.grad.lerp(mean, momentum))
                stretch = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
                matrix.add_(update, alpha=-group["lr"] * stretch)


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """About U V^T of the singular value decomposition U S V^T of a float32 matrix.

    Each iteration multiplies X by a I + b X X^T + c (X X^T)^2, a function of the Gram matrix alone;
    so that factor is gathered first and X multiplied once.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalised(matrix.t()).t()
    x = matrix / matrix.norm().clamp(min=1e-7)
    gram = x @ x.t()
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    total = identity
    for _ in range(_ITERATIONS):
        factor = _A * identity + _B * gram + _C * (gram @ gram)
        total = factor @ total
        gram = factor @ gram @ factor
    return total @ x
