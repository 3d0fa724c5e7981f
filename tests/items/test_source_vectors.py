"""Vectors of a source by item number: one scale, stand-ins, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recembed.errors import ConfigError, DataError
from recembed.items.source_vectors import SourceVectors, sources_of
from tests.items.graphs import ITEMS, vectors


def test_vectors_have_mean_0_and_root_mean_square_1() -> None:
    found = SourceVectors("image", vectors(5, 1), ITEMS)()
    torch.testing.assert_close(found.mean(0), torch.zeros(5), atol=1e-6, rtol=0)
    assert found.square().mean().item() == pytest.approx(1, abs=1e-5)
    assert not list(SourceVectors("image", vectors(5, 1), ITEMS).parameters())  # no stand-in where none is needed


def test_an_absent_item_reads_the_stand_in_and_moves_it() -> None:
    source = SourceVectors("text", vectors(3, 2, absent=(2, 7)), ITEMS)
    assert source.missing == 2 and source.stand_in is not None
    with torch.no_grad():
        source.stand_in.copy_(torch.tensor([1.0, 2.0, 3.0]))
    found = source(torch.tensor([7, 0, 2]))
    assert found[[0, 2]].tolist() == [[1.0, 2.0, 3.0]] * 2
    found.sum().backward()
    assert source.stand_in.grad is not None and source.stand_in.grad.tolist() == [2.0, 2.0, 2.0]
    assert found.isfinite().all()


def test_mean_and_scale_are_those_of_training_for_a_later_catalogue() -> None:
    first = SourceVectors("image", vectors(5, 1), ITEMS)
    more = vectors(5, 1, items=ITEMS + 3)
    more = replace(more, matrix=np.concatenate([vectors(5, 1).matrix, more.matrix[:3] * 50]))
    later = SourceVectors("image", more, ITEMS + 3)
    assert not torch.allclose(later(torch.arange(ITEMS)), first())
    later.load_state_dict(first.state_dict())
    assert torch.equal(later(torch.arange(ITEMS)), first())


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(DataError, match=r"text: vectors of shape \[9, 3\].*expected one row for each of the 8 items"):
        SourceVectors("text", vectors(3, 2), 8)
    broken = vectors(3, 2)
    broken.matrix[4, 1] = np.nan
    with pytest.raises(DataError, match="text: the vector of item 4 holds NaN or infinity"):
        SourceVectors("text", broken, ITEMS)
    with pytest.raises(DataError, match="text: not one of the 9 items has a vector"):
        SourceVectors("text", vectors(3, 2, absent=tuple(range(9))), ITEMS)
    with pytest.raises(ConfigError, match="no content: give the vectors of at least one source"):
        sources_of({}, ITEMS)
