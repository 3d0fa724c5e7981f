"""Negatives of retrieval training: drawn by the batch, never an item the user has met in training.

Draws depend on the seed and the step alone, so a resumed training goes on with the same ones. Axes: ``B`` pairs,
``n`` negatives of a pair, ``S`` shared negatives, ``I`` items.
"""

from abc import ABC
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, model_validator

from recembed.errors import DataError
from recembed.evaluation.user_items import UserItems
from recembed.settings import parse_kind

__all__ = ["SAMPLERS", "AnySampler", "Hard", "NegativeSampler", "Popularity", "SamplerConfig", "Uniform"]

Integers = NDArray[np.int64]

_ROUNDS = 20


class SamplerConfig(BaseModel, ABC):
    """How negatives are drawn.

    Attributes:
        negatives: Drawn for each positive, or for the whole batch where they are shared.
        shared: One draw for the whole batch. A negative that a user of the batch has met does not count for that user.
        alpha: An item is drawn in proportion to ``max(training count, 1) ** alpha``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: str
    negatives: Annotated[int, Field(ge=1)] = 1
    shared: bool = False

    @property
    def exponent(self) -> float:
        """Power of the training count that items are drawn by."""
        return 0.0

    @property
    def drawn(self) -> int:
        """Items drawn for each positive."""
        return self.negatives


class Uniform(SamplerConfig):
    """Every item alike."""

    kind: Literal["uniform"] = "uniform"


class Popularity(SamplerConfig):
    """In proportion to ``max(training count, 1) ** alpha``."""

    kind: Literal["popularity"] = "popularity"
    alpha: Annotated[float, Field(ge=0)] = 0.75

    @property
    def exponent(self) -> float:
        """Power of the training count that items are drawn by."""
        return self.alpha


class Hard(SamplerConfig):
    """The best-scored of a pool that is drawn uniformly for each positive; the step scores and chooses.

    Attributes:
        pool: Candidates of each positive.

    Reference:
        Zhang et al., Optimizing Top-N Collaborative Filtering via Dynamic Negative Item Sampling, SIGIR 2013.
    """

    kind: Literal["hard"] = "hard"
    shared: Literal[False] = False
    pool: Annotated[int, Field(ge=2)] = 16

    @model_validator(mode="after")
    def _check(self) -> "Hard":
        if self.pool < self.negatives:
            raise ValueError(f"pool = {self.pool}: expected at least the {self.negatives} negatives chosen from it")
        return self

    @property
    def drawn(self) -> int:
        """Items drawn for each positive."""
        return self.pool


SAMPLERS: dict[str, type[SamplerConfig]] = {"uniform": Uniform, "popularity": Popularity, "hard": Hard}
"""Samplers by the word that names them."""


def _parse(raw: Any) -> SamplerConfig:
    return parse_kind(raw, SAMPLERS, "sampler kind")


AnySampler = Annotated[SerializeAsAny[SamplerConfig], BeforeValidator(_parse)]
"""One word, or a mapping with ``kind``."""


class NegativeSampler:
    """Draws negatives.

    Args:
        config: How.
        positives: What each user has met in training.
        seed: Of the draws.

    Attributes:
        probabilities: Of each item at each draw, float64 ``[I]``.

    >>> sampler = NegativeSampler(Uniform(negatives=3), UserItems([0, 0], [0, 1], num_users=1, num_items=3), seed=0)
    >>> sampler.draw(np.array([0]), step=7)
    array([[2, 2, 2]])
    """

    def __init__(self, config: SamplerConfig, positives: UserItems, *, seed: int) -> None:
        self.config, self.positives, self.seed = config, positives, seed
        weights = np.maximum(positives.item_counts, 1).astype(np.float64) ** config.exponent
        self.probabilities = weights / weights.sum()
        self._reached = np.cumsum(self.probabilities)

    @property
    def users_without(self) -> Integers:
        """The users who have met every item, for whom there is no negative."""
        return np.flatnonzero(self.positives.counts >= self.positives.num_items)

    def draw(self, users: Integers, step: int) -> Integers:
        """Return negatives of each user, none of which the user has met.

        Args:
            users: The users of the pairs.
            step: Which step of the training; other steps draw others.

        Shapes:
            users: int64 ``[B]``. Returns int64 ``[B, n]``, for a hard sampler its pools.

        Raises:
            DataError: a user has met every item.
        """
        if (self.positives.counts[users] >= self.positives.num_items).any():
            full = int(users[self.positives.counts[users] >= self.positives.num_items][0])
            raise DataError(
                f"user {full} has met all {self.positives.num_items} items, so there is no negative; leave it out"
            )
        generator = np.random.default_rng((self.seed, step))
        return self._drawn(users, self.config.drawn, generator)

    def draw_shared(self, step: int) -> Integers:
        """Return negatives for a whole batch, int64 ``[S]``, in ascending order, some of them more than once."""
        return np.sort(self._any(self.config.negatives, np.random.default_rng((self.seed, step))))

    def banned(self, users: Integers, shared: Integers) -> tuple[Integers, Integers]:
        """Return the places of the table users × shared negatives that hold an item the user has met.

        Shapes:
            users: int64 ``[B]``; shared: int64 ``[S]``. Returns rows, ascending, and columns, int64.
        """
        if self._met_by.counts[shared].sum() < self.positives.counts[users].sum():
            columns, rows = _crossings(self._met_by, shared, users)
        else:
            rows, columns = _crossings(self.positives, users, shared)
        narrow = rows.astype(np.uint16) if len(users) <= 1 << 16 else rows  # sorted by radix
        order = np.argsort(narrow, kind="stable")
        return rows[order], columns[order]

    @cached_property
    def _met_by(self) -> UserItems:
        """The users of each item."""
        met = self.positives
        return UserItems(met.items, met.users, num_users=met.num_items, num_items=met.num_users)

    def _any(self, count: int, generator: np.random.Generator) -> Integers:
        if self.config.exponent == 0:
            return generator.integers(0, self.positives.num_items, count)
        places = np.searchsorted(self._reached, generator.random(count), side="right")
        return np.minimum(places, self.positives.num_items - 1)

    def _drawn(self, users: Integers, count: int, generator: np.random.Generator) -> Integers:
        owners = np.repeat(users, count)
        drawn = self._any(len(owners), generator)
        left = np.flatnonzero(self.positives.contains(owners, drawn))
        for _ in range(_ROUNDS):
            if not left.size:
                break
            drawn[left] = self._any(len(left), generator)
            left = left[self.positives.contains(owners[left], drawn[left])]
        for place in left:  # users who have met nearly all
            unmet = np.setdiff1d(np.arange(self.positives.num_items), self.positives.of(int(owners[place])))
            chances = self.probabilities[unmet]
            drawn[place] = generator.choice(unmet, p=chances / chances.sum())
        return drawn.reshape(len(users), count)


def _crossings(sets: UserItems, rows: Integers, columns: Integers) -> tuple[Integers, Integers]:
    """Return the places of the table rows × columns whose pair is in ``sets``, rows and columns in any order."""
    places, found = sets.block(rows)
    often = np.bincount(columns, minlength=sets.num_items)  # how often each stands among the columns
    hit = np.flatnonzero(often[found])
    places, found = places[hit], found[hit]
    times = often[found]
    first = (np.cumsum(often) - often)[found]
    before = np.cumsum(times) - times
    within = np.arange(times.sum()) + np.repeat(first - before, times)
    return np.repeat(places, times), np.argsort(columns, kind="stable")[within]
