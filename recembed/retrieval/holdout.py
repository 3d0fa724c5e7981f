"""Part of the training interactions, set aside to validate on."""

import numpy as np

from recembed.errors import DataError
from recembed.evaluation.user_items import UserItems

__all__ = ["hold_out"]


def hold_out(interactions: UserItems, share: float, *, seed: int) -> tuple[UserItems, UserItems]:
    """Cut off a random share of the interactions; one of every user's always stays.

    Returns:
        The interactions to train on, and those set aside.

    Raises:
        DataError: no interaction can be set aside.

    >>> kept, aside = hold_out(UserItems([0, 0, 1], [0, 1, 1], num_users=2, num_items=2), 0.99, seed=0)
    >>> len(kept), len(aside), aside.users.tolist()
    (2, 1, [0])
    """
    total = len(interactions)
    chance = np.random.default_rng(seed).random(total)  # [P]
    users = interactions.users
    order = np.lexsort((chance, users))  # within a user by chance; the last one stays
    stays = np.zeros(total, dtype=bool)
    last = interactions.offsets[1:][interactions.counts > 0] - 1
    stays[order[last]] = True
    aside = (chance < share) & ~stays
    if not aside.any():
        raise DataError(
            f"holdout = {share}: none of {total} interactions can be set aside (one of every user's stays); "
            "raise holdout, or give more data"
        )
    kept, held = (
        UserItems(
            users[which],
            interactions.items[which],
            num_users=interactions.num_users,
            num_items=interactions.num_items,
        )
        for which in (~aside, aside)
    )
    return kept, held
