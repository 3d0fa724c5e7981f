"""Losses of retrieval: what a positive item must win against.

A loss sees the vectors of a batch and their negatives, either ``n`` for each positive or ``S`` shared by the whole
batch. Shared ones cost one matrix product, so thousands are cheap. Axes: ``B`` pairs, ``D`` width, ``n`` negatives of
a pair, ``S`` shared negatives.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, model_validator
from torch import Tensor
from torch.nn import functional as F

from recembed.graph.unit_rows import unit_rows
from recembed.retrieval.shared_softmax import shared_softmax
from recembed.settings import parse_kind

__all__ = [
    "BPR",
    "LOSSES",
    "AnyLoss",
    "CosineContrastive",
    "InBatchSoftmax",
    "Negatives",
    "RetrievalLoss",
    "SampledSoftmax",
]


@dataclass(frozen=True)
class Negatives:
    """The negatives of a batch.

    Attributes:
        vectors: ``[S, D]`` shared, or ``[B, n, D]`` by pair.
        log_expected: Log of how often each of the shared ones was expected to be drawn, ``[S]``.
        banned: Places of ``[B, S]`` that hold a training positive of the pair's user, as rows (ascending) and columns.
    """

    vectors: Tensor
    log_expected: Tensor | None = None
    banned: tuple[Tensor, Tensor] | None = None


class RetrievalLoss(BaseModel, ABC):
    """Settings of a loss, and the loss itself.

    Attributes:
        in_batch: Whether the negatives are the positives of the other pairs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: str
    in_batch: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, users: Tensor, positives: Tensor, negatives: Negatives) -> Tensor:
        """Return the mean loss of a batch, a scalar.

        Shapes:
            users, positives: float32 ``[B, D]``.
        """

    def served(self, users: Tensor, items: Tensor, log_drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors whose inner products rank what this loss has trained; by default they are the trained ones.

        Shapes:
            users: float32 ``[U, D]``; items: ``[I, D]``; log_drawn: ``[I]``, log of each item's chance to be drawn as
            a negative. Returns ``[U, D']`` and ``[I, D']``.
        """
        return users, items


class BPR(RetrievalLoss):
    """``-log σ(positive - negative)``, the mean over all negatives.

    Reference:
        Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, UAI 2009.

    >>> user, positive, negative = torch.tensor([[1.0]]), torch.tensor([[2.0]]), torch.tensor([[[2.0]]])
    >>> round(BPR()(user, positive, Negatives(negative)).item(), 4)
    0.6931
    """

    kind: Literal["bpr"] = "bpr"

    def __call__(self, users: Tensor, positives: Tensor, negatives: Negatives) -> Tensor:
        """Return the mean of ``softplus(negative - positive)``."""
        won = (users * positives).sum(dim=1, keepdim=True)  # [B, 1]
        gaps = _scores(users, negatives, float("-inf")) - won  # [B, n or S]
        if negatives.banned is None:
            return F.softplus(gaps).mean()
        return F.softplus(gaps).sum() / (gaps.numel() - len(negatives.banned[0]))


class SampledSoftmax(RetrievalLoss):
    """Cross-entropy of the positive against sampled items.

    With ``correction`` every sampled item is weighted by one over how often it was expected to be drawn, so that the
    sum over the sample estimates the sum over all items, whatever they were drawn by. Without it, items drawn by
    popularity push popular items down.

    Attributes:
        temperature: Divides the scores.
        cosine: Score by cosine instead of the inner product; temperatures of 0.1 to 0.2 suit it.
        correction: Subtract the log of the expected count.
        prior: How much of the chance of being drawn served scores put back. Without ``correction`` a score learns how much
            likelier an item is for this user than as a negative: ``score / temperature = log P(item | user) - log
            P(drawn)``. With 1 the served vectors have one number more, ``temperature * log P(drawn)`` of the item
            against a 1 of the user (both of unit length before that under ``cosine``), and rank by ``P(item | user)``
            itself. With 0 the trained vectors are served, and rank by their inner products.

    Raises:
        ConfigError: ``prior`` beside ``correction``, which leaves nothing to put back.

    Reference:
        Bengio and Senécal, Adaptive Importance Sampling, 2008 (correction); Wu et al., On the Effectiveness of Sampled
        Softmax Loss for Item Recommendation, TOIS 2023 (cosine and temperature in graph models).

    >>> user, items = torch.tensor([[1.0]]), torch.tensor([[0.0], [0.0]])
    >>> loss = SampledSoftmax()(user, items[:1], Negatives(items, torch.log(torch.tensor([0.5, 0.5]))))
    >>> round(loss.item(), 4)  # log(1 + 1/0.5 + 1/0.5)
    1.6094
    """

    kind: Literal["sampled_softmax"] = "sampled_softmax"
    temperature: Annotated[float, Field(gt=0)] = 1.0
    cosine: bool = False
    correction: bool = True
    prior: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _something_to_put_back(self) -> "SampledSoftmax":
        if self.prior and self.correction:
            raise ValueError(
                f"prior = {self.prior} beside correction, which leaves nothing to put back: drop one of them"
            )
        return self

    def served(self, users: Tensor, items: Tensor, log_drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors with ``prior`` in one number more, or as they are without it."""
        if not self.prior:
            return users, items
        if self.cosine:
            users, items = F.normalize(users, dim=1), F.normalize(items, dim=1)
        put_back = self.prior * self.temperature * (log_drawn - log_drawn.max())  # [I]
        return F.pad(users, (0, 1), value=1.0), torch.cat([items, put_back.unsqueeze(1)], dim=1)

    def __call__(self, users: Tensor, positives: Tensor, negatives: Negatives) -> Tensor:
        """Return the mean of ``log(e^positive + Σ e^negative) - positive``."""
        vectors = negatives.vectors
        if self.cosine:
            users, positives, vectors = (_unit(each) for each in (users, positives, vectors))
        users = users / self.temperature
        shift = negatives.log_expected if self.correction else None
        if vectors.ndim == 2:
            return shared_softmax(users, positives, vectors, shift, negatives.banned)
        won = (users * positives).sum(dim=1)  # [B]
        against = _scores(users, Negatives(vectors), float("-inf"))
        return (torch.logaddexp(won, against.logsumexp(dim=1)) - won).mean()


class InBatchSoftmax(SampledSoftmax):
    """Cross-entropy of the positive against the positives of the other pairs of the batch.

    Items come into a batch as often as they were met, so ``correction`` here is the correction of popularity.

    Reference:
        Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations, RecSys 2019. Differs
        from the paper: items are counted, not estimated from a stream; a user's other positives are no negatives.
    """

    kind: Literal["in_batch_softmax"] = "in_batch_softmax"  # type: ignore[assignment]
    in_batch: ClassVar[bool] = True


class CosineContrastive(RetrievalLoss):
    """``(1 - cos positive) + weight · mean(max(0, cos negative - margin))``.

    Attributes:
        margin: Cosine that a negative may have at no cost.
        weight: Of the negatives together.

    Reference:
        Mao et al., SimpleX: A Simple and Strong Baseline for Collaborative Filtering, CIKM 2021, equation 1.

    >>> user, items = torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    >>> CosineContrastive(margin=0.4, weight=2.0)(user, items[1:], Negatives(items[None])).item()  # 1 + 2 · 0.6 / 2
    1.600000023841858
    """

    kind: Literal["cosine_contrastive"] = "cosine_contrastive"
    margin: Annotated[float, Field(ge=-1, lt=1)] = 0.9
    weight: Annotated[float, Field(ge=0)] = 150.0

    def __call__(self, users: Tensor, positives: Tensor, negatives: Negatives) -> Tensor:
        """Return the mean over the batch."""
        users, positives, vectors = (_unit(each) for each in (users, positives, negatives.vectors))
        near = 1 - (users * positives).sum(dim=1)  # [B]
        against = _scores(users, Negatives(vectors, banned=negatives.banned), -1.0)
        return near.mean() + self.weight * F.relu(against - self.margin).mean()


def _unit(vectors: Tensor) -> Tensor:
    return unit_rows(vectors) if vectors.ndim == 2 else F.normalize(vectors, dim=-1)


def _scores(users: Tensor, negatives: Negatives, banned: float) -> Tensor:
    """Return the scores of the negatives, ``[B, S]`` or ``[B, n]``, with ``banned`` where one must not count."""
    vectors = negatives.vectors
    if vectors.ndim == 3:
        return torch.bmm(vectors, users[:, :, None])[:, :, 0]
    scores = users @ vectors.T
    if negatives.banned is not None:
        scores.index_put_(negatives.banned, scores.new_tensor(banned))
    return scores


LOSSES: dict[str, type[RetrievalLoss]] = {
    "bpr": BPR,
    "sampled_softmax": SampledSoftmax,
    "in_batch_softmax": InBatchSoftmax,
    "cosine_contrastive": CosineContrastive,
}
"""Losses by the word that names them."""


def _parse(raw: Any) -> RetrievalLoss:
    return parse_kind(raw, LOSSES, "loss kind")


AnyLoss = Annotated[SerializeAsAny[RetrievalLoss], BeforeValidator(_parse)]
"""One word, or a mapping with ``kind``."""
