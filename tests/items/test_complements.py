"""Complements on a catalogue with two sides, pairs, and both matrices kept together."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recembed.errors import ConfigError, DataError
from recembed.items.complements import (
    ComplementsConfig,
    DualEmbeddings,
    basket_pairs,
    pair_loss,
    synthetic_pairs,
    train_complements,
)


def two_sides() -> pl.DataFrame:
    """Ten groups; a basket holds one of the group's three variants of A and one of its three of B."""
    draw = np.random.default_rng(0)
    group = draw.integers(0, 10, 1500)
    sides = [[f"A{g}.{a}", f"B{g}.{b}"] for g, a, b in zip(group, *draw.integers(0, 3, (2, 1500)), strict=True)]
    return pl.DataFrame({"basket": np.arange(1500), "item": sides}).explode("item")


def test_in_and_out_find_what_completes_in_and_in_what_is_alike() -> None:
    items, pairs = basket_pairs(two_sides(), "basket", "item")
    dual = train_complements(items, pairs, ComplementsConfig(embedding_dim=16, epochs=20))
    names = items.to_list()
    completes, alike = dual.complementary(range(60), 3), dual.similar(range(60), 2)
    for place, name in enumerate(names):
        other = ("B" if name[0] == "A" else "A") + name[1]
        assert {names[p][:2] for p in completes[place]} == {other}
        assert {names[p][:2] for p in alike[place]} == {name[:2]}


def test_pairs_of_a_basket() -> None:
    frame = pl.DataFrame({"basket": [1] * 4 + [2] + [3] * 2, "item": [5, 6, 7, 5, 8, 5, None]})
    items, pairs = basket_pairs(frame, "basket", "item")
    assert items.to_list() == [5, 6, 7, 8] and len(pairs) == 3 * 2  # n (n - 1), baskets of one item add nothing
    assert (pairs[:, 0] != pairs[:, 1]).all()
    with pytest.raises(DataError, match="no 'basket' holds two items of 'item'"):
        basket_pairs(frame.filter(pl.col("basket") == 2), "basket", "item")


def test_the_loss_by_hand() -> None:
    inward, outward = torch.tensor([[1.0], [0.0], [0.0]]), torch.tensor([[9.0], [2.0], [-1.0]])
    loss = pair_loss(inward, outward, torch.tensor([[0, 1]]), torch.tensor([[2, 0, 1]]))
    wanted = np.log(1 + np.exp(-2.0)) + np.log(1 + np.exp(-1.0))  # negatives 0 and 1 are the pair itself
    assert loss.item() == pytest.approx(wanted, abs=1e-6)


def test_synthetic_pairs_go_through_what_is_alike() -> None:
    content = np.array([[1.0, 0], [0.9, 0.1], [0, 1], [0, 0]])
    found = synthetic_pairs(np.array([[0, 2], [2, 0], [3, 0]]), content, neighbours=1)
    assert found.tolist() == [[1, 2], [1, 0]]  # 1 is most like 0, and like 2; 3 has no content


def test_an_item_without_baskets_gets_complements_by_its_content() -> None:
    items, pairs = basket_pairs(two_sides(), "basket", "item")
    ids = pl.concat([items, pl.Series("item", ["A0.new"])])
    content = np.eye(20)[[2 * int(name[1]) + (name[0] == "B") for name in ids.to_list()]]
    more = np.concatenate([pairs, synthetic_pairs(pairs, content, 3)])
    assert (more[:, 0] == 60).any() and not (pairs == 60).any()
    dual = train_complements(ids, more, ComplementsConfig(embedding_dim=16, epochs=5))
    assert {ids[int(place)][:2] for place in dual.complementary([60], 3)[0]} == {"B0"}


def test_both_sides_are_written_together(tmp_path: Path) -> None:
    dual = DualEmbeddings(pl.Series("item", ["a", "b"]), np.eye(2, dtype=np.float32), -np.eye(2, dtype=np.float32))
    dual.write(tmp_path / "dual.parquet")
    again = DualEmbeddings.read(tmp_path / "dual.parquet")
    assert again.ids.to_list() == ["a", "b"]
    assert np.array_equal(again.inward, dual.inward) and np.array_equal(again.outward, dual.outward)
    pl.DataFrame({"item": ["a"], "in": [[1.0]]}).write_parquet(tmp_path / "one.parquet")
    with pytest.raises(DataError, match=r"one\.parquet does not hold both sides"):
        DualEmbeddings.read(tmp_path / "one.parquet")
    with pytest.raises(ConfigError, match=r"k = 2: expected 1\.\.1"):
        dual.similar([0], 2)
