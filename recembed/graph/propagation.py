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
each) cost more than reading them. Axes: ``N`` nodes, ``n`` some of them, ``M`` entries, ``D`` width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recembed.rows.processes import Processes

__all__ = ["mean_of_powers", "multiply", "rows_of_mean_of_powers"]

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


def rows_of_mean_of_powers(
    vectors: Tensor,
    nodes: Tensor,
    pointers: Tensor,
    neighbours: Tensor,
    weights: Tensor,
    transposed_weights: Tensor,
    layers: int,
) -> tuple[Tensor, Tensor]:
    """Return the rows ``nodes`` of ``mean_of_powers``, and of ``vectors`` themselves; ``layers`` is at least 1.

    The last product is done for ``nodes`` alone. The gradient, zero but for these rows, is added to a product row by
    row, so a step holds two arrays of all nodes beside ``vectors``, forward and backward.

    Shapes:
        vectors: ``[N, D]``; nodes: int64 ``[n]``, all different. Returns ``[n, D]`` twice.
    """
    rows: tuple[Tensor, Tensor] = _RowsOfMeanOfPowers.apply(  # type: ignore[no-untyped-call]
        vectors, nodes, pointers, neighbours, weights, transposed_weights, layers
    )
    return rows


def _bags(vectors: Tensor, pointers: Tensor, neighbours: Tensor, weights: Tensor, processes: Processes) -> Tensor:
    return torch.nn.functional.embedding_bag(
        neighbours,
        processes.gather(vectors),
        pointers,
        mode="sum",
        per_sample_weights=weights,
        include_last_offset=True,
    )


def _bags_of(nodes: Tensor, vectors: Tensor, pointers: Tensor, neighbours: Tensor, weights: Tensor) -> Tensor:
    """Return the rows ``nodes`` of the product, ``[n, D]``."""
    starts = pointers[nodes]
    own = torch.nn.functional.pad((pointers[nodes + 1] - starts).cumsum(0, dtype=pointers.dtype), (1, 0))  # [n + 1]
    entries = torch.repeat_interleave(starts - own[:-1], own.diff())
    entries += torch.arange(len(entries), dtype=entries.dtype, device=entries.device)
    return _bags(vectors, own, neighbours.index_select(0, entries), weights.index_select(0, entries), _ALONE)


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


class _RowsOfMeanOfPowers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        vectors: Tensor,
        nodes: Tensor,
        pointers: Tensor,
        neighbours: Tensor,
        weights: Tensor,
        transposed: Tensor,
        layers: int,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(nodes, pointers, neighbours, transposed)
        ctx.layers, ctx.all_nodes = layers, len(vectors)
        total = vectors
        for _ in range(layers - 1):
            total = _bags(total, pointers, neighbours, weights, _ALONE).add_(vectors)  # [N, D]
        own = vectors.index_select(0, nodes)
        return _bags_of(nodes, total, pointers, neighbours, weights).add_(own).div_(layers + 1), own

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        nodes, pointers, neighbours, weights = ctx.saved_tensors
        to_mean, to_own = gradients
        total = to_mean.new_zeros(ctx.all_nodes, to_mean.shape[1]).index_copy_(0, nodes, to_mean)
        for _ in range(ctx.layers):
            total = _bags(total, pointers, neighbours, weights, _ALONE).index_add_(0, nodes, to_mean)  # [N, D]
        total.div_(ctx.layers + 1).index_add_(0, nodes, to_own)
        return total, None, None, None, None, None, None


def _of_all(gradient: Tensor, processes: Processes) -> Tensor:
    """Return the gradient of the loss of all, of which that of a process's own is one part in ``share``."""
    return gradient.contiguous() if processes.count == 1 else gradient * processes.share


def _of_own(gradient: Tensor, processes: Processes) -> Tensor:
    return gradient if processes.count == 1 else gradient / processes.share
