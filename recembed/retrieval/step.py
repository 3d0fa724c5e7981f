"""One step of retrieval training: one propagation, a loss on some rows of it, one move of every parameter.

Axes: ``B`` pairs of the batch, ``n`` negatives of a pair, ``D`` width.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recembed.errors import ConfigError, TrainingError
from recembed.evaluation.user_items import UserItems
from recembed.retrieval.adam import Adam
from recembed.retrieval.config import RetrievalTraining
from recembed.retrieval.encoder import Encoder
from recembed.retrieval.losses import Negatives
from recembed.retrieval.samplers import Hard, NegativeSampler

__all__ = ["RetrievalStep"]

Integers = NDArray[np.int64]


class RetrievalStep:
    """Does the steps.

    Args:
        encoder: What is trained, a module.
        train: The training interactions.
        config: Settings.
    """

    def __init__(self, encoder: Encoder, train: UserItems, config: RetrievalTraining) -> None:
        if (encoder.num_users, encoder.num_items) != (train.num_users, train.num_items):
            raise ConfigError(
                f"the model has {encoder.num_users} users and {encoder.num_items} items, the interactions "
                f"{train.num_users} and {train.num_items}; build both from one graph"
            )
        self.encoder, self.train, self.config = encoder, train, config
        self.sampler = NegativeSampler(config.sampler, train, seed=config.seed)
        chances = np.maximum(train.item_counts, 1) / max(len(train), 1)
        self._log_popularity = torch.from_numpy(np.log(chances)).float()  # [I]
        expected = self.sampler.probabilities * config.sampler.negatives
        self._log_expected = torch.from_numpy(np.log(expected)).float()  # [I]
        self.optimizer = Adam(_parameters(encoder))

    @property
    def log_drawn(self) -> Tensor:
        """Log of the chance of each item to be drawn as a negative, float32 ``[I]``."""
        if self.config.loss.in_batch:
            return self._log_popularity
        return torch.from_numpy(np.log(self.sampler.probabilities)).float()

    def __call__(self, users: Integers, positives: Integers, step: int, factor: float = 1.0) -> Tensor:
        """Train on one batch; return its loss without the penalty.

        Args:
            users: int64 ``[B]``.
            positives: int64 ``[B]``, an item that each of them has met.
            step: Steps done so far; draws depend on it.
            factor: On the learning rate.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_mixed(self.config.seed, step))  # dropout
            loss, penalty = self._loss(users, positives, step)
        total = loss + self.config.regularisation * penalty if self.config.regularisation else loss
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(self.config.learning_rate * factor)
        return loss.detach()

    def check(self, loss: float, step: int) -> None:
        """Refuse a loss that is not finite.

        Raises:
            TrainingError: it is NaN or infinite.
        """
        if not np.isfinite(loss):
            raise TrainingError(
                f"step {step}: the loss is {loss}; lower training.learning_rate ({self.config.learning_rate}) "
                "or raise the loss's temperature"
            )

    def _loss(self, users: Integers, positives: Integers, step: int) -> tuple[Tensor, Tensor]:
        """Return the loss of the batch and its penalty."""
        sampler, in_batch = self.sampler, self.config.loss.in_batch
        shared = in_batch or self.config.sampler.shared
        drawn = positives if in_batch else sampler.draw_shared(step) if shared else sampler.draw(users, step)
        drawn_there = torch.from_numpy(drawn)
        read = self.encoder.batch(torch.from_numpy(users), torch.from_numpy(positives), drawn_there)
        negatives = Negatives(read.negatives)
        if in_batch:
            log_expected = self._log_popularity[drawn_there] + float(np.log(len(users)))
            negatives = Negatives(read.negatives, log_expected, _tensors(sampler.banned(users, drawn)))
        elif shared:
            log_expected = self._log_expected[drawn_there]
            negatives = Negatives(read.negatives, log_expected, _tensors(sampler.banned(users, drawn)))
        elif isinstance(self.config.sampler, Hard):
            negatives = Negatives(hardest(read.users, read.negatives, self.config.sampler.negatives))
        loss = self.config.loss(read.users, read.positives, negatives)
        for beside in read.auxiliary:
            vectors = beside.negatives
            if isinstance(self.config.sampler, Hard):
                vectors = hardest(beside.users, vectors, self.config.sampler.negatives)
            against = replace(negatives, vectors=vectors)
            loss = loss + beside.weight * self.config.loss(beside.users, beside.positives, against)
        return loss, read.penalty


def hardest(users: Tensor, pool: Tensor, count: int) -> Tensor:
    """Return the ``count`` vectors of each pool with the highest inner product with their user.

    Shapes:
        users: ``[B, D]``; pool: ``[B, n, D]``. Returns ``[B, count, D]``.
    """
    scores = torch.bmm(pool.detach(), users.detach()[:, :, None])[:, :, 0]  # [B, n]
    best = scores.topk(count, dim=1).indices  # [B, count]
    return pool.gather(1, best[:, :, None].expand(-1, -1, pool.shape[2]))


def _tensors(places: tuple[Integers, Integers]) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(places[0]), torch.from_numpy(places[1])


def _parameters(encoder: Encoder) -> Iterable[nn.Parameter]:
    assert isinstance(encoder, nn.Module)
    return encoder.parameters()


def _mixed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, step)).generate_state(1)[0])
