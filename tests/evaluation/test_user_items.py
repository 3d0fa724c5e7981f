import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recembed.errors import DataError
from recembed.evaluation import UserItems


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6))))
def test_it_is_a_set_of_items_for_each_user(pairs: list[tuple[int, int]]) -> None:
    held = UserItems([u for u, _ in pairs], [i for _, i in pairs], num_users=5, num_items=7)
    assert [held.of(u).tolist() for u in range(5)] == [sorted({i for v, i in pairs if v == u}) for u in range(5)]
    assert list(zip(held.users.tolist(), held.items.tolist(), strict=True)) == sorted(set(pairs))
    assert held.item_counts.tolist() == [len({u for u, j in pairs if j == i}) for i in range(7)]
    grid = held.contains(np.arange(5)[:, None], np.arange(-1, 7)[None])
    assert grid.tolist() == [[(u, i) in pairs for i in range(-1, 7)] for u in range(5)]
    rows, items = held.block(np.array([3, 0, 3]))
    expected = [(place, i) for place, u in enumerate([3, 0, 3]) for i in held.of(u).tolist()]
    assert list(zip(rows.tolist(), items.tolist(), strict=True)) == expected


def test_two_are_joined() -> None:
    first, second = (UserItems([0, 1], items, num_users=2, num_items=4) for items in ([1, 2], [1, 3]))
    joined = first.joined(second)
    assert [joined.of(0).tolist(), joined.of(1).tolist()] == [[1], [2, 3]]


def test_bad_input_is_told() -> None:
    with pytest.raises(DataError, match=r"items: 9 is outside 0..3; map the raw ids first"):
        UserItems([0], [9], num_users=1, num_items=4)
    with pytest.raises(DataError, match=r"users: -1 is outside 0..0"):
        UserItems([-1], [0], num_users=1, num_items=4)
    with pytest.raises(DataError, match=r"items of type <U1: expected whole numbers"):
        UserItems([0], ["a"], num_users=1, num_items=4)
    with pytest.raises(DataError, match=r"users \[2\] and items \[1\]"):
        UserItems([0, 0], [1], num_users=1, num_items=4)
