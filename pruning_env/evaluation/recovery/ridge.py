"""Least squares for what is still missing, shrunk as far as its noise asks. Knows only matrices."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ridge_step"]


def ridge_step(read: Tensor, missing: Tensor, shifted: bool) -> tuple[Tensor, Tensor]:
    """The change of weights D, and of the outputs' constants s, with `read @ D + s` ~ `missing`.

    Minimises |read D + s - missing|^2 / R + k |D|^2 in each of G independent problems. The first
    term is then not above that of D = 0, s = 0: a step never makes matters worse. k is the estimate
    of Hoerl, Kennard and Baldwin 1975, "Ridge Regression: Some Simulations": n v / (R |D0|^2), with
    D0 the solution for the smallest k that the arithmetic allows, and v the variance that D0
    leaves, per degree of freedom. Where the inputs explain everything there is no shrinkage; where
    rows are no more than inputs, all variance counts as unexplained.

    Args:
        read: (G, R, n) inputs.
        missing: (G, R, m) outputs.
        shifted: Whether s is free; otherwise it is 0.

    Returns:
        (G, n, m) and (G, 1, m), in the dtype of `read`; not finite where an argument is not.
    """
    groups, rows, inputs = read.shape
    middle = read.new_zeros(groups, 1, inputs)
    centre = missing.new_zeros(groups, 1, missing.shape[2])
    if shifted:
        middle, centre = read.mean(1, keepdim=True), missing.mean(1, keepdim=True)
        read, missing = read - middle, missing - centre
    problem = (_ByInputs if inputs <= rows else _ByRows)(read, missing)
    least = problem.size.clamp_min(1e-30) * torch.finfo(read.dtype).eps ** 0.5
    first, left = problem.solve(least)
    if inputs < rows:
        left = torch.minimum(problem.total, left * rows / (rows - inputs))
    else:
        left = problem.total
    length = first.square().sum((1, 2)).clamp_min(1e-300)
    step = problem.solve(torch.maximum(inputs * left / (rows * length), least))[0].to(read.dtype)
    return step, centre - middle @ step


class _ByInputs:
    """The normal equations: one unknown per input.

    Attributes:
        size: (G,) mean square of an input.
        total: (G,) sum over outputs of the mean square of what is missing.
    """

    def __init__(self, read: Tensor, missing: Tensor) -> None:
        rows = read.shape[1]
        self._moments = (read.mT @ read).double() / rows
        self._products = (read.mT @ missing).double() / rows
        self.size = self._moments.diagonal(dim1=1, dim2=2).mean(1)
        self.total = missing.square().sum((1, 2)).double() / rows

    def solve(self, ridge: Tensor) -> tuple[Tensor, Tensor]:
        """The step for a k (G,), and what it leaves of `total`."""
        step = _solve(self._moments, ridge, self._products)
        explained = (step * (2 * self._products - self._moments @ step)).sum((1, 2))
        return step, (self.total - explained).clamp_min(0)


class _ByRows:
    """The same where rows are fewer: one unknown per row. Attributes as above."""

    def __init__(self, read: Tensor, missing: Tensor) -> None:
        self._read, self._missing = read.double(), missing.double()
        rows, inputs = read.shape[1:]
        self._likeness = self._read @ self._read.mT / rows
        self.size = self._likeness.diagonal(dim1=1, dim2=2).sum(1) / inputs
        self.total = self._missing.square().sum((1, 2)) / rows

    def solve(self, ridge: Tensor) -> tuple[Tensor, Tensor]:
        """The step for a k (G,), and what it leaves of `total`."""
        rows = self._read.shape[1]
        left = _solve(self._likeness, ridge, self._missing)  # times k, what the step leaves
        return self._read.mT @ left / rows, (ridge[:, None, None] * left).square().sum(
            (1, 2)
        ) / rows


def _solve(matrix: Tensor, ridge: Tensor, right: Tensor) -> Tensor:
    """(matrix + ridge I)^-1 right of positive matrices; NaN where they are none, and no error."""
    one = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    factor, failed = torch.linalg.cholesky_ex(matrix + ridge[:, None, None] * one)
    solution = torch.cholesky_solve(right, factor)
    return torch.where(failed[:, None, None] > 0, torch.nan, solution)
