"""Pooling against loops over rows, its edges, and its export."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import Dim, export
from torch.nn import functional

from recembed.errors import ConfigError
from recembed.pooling import pad, pool

MODES = ("sum", "mean", "max")


def offsets_of(lengths: list[int]) -> Tensor:
    return functional.pad(torch.tensor(lengths, dtype=torch.int64).cumsum(0), (1, 0))


def slow_pool(vectors: Tensor, lengths: list[int], mode: str, weights: Tensor | None) -> Tensor:
    rows, start = [], 0
    for length in lengths:
        total, weight_sum = [0.0] * vectors.shape[1], 0.0
        for d in range(vectors.shape[1]):
            column = [vectors[n, d].item() for n in range(start, start + length)]
            scale = [1.0] * length if weights is None else weights[start : start + length].tolist()
            weight_sum = sum(scale)
            if mode == "max":
                total[d] = max(column, default=0.0)
            else:
                total[d] = sum(w * v for w, v in zip(scale, column, strict=True))
                if mode == "mean":
                    total[d] = total[d] / weight_sum if weight_sum else 0.0
        rows.append(total)
        start += length
    return torch.tensor(rows, dtype=vectors.dtype).view(len(lengths), vectors.shape[1])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 4), max_size=6), st.sampled_from(MODES), st.booleans(), st.integers(0, 9))
def test_pool_is_the_loop_over_rows(lengths: list[int], mode: Any, weighted: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(sum(lengths), 3, generator=generator)
    weights = torch.rand(sum(lengths), generator=generator) if weighted and mode != "max" else None
    torch.testing.assert_close(
        pool(vectors, offsets_of(lengths), mode, weights), slow_pool(vectors, lengths, mode, weights)
    )


def test_pool_by_hand() -> None:
    vectors = torch.tensor([[1.0, -5.0], [3.0, -7.0], [10.0, -2.0]])
    offsets = torch.tensor([0, 2, 2, 3])
    weights = torch.tensor([1.0, 3.0, 0.5])
    assert pool(vectors, offsets, "sum").tolist() == [[4, -12], [0, 0], [10, -2]]
    assert pool(vectors, offsets, "mean").tolist() == [[2, -6], [0, 0], [10, -2]]
    assert pool(vectors, offsets, "max").tolist() == [[3, -5], [0, 0], [10, -2]]
    assert pool(vectors, offsets, "sum", weights).tolist() == [[10, -26], [0, 0], [5, -1]]
    assert pool(vectors, offsets, "mean", weights).tolist() == [[2.5, -6.5], [0, 0], [10, -2]]


def test_weighted_mean_of_weights_that_sum_to_nothing_is_zero() -> None:
    vectors = torch.tensor([[1.0], [3.0], [5.0]], requires_grad=True)
    pooled = pool(vectors, torch.tensor([0, 2, 3]), "mean", torch.tensor([0.0, 0.0, 2.0]))
    assert pooled.tolist() == [[0.0], [5.0]]
    pooled.sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.tolist() == [[0.0], [0.0], [1.0]]


@pytest.mark.parametrize("mode", MODES)
def test_gradients(mode: Any) -> None:
    torch.manual_seed(0)
    vectors = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    weights = None if mode == "max" else torch.rand(6, dtype=torch.float64, requires_grad=True)
    offsets = torch.tensor([0, 3, 3, 6])
    assert torch.autograd.gradcheck(lambda v, w: pool(v, offsets, mode, w), (vectors, weights))


def test_pool_refuses_what_it_cannot_do() -> None:
    vectors, offsets = torch.ones(2, 1), torch.tensor([0, 2])
    with pytest.raises(ConfigError, match="pooling = 'meen' is unknown; did you mean 'mean'"):
        pool(vectors, offsets, "meen")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'max' cannot use weights: choose 'sum' or 'mean'"):
        pool(vectors, offsets, "max", torch.ones(2))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 5), max_size=6), st.none() | st.integers(1, 4))
def test_pad_is_the_loop_over_rows(lengths: list[int], max_length: int | None) -> None:
    vectors = torch.arange(1.0, 2 * sum(lengths) + 1).view(-1, 2)
    padded = pad(vectors, offsets_of(lengths), max_length)
    length = max_length or max(lengths, default=0)
    assert padded.values.shape == (len(lengths), length, 2)
    assert padded.mask.shape == (len(lengths), length)
    start = 0
    for row, count in enumerate(lengths):
        kept = vectors[start : start + count].tolist()[-length:] if length else []
        assert padded.values[row].tolist() == kept + [[0.0, 0.0]] * (length - len(kept))
        assert padded.mask[row].tolist() == [True] * len(kept) + [False] * (length - len(kept))
        start += count


def test_pad_gives_gradients_to_kept_vectors_alone() -> None:
    vectors = torch.ones(4, 2, requires_grad=True)
    pad(vectors, torch.tensor([0, 3, 4]), max_length=2).values.sum().backward()
    assert vectors.grad is not None
    assert vectors.grad[:, 0].tolist() == [0.0, 1.0, 1.0, 1.0]


def test_pad_refuses_a_length_below_one() -> None:
    with pytest.raises(ConfigError, match="max_length = 0: expected at least 1"):
        pad(torch.ones(1, 1), torch.tensor([0, 1]), max_length=0)


class Pooled(nn.Module):
    """Everything of this file in one graph, fed with offsets or with lengths."""

    def __init__(self, *, lengths: bool) -> None:
        super().__init__()
        self.lengths = lengths

    def forward(self, vectors: Tensor, rows: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        offsets = functional.pad(rows.cumsum(0), (1, 0)) if self.lengths else rows
        padded = pad(vectors, offsets, 3)
        pooled = [pool(vectors, offsets, mode) for mode in ("sum", "mean", "max")]
        weighted = [pool(vectors, offsets, mode, weights) for mode in ("sum", "mean")]
        return (*pooled, *weighted, padded.values, padded.mask)


@pytest.mark.parametrize("lengths", [False, True])
def test_export_with_any_batch(lengths: bool) -> None:
    module = Pooled(lengths=lengths)
    batch, ids = Dim("batch"), Dim("ids")

    def inputs(counts: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.tensor(counts) if lengths else offsets_of(counts)
        return torch.randn(sum(counts), 4), rows, torch.rand(sum(counts))

    shapes = ({0: ids}, {0: batch if lengths else batch + 1}, {0: ids})
    program = export(module, inputs([2, 0, 5]), dynamic_shapes=shapes).module()
    cases = [[0, 1, 8], [0, 0], [3, 3, 3, 3, 3]]
    # torch guards against one row where the batch is known from the offsets alone; lengths carry it as it is
    for counts in [*cases, [4], [0]] if lengths else cases:
        these = inputs(counts)
        for ours, expected in zip(program(*these), module(*these), strict=True):
            torch.testing.assert_close(ours, expected)
