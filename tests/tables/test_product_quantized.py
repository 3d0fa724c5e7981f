"""Product-quantised tables: which codeword is chosen, who may choose it, how all learn, and what is served."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recembed.errors import ConfigError
from recembed.rows import SGD, PlainStore
from recembed.tables import FullTable, HashedTable, ProductQuantizedConfig, ProductQuantizedTable, TableSpec
from recembed.tables.packed_codes import CodeLayout, PackedCodes


def falling(size: int = 500, width: int = 8, **options: Any) -> TableSpec:
    return TableSpec("f", size, width, counts=np.arange(size, 0, -1), reserved_ids=3, **options)


def build(spec: TableSpec | None = None, **options: Any) -> tuple[ProductQuantizedTable, PlainStore]:
    settings = {"codewords": 16, "parts": 4, "exact_below": 0} | options
    table = ProductQuantizedConfig.model_validate(settings).build([spec or falling()], seed=0)["f"]
    assert isinstance(table, ProductQuantizedTable)
    return table, PlainStore(table.slots, optimizer=SGD(learning_rate=1.0))


def by_hand(variant: str) -> tuple[ProductQuantizedTable, Tensor]:
    """Two parts of two numbers, two codewords each; the row is (1, 0 | 0, 3)."""
    table, _ = build(falling(width=4), parts=2, codewords=2, variant=variant)
    with torch.no_grad():
        table.codebook.copy_(torch.tensor([[[1.0, 1.0], [5.0, 0.0]], [[0.0, 2.0], [0.0, 9.0]]]))
    return table, torch.tensor([[1.0, 0.0, 0.0, 3.0]])


def test_nearest_codewords_worked_by_hand() -> None:
    """(1, 0) is at distance 1 of (1, 1) and 4 of (5, 0); (0, 3) at 1 of (0, 2) and 6 of (0, 9)."""
    table, row = by_hand("vq")
    assert table.eval().decode([row], torch.tensor([9])).tolist() == [[1.0, 1.0, 0.0, 2.0]]
    table.train()
    row.requires_grad_()
    vector = table.decode([row], torch.tensor([9]))
    assert vector.tolist() == [[1.0, 1.0, 0.0, 2.0]]
    codebook_loss, commitment = table.take_losses()
    assert (codebook_loss.item(), commitment.item()) == (2.0, 0.5)
    (vector * torch.tensor([[1.0, 2.0, 3.0, 4.0]])).sum().backward()
    assert row.grad.tolist() == [[1.0, 2.0, 3.0, 4.0]], "straight through"
    assert table.codebook.grad.tolist() == [[[1.0, 2.0], [0.0, 0.0]], [[3.0, 4.0], [0.0, 0.0]]]


def test_losses_pull_codewords_and_rows_together() -> None:
    table, row = by_hand("vq")
    row.requires_grad_()
    table.decode([row], torch.tensor([9]))
    torch.stack(table.take_losses()).sum().backward()
    assert table.codebook.grad.tolist() == [[[0.0, 2.0], [0.0, 0.0]], [[0.0, -2.0], [0.0, 0.0]]]
    assert row.grad.tolist() == [[0.0, -0.5, 0.0, 0.5]]


def test_softmax_worked_by_hand() -> None:
    """Keys choose by product: (1, 0) prefers (2, 0) to (0, 7); the row learns through the softmax of 2 and 0."""
    table, row = by_hand("softmax")
    assert table.keys is not None
    with torch.no_grad():
        table.keys.copy_(torch.tensor([[[0.0, 7.0], [2.0, 0.0]], [[0.0, 1.0], [0.0, 1.5]]]))
    row.requires_grad_()
    vector = table.decode([row], torch.tensor([9]))
    assert vector.tolist() == [[5.0, 0.0, 0.0, 9.0]] and table.take_losses() == []
    vector[0, 0].backward()
    p = torch.tensor([0.0, 2.0]).softmax(0)[1]  # d vector / d score = p (1 - p) (5 - 1)
    torch.testing.assert_close(row.grad[0, :2], 4 * p * (1 - p) * torch.tensor([2.0, -7.0]))
    assert table.codebook.grad[0].tolist() == [[0.0, 0.0], [1.0, 0.0]]
    assert table.keys.grad.abs().sum() > 0


@pytest.mark.parametrize("variant", ["vq", "softmax"])
@pytest.mark.parametrize("frequent_share", [None, 0.2])
def test_served_vectors_are_codewords_side_by_side(variant: str, frequent_share: float | None) -> None:
    table, store = build(variant=variant, frequent_share=frequent_share)
    ids = torch.arange(500)
    expected = table.eval().decode([store.rows("f")], ids)
    served = table.compact(store)
    assert torch.equal(served.decode([], ids), expected)
    for part, own in enumerate(expected.view(500, 4, 2).unbind(1)):
        assert (own.unsqueeze(1) == table.codebook[part]).all(2).any(1).all()
    assert served.overhead_bytes == sum(table.served_rows.values()) + table.served_overhead_bytes
    assert torch.equal(served.decode([], torch.tensor([7])), expected[[7]])


def test_rare_ids_use_the_first_codewords_only() -> None:
    table, store = build(frequent_share=0.2, rare_codewords=5)
    ids = torch.arange(500)
    codes = table.codes(store.rows("f"), ids)
    assert codes[100:].max() == 4 and codes[:100].max() == 15
    free, _ = build()
    assert torch.equal(codes[:100], free.codes(store.rows("f"), ids)[:100])
    assert table.served_rows == {"f": (4 * (100 * 4 + 400 * 3) + 7) // 8 + 2}


def test_rare_ids_of_a_grown_vocabulary_are_the_least_counted() -> None:
    counts = np.concatenate([np.arange(490, 0, -1), [5000] * 10])
    table, store = build(TableSpec("f", 500, 8, counts=counts, reserved_ids=3), frequent_share=0.02, rare_codewords=2)
    codes = table.codes(store.rows("f"), torch.arange(500))
    often = [0, 1, 2, *range(490, 497)]  # reserved ids, and seven of those that came late
    rare = np.setdiff1d(np.arange(500), often)
    assert codes[rare].max() == 1 and codes[often].max() > 1
    assert table.served_overhead_bytes == 4 * 16 * 8 + 4 * 500
    expected = table.eval().decode([store.rows("f")], torch.arange(500))
    assert torch.equal(table.compact(store).decode([], torch.arange(500)), expected)


@pytest.mark.parametrize(("bits", "rare_bits"), [(1, 1), (3, 2), (8, 6), (11, 5), (16, 13)])
def test_packed_codes_come_back(bits: int, rare_bits: int) -> None:
    layout = CodeLayout(ids=100, parts=3, bits=bits, frequent=37, rare_bits=rare_bits)
    codes = torch.randint(2**bits, (100, 3), generator=torch.Generator().manual_seed(0))
    codes[37:] &= 2**rare_bits - 1
    codes[0], codes[36], codes[99] = 2**bits - 1, 2**bits - 1, 2**rare_bits - 1
    packed = PackedCodes(layout)
    for ranks in torch.randperm(100, generator=torch.Generator().manual_seed(1)).split(17):
        packed.write(ranks, codes[ranks])
    assert torch.equal(packed(torch.arange(100).view(10, 10)), codes.view(10, 10, 3))
    assert packed.packed.nbytes == layout.bytes == (3 * (37 * bits + 63 * rare_bits) + 7) // 8 + 2


@pytest.mark.parametrize("variant", ["vq", "softmax"])
def test_training_finds_the_vectors_of_groups(variant: str) -> None:
    """500 ids of 4 kinds: four codewords suffice, and training must spread the ids over them."""
    table, store = build(codewords=8, parts=2, variant=variant)
    ids = torch.arange(500)
    wanted = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))[ids % 4]
    optimizer = torch.optim.Adam(table.parameters(), lr=0.02)
    store.set_learning_rate(2.0)

    def error(vectors: Tensor) -> float:
        return F.mse_loss(vectors, wanted).item()

    before = error(table.eval().decode([store.rows("f")], ids))
    table.train()
    for _ in range(150):
        optimizer.zero_grad()
        vectors = table.decode([store(ids, 8)], ids)
        loss = (vectors - wanted).square().sum(1).mean()
        torch.stack([loss, *table.take_losses()]).sum().backward()
        optimizer.step()
    assert error(table.eval().decode([store.rows("f")], ids)) < 0.5 * before


@pytest.mark.parametrize("ratio", [0.06, 0.1, 0.25])
@pytest.mark.parametrize("options", [{}, {"parts": 2}, {"codewords": 8}, {"frequent_share": 0.1}])
def test_ratio_is_kept_with_the_most_bits_that_fit(ratio: float, options: dict[str, Any]) -> None:
    table, _ = build(falling(5000, 16), **({"codewords": None, "parts": None, "ratio": ratio} | options))
    planned = sum(table.served_rows.values()) + table.served_overhead_bytes
    assert planned <= ratio * 4 * 5000 * 16
    if options == {}:
        # of 19,200 bytes 4 codes of 6 bits take 15,000 and their codebook 4,096; of 7 bits 17,500 and 8,192
        bits = table.plan.layout.all_bits // 5000
        assert bits == {0.06: 24, 0.1: 48, 0.25: 112}[ratio]


def test_first_order_weights_take_the_same_share() -> None:
    config = ProductQuantizedConfig(codewords=16, parts=4, exact_below=0)
    weights = config.build([falling(5000, 1, linear=True, vector_dim=16)], seed=0)["f"]
    assert isinstance(weights, HashedTable) and weights.slots[0].name == "f.linear"
    assert weights.slots[0].num_embeddings == int((10_002 + 4 * 16 * 16) / 64)


def test_a_feature_that_would_not_shrink_keeps_its_exact_table() -> None:
    config = ProductQuantizedConfig(codewords=256, parts=4, exact_below=0)
    assert isinstance(config.build([falling(200)], seed=0)["f"], FullTable)
    assert isinstance(config.build([falling(200, 1, linear=True, vector_dim=8)], seed=0)["f"], FullTable)
    assert isinstance(ProductQuantizedConfig().build([falling(100)], seed=0)["f"], FullTable)


def test_resized() -> None:
    fixed = ProductQuantizedConfig(codewords=16, parts=4)
    assert fixed.resized(0.1) is fixed
    assert ProductQuantizedConfig(parts=4).resized(0.1).ratio == 0.1


def test_bad_settings() -> None:
    with pytest.raises(
        ConfigError, match=r"parts = 3 does not divide embedding_dim = 8; choose parts from \[1, 2, 4, 8\]"
    ):
        build(parts=3)
    with pytest.raises(ConfigError, match=r"ratio = 0.001 is less than the smallest codes and codebook take, 0.0081"):
        build(codewords=None, parts=None, ratio=0.001)
    with pytest.raises(ConfigError, match="feature 'f': table 'product_quantized' needs the training count"):
        build(TableSpec("f", 500, 8), frequent_share=0.1)
    with pytest.raises(ValueError, match="codewords, parts and ratio are all given; keep two of them"):
        ProductQuantizedConfig(codewords=16, parts=4, ratio=0.1)
    with pytest.raises(ValueError, match="rare_codewords needs frequent_share"):
        ProductQuantizedConfig(rare_codewords=4)
    with pytest.raises(ValueError, match="rare_codewords = 64: expected at most codewords = 32"):
        ProductQuantizedConfig(codewords=32, rare_codewords=64, frequent_share=0.1)
