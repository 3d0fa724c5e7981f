"""Rows as they are served."""

import pytest
import torch

from recembed.errors import RecembedError
from recembed.rows import PlainStore, RowTable, ServedStore, served_row_bytes

TABLES = [RowTable("item", 50, 8), RowTable("city", 20, 8), RowTable("weight", 30, 1)]


def trained() -> PlainStore:
    return PlainStore(TABLES, optimizer=None, seed=3)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_bytes_are_those_of_the_buffers(dtype: str) -> None:
    served = ServedStore(trained(), TABLES, dtype)
    kept = sum(values.numel() * values.element_size() for values in served.buffers())
    assert served.bytes == kept == sum(served_row_bytes(table, dtype) for table in TABLES)


def test_a_row_by_hand() -> None:
    store = trained()
    store.rows("item")[7] = torch.tensor([2.54, -1.25, 0.02, 0.0, 0.011, -0.009, 1.0, 2.0])
    served = ServedStore(store, [TABLES[0]], "int8")  # scale 2.54 / 127 = 0.02
    assert served.get_buffer("stack_8")[7].tolist() == [127, -62, 1, 0, 1, 0, 50, 100]
    expected = torch.tensor([2.54, -1.24, 0.02, 0.0, 0.02, 0.0, 1.0, 2.0])
    torch.testing.assert_close(served(torch.tensor([7]), 8)[0], expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize(("dtype", "largest"), [("float32", 0.0), ("float16", 2**-11), ("int8", 0.5 / 127 + 2**-10)])
def test_no_number_is_further_off_than_stated(dtype: str, largest: float) -> None:
    store = trained()
    served = ServedStore(store, TABLES, dtype)
    for name in ("item", "city"):
        off = (served.rows(name) - store.rows(name)).abs() / store.rows(name).abs().amax(1, keepdim=True)
        assert off.max() <= largest
        addresses = torch.arange(20) + store.first_row[name]
        torch.testing.assert_close(served(addresses, 8), served.rows(name)[:20])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_a_bag_is_the_sum_of_its_rows(dtype: str) -> None:
    served = ServedStore(trained(), TABLES, dtype)
    rows = served(torch.tensor([1, 4, 60]), 8)
    bags = served(torch.tensor([1, 4, 60]), 8, torch.tensor([0, 2, 2, 3]))
    torch.testing.assert_close(bags, torch.stack([rows[0] + rows[1], torch.zeros(8), rows[2]]))


def test_a_row_of_zeros_stays_zero() -> None:
    store = trained()
    store.rows("city").zero_()
    assert ServedStore(store, TABLES, "int8").rows("city").abs().sum() == 0


def test_it_cannot_be_trained() -> None:
    with pytest.raises(RecembedError, match="served rows cannot be trained: build the model from its config"):
        ServedStore(trained(), TABLES).set_learning_rate(0.1)
