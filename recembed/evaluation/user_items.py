"""``UserItems``: which items belong to which user, sorted, so that a whole block is asked by one binary search.

Axes: ``U`` users, ``P`` pairs, ``S`` any shape.
"""

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recembed.errors import DataError

__all__ = ["UserItems"]

Integers = NDArray[np.int64]


class UserItems:
    """Sets of items by user.

    Args:
        users: The user of each pair, int64 ``[P]``, in any order; a pair that stands twice counts once.
        items: Its item, int64 ``[P]``.
        num_users: Users there are; those without a pair have an empty set.
        num_items: Items there are.

    Attributes:
        offsets: Where the items of each user begin, int64 ``[U + 1]``.
        items: The items of user 0 in ascending order, then those of user 1, int64 ``[P]``.

    Raises:
        DataError: users and items differ in number, or one is out of range.

    >>> bought = UserItems([1, 0, 1, 1], [2, 4, 0, 2], num_users=3, num_items=5)
    >>> bought.of(1), bought.counts, bought.contains(np.array([[0, 1]]), np.array([[4, 4]]))
    (array([0, 2]), array([1, 2, 0]), array([[ True, False]]))
    """

    def __init__(self, users: ArrayLike, items: ArrayLike, *, num_users: int, num_items: int) -> None:
        owners = _checked(users, "users", num_users)
        held = _checked(items, "items", num_items)
        if owners.shape != held.shape:
            raise DataError(f"users {list(owners.shape)} and items {list(held.shape)}: expected one item for each user")
        self.num_users, self.num_items = num_users, num_items
        keys = np.unique(owners * num_items + held)
        self.items = keys % max(num_items, 1)  # [P]
        self.offsets = np.zeros(num_users + 1, dtype=np.int64)  # [U + 1]
        np.cumsum(np.bincount(keys // max(num_items, 1), minlength=num_users), out=self.offsets[1:])

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def keys(self) -> Integers:
        """``user * num_items + item`` of every pair, ascending, int64 ``[P]``."""
        keys: Integers = self.users * self.num_items + self.items
        return keys

    @property
    def users(self) -> Integers:
        """The user of every pair, int64 ``[P]``."""
        return np.repeat(np.arange(self.num_users), self.counts)

    @property
    def counts(self) -> Integers:
        """The number of items of every user, int64 ``[U]``."""
        return np.diff(self.offsets)

    @cached_property
    def item_counts(self) -> Integers:
        """The number of users of every item, int64 ``[num_items]``."""
        return np.bincount(self.items, minlength=self.num_items)

    def of(self, user: int) -> Integers:
        """Return the items of one user."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def contains(self, users: Integers, items: Integers) -> NDArray[np.bool_]:
        """Return for each pair whether it is one of these, bool ``[*S]``; an item below 0 never is."""
        wanted = users * self.num_items + items
        if not len(self):
            return np.zeros(wanted.shape, dtype=np.bool_)
        places = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        found: NDArray[np.bool_] = (self.keys[places] == wanted) & (items >= 0)
        return found

    def block(self, users: Integers) -> tuple[Integers, Integers]:
        """Return the pairs of some users: the place of the user in ``users``, and the item, both int64."""
        sizes = self.counts[users]
        rows = np.repeat(np.arange(len(users)), sizes)
        before = np.cumsum(sizes) - sizes
        places = np.arange(len(rows)) + np.repeat(self.offsets[users] - before, sizes)
        return rows, self.items[places]

    def joined(self, other: "UserItems") -> "UserItems":
        """Return the pairs that are in one of the two."""
        users, items = np.concatenate([self.users, other.users]), np.concatenate([self.items, other.items])
        return UserItems(users, items, num_users=self.num_users, num_items=self.num_items)


def _checked(values: ArrayLike, name: str, bound: int) -> Integers:
    numbers = np.asarray(values)
    if numbers.size and not np.issubdtype(numbers.dtype, np.integer):
        raise DataError(f"{name} of type {numbers.dtype}: expected whole numbers 0..{bound - 1}; map the raw ids first")
    numbers = numbers.astype(np.int64).reshape(-1)
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < bound):
        worst = numbers.min() if numbers.min() < 0 else numbers.max()
        raise DataError(f"{name}: {worst} is outside 0..{bound - 1}; map the raw ids first")
    return numbers
