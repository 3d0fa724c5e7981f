"""Settings of a retrieval training."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from recembed.retrieval.losses import BPR, AnyLoss
from recembed.retrieval.samplers import AnySampler, Uniform
from recembed.training.schedule import Schedule

__all__ = ["RetrievalEarlyStopping", "RetrievalTraining"]

_AtLeastOne = Annotated[int, Field(ge=1)]


class RetrievalEarlyStopping(BaseModel):
    """When to stop.

    Attributes:
        metric: Metric of the validation interactions, more is better: ``recall@20``, ``ndcg@10`` and so on.
        patience: Evaluations without a new best after which training stops.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    metric: str = "recall@20"
    patience: _AtLeastOne = 5

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        name, _, length = metric.partition("@")
        known = ("recall", "ndcg", "ndcg_retrieved", "precision", "hit_rate", "mrr")
        if name not in known or not length.isdigit() or int(length) < 1:
            raise ValueError(f"metric {metric!r}: expected one of {', '.join(known)}, then @ and a length: recall@20")
        return metric

    @property
    def length(self) -> int:
        """Length of the lists that the metric judges."""
        return int(self.metric.partition("@")[2])


class RetrievalTraining(BaseModel):
    """The training part of a retrieval run.

    Attributes:
        epochs: Times that all training interactions are read, at most.
        batch_size: Interactions per step. The whole graph is propagated once a step, so large batches are fast.
        loss: What a positive item must win against.
        sampler: Where negatives come from; without a meaning where the loss takes them from the batch.
        learning_rate: Of Adam, for all vectors and matrices.
        regularisation: Factor on the encoder's penalty, ``½ Σ‖row‖² / B`` of the batch's rows.
        schedule: Factor on the learning rate.
        holdout: Share of the training interactions to validate on, where the data have no validation part.
        early_stopping: None trains to the end; the best weights are kept all the same.
        evaluate_every: Epochs between evaluations.
        refit: Train once more on all interactions, validation included, for the number of epochs that was best.
        seed: Of fresh vectors, the order, negatives and dropout.
        threads: Threads of torch; None leaves them as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    epochs: _AtLeastOne = 50
    batch_size: _AtLeastOne = 2048
    loss: AnyLoss = BPR()
    sampler: AnySampler = Uniform()
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    regularisation: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Schedule = Schedule()
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    early_stopping: RetrievalEarlyStopping | None = RetrievalEarlyStopping()
    evaluate_every: _AtLeastOne = 1
    refit: bool = True
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    threads: _AtLeastOne | None = None

    @model_validator(mode="after")
    def _check(self) -> "RetrievalTraining":
        if self.loss.in_batch and self.batch_size < 2:
            raise ValueError(f"batch_size = {self.batch_size}: a loss within the batch needs at least 2 interactions")
        return self
