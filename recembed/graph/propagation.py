"""The product of a sparse matrix and node vectors, the one hot loop of every graph encoder.

It is ``embedding_bag`` with a weight per entry: each row of the matrix is a bag of neighbours. PyTorch runs it with
FBGEMM's kernel on CPU (vectorised, prefetching, on all threads) and with its own on CUDA. CPU milliseconds of one
core on Gowalla (810,128 edges, 70,839 nodes, both directions, 64 wide; `examples/benchmarks/propagation.py`):

====================================  =====
scipy CSR                              49
numba, one fused loop                  30
embedding_bag                          19
embedding_bag, nodes by degree         20
embedding_bag, nodes by locality       13 (see ``InteractionGraph.for_locality``)
the same in bfloat16                    6
====================================  =====

Scaling the vectors by ``D^-1/2`` before and after would spare the weights, but two more passes over the vectors (3 ms
each) cost more than reading them. Axes: ``N`` nodes, ``M`` entries, ``D`` width.
"""

from typing import Any

import torch
from torch import Tensor

from recembed.rows.processes import Processes

__all__ = ["mean_of_powers", "multiply"]

_ALONE = Processes()


def multiply(
    vectors: Tensor,
    pointers: Tensor,
    neighbours: Tensor,
    weights: Tensor,
    transposed_weights: Tensor,
    processes: Processes = _ALONE,
) -> Tensor:
    """Return ``A @ vectors`` of a matrix with a symmetric pattern; the gradient is ``A^T @ gradient``.

    Several ``processes`` have runs of rows, of the matrix, the vectors and the product, one after the other; each
    gathers the vectors of all, in backward the gradients of all, and multiplies its own rows.

    Shapes:
        vectors: ``[N, D]``; pointers: ``[N + 1]``; neighbours: ``[M]`` of the same integer type; weights and
        transposed_weights: float32 ``[M]``. Returns ``[N, D]``.
    """
    product: Tensor = _Product.apply(  # type: ignore[no-untyped-call]
        vectors, pointers, neighbours, weights, transposed_weights, processes
    )
    return product


def mean_of_powers(
    vectors: Tensor,
    pointers: Tensor,
    neighbours: Tensor,
    weights: Tensor,
    transposed_weights: Tensor,
    layers: int,
    processes: Processes = _ALONE,
) -> Tensor:
    """Return ``(x + A x + … + A^layers x) / (layers + 1)`` with two arrays beside ``x``, and none kept for the gradient.

    Horner's rule: ``x + A (x + A (x + A x))``. The gradient is the same sum with the transposed matrix. For
    ``processes`` see ``multiply``.
    """
    mean: Tensor = _MeanOfPowers.apply(  # type: ignore[no-untyped-call]
        vectors, pointers, neighbours, weights, transposed_weights, layers, processes
    )
    return mean


def _bags(vectors: Tensor, pointers: Tensor, neighbours: Tensor, weights: Tensor, processes: Processes) -> Tensor:
    return torch.nn.functional.embedding_bag(
        neighbours,
        processes.gather(vectors),
        pointers,
        mode="sum",
        per_sample_weights=weights,
        include_last_offset=True,
    )


def _horner(
    vectors: Tensor, pointers: Tensor, neighbours: Tensor, weights: Tensor, processes: Processes, layers: int
) -> Tensor:
    total = vectors
    for _ in range(layers):
        total = _bags(total, pointers, neighbours, weights, processes).add_(vectors)  # [N, D]
    return total.div_(layers + 1) if layers else total.clone()


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        vectors: Tensor,
        pointers: Tensor,
        neighbours: Tensor,
        weights: Tensor,
        transposed: Tensor,
        processes: Processes,
    ) -> Tensor:
        ctx.save_for_backward(pointers, neighbours, transposed)
        ctx.processes = processes
        return _bags(vectors, pointers, neighbours, weights, processes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        pointers, neighbours, weights = ctx.saved_tensors
        gradient = _of_all(gradients[0], ctx.processes)
        product = _bags(gradient, pointers, neighbours, weights, ctx.processes)
        return _of_own(product, ctx.processes), None, None, None, None, None


class _MeanOfPowers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        vectors: Tensor,
        pointers: Tensor,
        neighbours: Tensor,
        weights: Tensor,
        transposed: Tensor,
        layers: int,
        processes: Processes,
    ) -> Tensor:
        ctx.save_for_backward(pointers, neighbours, transposed)
        ctx.layers, ctx.processes = layers, processes
        return _horner(vectors, pointers, neighbours, weights, processes, layers)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        pointers, neighbours, weights = ctx.saved_tensors
        gradient = _of_all(gradients[0], ctx.processes)
        mean = _horner(gradient, pointers, neighbours, weights, ctx.processes, ctx.layers)
        return _of_own(mean, ctx.processes), None, None, None, None, None, None


def _of_all(gradient: Tensor, processes: Processes) -> Tensor:
    """Return the gradient of the loss of all, of which that of a process's own is one part in ``share``."""
    return gradient.contiguous() if processes.count == 1 else gradient * processes.share


def _of_own(gradient: Tensor, processes: Processes) -> Tensor:
    return gradient if processes.count == 1 else gradient / processes.share
