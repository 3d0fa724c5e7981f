"""The stages of a run as they stand in its config: train, search widths, settle."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, ValidationError

from recembed.errors import ConfigError, did_you_mean
from recembed.settings import explain_validation
from recembed.training.config import TrainingConfig

__all__ = ["STAGES", "SettleStage", "Stage", "Stages", "TrainStage", "WidthsStage", "parse_stages"]


class Stage(BaseModel):
    """One stage of a run; ``do`` says what it does.

    Attributes:
        name: What people call it: prune, quantise, retrain.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    do: str
    name: Annotated[str, Field(min_length=1, max_length=60)]


class TrainStage(Stage):
    """Train the model.

    Attributes:
        start: Go on from the weights of the stage before (``keep``), or from fresh ones of the run's seed (``initial``)
            or of another seed (``fresh``), under the decisions that the tables have taken.
        search: What the tables search follows the loss of validation batches, all else that of training batches. In a
            run with such a stage no other stage moves what is searched.
        weights: End with the weights of the best evaluation, or with the last ones.
        training: Settings of the training section that this stage does differently.
        row_learning_rate: Step size of the rows, where this stage has its own.

    >>> stage = TrainStage(name="tune", training={"epochs": 3, "dense_optimizer": {"learning_rate": 0.01}})
    >>> settings = stage.settings(TrainingConfig(dense_optimizer={"kind": "adam", "eps": 1e-7}, batch_size=128))
    >>> settings.epochs, settings.batch_size, settings.dense_optimizer.learning_rate, settings.dense_optimizer.eps
    (3, 128, 0.01, 1e-07)
    """

    do: Literal["train"] = "train"
    start: Literal["keep", "initial", "fresh"] = "keep"
    search: bool = False
    weights: Literal["best", "last"] = "best"
    training: dict[str, Any] = {}
    row_learning_rate: Annotated[float, Field(gt=0)] | None = None

    def settings(self, training: TrainingConfig) -> TrainingConfig:
        """Return the settings of this stage in a run whose own are ``training``.

        Raises:
            ConfigError: an unknown key (the nearest is offered) or a value out of range.
        """
        try:
            return TrainingConfig.model_validate(_merged(training.model_dump(mode="json"), self.training))
        except ValidationError as error:
            where = f"stage {self.name!r}: training"
            raise ConfigError(explain_validation(error, where, TrainingConfig)) from None


class WidthsStage(Stage):
    """Search the widths of all tables that have a choice, by the AUC of the validation rows; weights stay.

    Each candidate is scored as the tables would settle on it, so within the bytes that their ``ratio`` allows.

    Attributes:
        generations: Rounds after the first population.
        population: Candidates per round.
        mutation: Chance that a table's width is drawn anew.
        keep: Best candidates so far, from which the next round is made.
    """

    do: Literal["widths"] = "widths"
    generations: Annotated[int, Field(ge=0)] = 30
    population: Annotated[int, Field(ge=1)] = 20
    mutation: Annotated[float, Field(gt=0, le=1)] = 0.1
    keep: Annotated[int, Field(ge=1)] = 10


class SettleStage(Stage):
    """Let every table fix what training found: rows, widths, codes."""

    do: Literal["settle"] = "settle"


STAGES: dict[str, type[Stage]] = {"train": TrainStage, "widths": WidthsStage, "settle": SettleStage}
"""The record of each ``do``."""


def parse_stages(raw: Any) -> tuple[Stage, ...] | None:
    """Turn a list of mappings with ``name`` and ``do`` into stages; None stays None.

    Raises:
        ConfigError: an unknown ``do`` or key (the nearest is offered), or a value out of range.

    >>> [stage.do for stage in parse_stages([{"name": "warm up", "do": "train"}, {"name": "prune", "do": "settle"}])]
    ['train', 'settle']
    """
    if raw is None:
        return None
    if not isinstance(raw, list | tuple):
        raise ConfigError(f"stages = {raw!r}: expected a list of stages, such as {{name: prune, do: settle}}")
    stages = tuple(_parse_stage(stage, number) for number, stage in enumerate(raw, start=1))
    if stages and stages[0].do != "train":
        raise ConfigError(f"stage {stages[0].name!r}: do = {stages[0].do!r} comes first, but needs a trained model")
    return stages


def _parse_stage(raw: Any, number: int) -> Stage:
    if isinstance(raw, Stage):
        return raw
    if not isinstance(raw, Mapping):
        raise ConfigError(f"stage {number} = {raw!r}: expected a mapping such as {{name: prune, do: settle}}")
    what = f"stage {str(raw.get('name', number))!r}"
    kind = str(raw.get("do"))
    if kind not in STAGES:
        raise ConfigError(f"{what}: do = {kind!r} is not known" + did_you_mean(kind, STAGES))
    try:
        return STAGES[kind].model_validate(dict(raw))
    except ValidationError as error:
        raise ConfigError(explain_validation(error, what, STAGES[kind])) from None


Stages = Annotated[tuple[SerializeAsAny[Stage], ...], BeforeValidator(parse_stages)]
"""The stages of a run."""


def _merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``settings`` with ``changes``, key by key; settings of another kind take the place of the old ones."""
    merged = dict(settings)
    for key, value in changes.items():
        before = settings.get(key)
        value = {"kind": value} if isinstance(value, str) and isinstance(before, dict) else value
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            same = "kind" not in value or value["kind"] == before.get("kind")
            merged[key] = _merged(before, value) if same else dict(value)
        else:
            merged[key] = value
    return merged
