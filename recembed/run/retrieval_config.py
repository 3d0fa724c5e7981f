"""One YAML file is one whole retrieval run: interactions, graph model, training, evaluation, tracking."""

from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from recembed.config import DataConfig, RunConfig, TrackingConfig
from recembed.data import SplitConfig
from recembed.errors import ConfigError
from recembed.retrieval import RetrievalTraining
from recembed.run.retrieval_models import ENCODERS, AnyEncoder, LightGCNConfig, NGCFConfig
from recembed.schema.feature import Schema
from recembed.settings import explain_validation

__all__ = ["ENCODERS", "LightGCNConfig", "NGCFConfig", "RetrievalConfig", "RetrievalEvaluation"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RetrievalEvaluation(_Section):
    """What is measured.

    Attributes:
        k: Lengths of the lists to judge.
        resamples: Bootstrap resamples of the intervals over users; 0 leaves them out.
    """

    k: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (10, 20, 50)
    resamples: Annotated[int, Field(ge=0)] = 200


class RetrievalConfig(_Section):
    """A whole retrieval run.

    >>> config = RetrievalConfig.parse({"task": "retrieval", "data": {"dataset": "gowalla"}, "model": "lightgcn"})
    >>> config.model.kind, config.training.refit, RetrievalConfig.parse(config.to_dict()) == config
    ('lightgcn', True, True)

    Attributes:
        task: Tells it from a run that predicts clicks.
        name: Shown in tracking.
        data: Where the interactions come from.
        schema: The columns, of which those of role ``user`` and ``item`` are read; by default the data set's own.
        split: How rows are cut; by default the data set's custom, else by chance. Without validation rows
            ``training.holdout`` of the training interactions are set aside.
        model: The encoder.
        training: The loop.
        evaluation: What is measured.
        tracking: Where it is tracked.
    """

    task: Literal["retrieval"] = "retrieval"
    name: str = "retrieval"
    data: DataConfig
    schema_: Schema | None = Field(default=None, alias="schema")
    split: SplitConfig | None = None
    model: AnyEncoder = LightGCNConfig()
    training: RetrievalTraining = RetrievalTraining()
    evaluation: RetrievalEvaluation = RetrievalEvaluation()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _check(self) -> "RetrievalConfig":
        self.rows()
        return self

    def rows(self) -> RunConfig:
        """Return the part that says which rows are read, as a run of the other task has it."""
        return RunConfig.model_validate(
            {"name": self.name, "data": self.data, "schema": self.schema_, "split": self.split}
        )

    @classmethod
    def parse(cls, raw: Any) -> "RetrievalConfig":
        """Build from plain dictionaries; raises ``ConfigError`` with the place, the value and the nearest key."""
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise ConfigError(explain_validation(error, "config", cls)) from None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, every default written out."""
        return self.model_dump(mode="json", by_alias=True)

    def to_yaml(self) -> str:
        """Return the effective config as YAML."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)
