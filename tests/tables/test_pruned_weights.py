"""Sparse serving forms: the same vectors, the bytes that were counted, the smallest form chosen."""

from typing import Any

import pytest
import torch
import torch.fx.experimental._config as fx_config
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from recembed.tables import ServedTable, Table
from recembed.tables.kept_rows import SearchedRows, kept_rows_bytes, rows_within, serve_kept_rows
from recembed.tables.pruned_weights import (
    BitmapWeights,
    ColumnWeights,
    PlacedWeights,
    pruned_bytes,
    serve_pruned,
    weights_within,
)

FORMS = (BitmapWeights, ColumnWeights, PlacedWeights)


def sparse(ids: int, width: int, density: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(ids, width, generator=generator)
    return weights * (torch.rand(ids, width, generator=generator) < density)


def vectors(table: Table, ids: Tensor) -> Tensor:
    return table.decode([], ids)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("ids", "width", "density"), [(5000, 16, 0.2), (300, 300, 0.01), (2000, 1, 0.3), (50, 9, 1.0)])
def test_every_form_serves_the_weights_bit_for_bit(form: type[Any], ids: int, width: int, density: float) -> None:
    weights = sparse(ids, width, density)
    table = form(weights)
    assert torch.equal(vectors(table, torch.arange(ids)), weights)
    some = torch.tensor([[3, 0], [ids - 1, 3], [ids // 2, ids - 1]])
    assert torch.equal(vectors(table, some), weights[some])
    assert vectors(table, some[:0]).shape == (0, 2, width)
    assert table.address(some).shape == (3, 2, 0)


def test_bytes_worked_by_hand() -> None:
    """1000 rows of 16 fit in one block of 1024, so starts take 2 * 1001 + 4 = 2006 bytes; 1000 weights are there.

    Bitmap 2006 + 2 * 1000 + 4 * 1000 = 8006; columns 2006 + 5 * 1000 = 7006; places 8 * 1000 = 8000.
    """
    weights = torch.zeros(1000, 16)
    weights[:, 3] = 1.0
    assert [form(weights).overhead_bytes for form in FORMS] == [8006, 7006, 8000]
    assert pruned_bytes(1000, 1000, 16) == 7006


@pytest.mark.parametrize(
    ("density", "form"), [(0.02, PlacedWeights), (0.1, ColumnWeights), (0.4, BitmapWeights), (0.99, ServedTable)]
)
def test_the_smallest_form_is_chosen_and_is_as_large_as_planned(density: float, form: type) -> None:
    weights = sparse(4000, 16, density)
    table = serve_pruned(weights)
    assert type(table) is form
    assert table.overhead_bytes == pruned_bytes(int((weights != 0).sum()), 4000, 16)
    assert torch.equal(vectors(table, torch.arange(4000)), weights)


def test_whole_rows_that_are_zero_are_served_as_rows() -> None:
    weights = sparse(1000, 16, 1.0) * (torch.arange(1000) < 700).unsqueeze(1)
    table = serve_pruned(weights)
    assert isinstance(table, ServedTable) and table.overhead_bytes == 4 * 701 * 16 + 2 * 1000
    assert torch.equal(vectors(table, torch.arange(1000)), weights)


def test_a_table_of_zeros() -> None:
    for table in (serve_pruned(torch.zeros(50, 4)), PlacedWeights(torch.zeros(50, 4))):
        assert vectors(table, torch.arange(50)).abs().sum() == 0
        assert table.overhead_bytes <= pruned_bytes(0, 50, 4) + 12


@pytest.mark.parametrize(
    ("kept", "form"), [(0, SearchedRows), (20, SearchedRows), (800, ServedTable), (1000, ServedTable)]
)
def test_kept_rows(kept: int, form: type) -> None:
    rows = sparse(1000, 5, 1.0)
    mask = torch.randperm(1000, generator=torch.Generator().manual_seed(1)) < kept
    table = serve_kept_rows(rows, mask, 8)
    served = vectors(table, torch.arange(1000))
    assert type(table) is form and table.overhead_bytes == kept_rows_bytes(kept, 1000, 5)
    assert torch.equal(served[:, :5], rows * mask.unsqueeze(1)) and served[:, 5:].abs().sum() == 0


@given(st.integers(0, 70_000), st.integers(1, 900), st.sampled_from([1, 4, 16, 300]))
def test_a_budget_is_used_up_and_not_exceeded(budget: int, ids: int, width: int) -> None:
    weights = weights_within(budget, ids, width)
    assert weights == 0 or pruned_bytes(weights, ids, width) <= budget
    assert weights == ids * width or pruned_bytes(weights + 1, ids, width) > budget
    rows = rows_within(budget, ids, width)
    assert rows == -1 or kept_rows_bytes(rows, ids, width) <= budget
    assert rows == ids or kept_rows_bytes(rows + 1, ids, width) > budget


class _Exported(nn.Module):
    def __init__(self, table: Table) -> None:
        super().__init__()
        self.table = table

    def forward(self, ids: Tensor) -> Tensor:
        return self.table.decode([], ids[:, 1])


@pytest.mark.parametrize("form", [*FORMS, SearchedRows])
def test_exported_equals_eager(form: type[Any]) -> None:
    weights = sparse(3000, 8, 0.1)
    if form is SearchedRows:
        weights[torch.arange(3000) % 10 > 0] = 0
        table: Table = serve_kept_rows(weights, (weights != 0).any(1), 8)
        assert type(table) is form
    else:
        table = form(weights)
    module = _Exported(table)
    shapes = {"ids": {0: torch.export.Dim("batch", min=1)}}
    with fx_config.patch(backed_size_oblivious=True):
        program = torch.export.export(module, (torch.randint(3000, (7, 3)),), dynamic_shapes=shapes).module()
    for rows in (1, 4, 33):
        ids = torch.randint(3000, (rows, 3), generator=torch.Generator().manual_seed(rows))
        assert torch.equal(program(ids), weights[ids[:, 1]])
