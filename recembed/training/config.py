"""Settings of the training part of a run."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from recembed.training.optimizers import AnyDenseOptimizer, DenseAdamW
from recembed.training.schedule import Schedule

__all__ = ["EarlyStopping", "TrainingConfig"]

_AtLeastOne = Annotated[int, Field(ge=1)]


class EarlyStopping(BaseModel):
    """When to stop, and by which metric of the validation rows the best weights are told.

    Attributes:
        metric: ``auc`` (more is better), ``logloss`` or ``ne`` (normalised entropy; less is better).
        patience: Evaluations without a new best after which training stops.
        min_delta: What counts as better.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    metric: Literal["auc", "logloss", "ne"] = "auc"
    patience: _AtLeastOne = 2
    min_delta: Annotated[float, Field(ge=0)] = 0.0

    def better(self, value: float, best: float | None) -> bool:
        """Return whether ``value`` is a new best; NaN never is.

        >>> EarlyStopping(min_delta=0.01).better(0.705, best=0.70), EarlyStopping(metric="logloss").better(0.3, 0.4)
        (False, True)
        """
        if value != value:
            return False
        if best is None:
            return True
        return value > best + self.min_delta if self.metric == "auc" else value < best - self.min_delta


class TrainingConfig(BaseModel):
    """The training part of a run.

    Attributes:
        epochs: Times the training rows are read.
        batch_size: Rows per step.
        dense_optimizer: Optimiser of the dense parameters; the row rule stands in the embedding's settings.
        schedule: Factor on the learning rates of dense parameters and rows.
        clip_norm: Greatest norm of the gradient of all dense parameters together. Rows are moved inside backward,
            before there is a norm, so it does not cover them.
        precision: ``bf16`` runs matrix products in bfloat16 (autocast); weights, rows and loss stay float32. It pays on
            GPUs and on processors with bf16 instructions (avx512_bf16, AMX); on others it is slower.
        early_stopping: None trains to the end; the best weights (by AUC) are kept all the same.
        evaluate_every: Steps between evaluations; they take place at the end of each epoch in any case.
        checkpoint_every: Steps between checkpoints; each evaluation writes one in any case.
        checkpoints_kept: Checkpoints to go on from: the last one, and those before it, for the case that it is damaged.
        checkpoint_in_background: Write checkpoints in a thread while training goes on; until one is written, a second
            copy of all rows and their states is held in memory.
        seed: Of the order of rows, id dropout, fresh weights and dropout.
        shuffle: Read the training rows in a new order each epoch.
        threads: Threads of torch during training; None leaves them as they are.
        device: ``cpu``, ``cuda``, or ``auto``: GPUs where torch sees any, one a process. Evaluation runs where training
            does; everything after that on CPU.

    >>> config = TrainingConfig(dense_optimizer={"learning_rate": 0.01}, schedule={"kind": "cosine"})
    >>> config.dense_optimizer.kind, config.batch_size
    ('adamw', 4096)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    epochs: _AtLeastOne = 1
    batch_size: _AtLeastOne = 4096
    dense_optimizer: AnyDenseOptimizer = DenseAdamW()
    schedule: Schedule = Schedule()
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    precision: Literal["float32", "bf16"] = "float32"
    early_stopping: EarlyStopping | None = None
    evaluate_every: _AtLeastOne | None = None
    checkpoint_every: _AtLeastOne | None = None
    checkpoints_kept: _AtLeastOne = 2
    checkpoint_in_background: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    shuffle: bool = True
    threads: _AtLeastOne | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
