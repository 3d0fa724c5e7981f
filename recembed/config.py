"""One YAML file is one whole run: data, embeddings, model, training, tracking."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator

from recembed.data.split import SplitConfig
from recembed.embedding import EmbeddingConfig
from recembed.errors import ConfigError, did_you_mean
from recembed.models import MODELS, ModelConfig
from recembed.schema.feature import Schema
from recembed.settings import explain_validation, parse_kind
from recembed.sources import Format
from recembed.training import TrainingConfig
from recembed.training.stages import Stages, TrainStage

__all__ = [
    "DataConfig",
    "EvaluationConfig",
    "RunConfig",
    "TrackingConfig",
    "apply_override",
    "load_config",
    "parse_model",
    "read_settings",
]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(_Section):
    """Where the rows come from: a named data set, or files.

    Attributes:
        dataset: Name of a known data set.
        path: A file, a folder, a glob, or a list of these.
        format: Format of ``path``, where the file name does not tell.
        has_header: Whether the first line of a text file names the columns.
        columns: Column names of a text file without a header.
        separator: What separates the cells of a text file.
        encoding: ``utf8-lossy`` puts U+FFFD in place of bytes of a text file that are not UTF-8.
        dtypes: Types of text columns that content does not tell (``string`` keeps leading zeros of ids).
        use: Features to keep, if not all of the schema's.
        where: Rows to keep before the split: the values allowed, by column (``{rating: [1, 2, 4, 5]}``).
        cache: Folder for the encoded rows, which are then mapped from disk instead of held in memory.
    """

    dataset: str | None = None
    path: str | tuple[str, ...] | None = None
    format: Format | None = None
    has_header: bool = True
    columns: tuple[str, ...] | None = None
    separator: str | None = None
    encoding: Literal["utf8", "utf8-lossy"] = "utf8"
    dtypes: dict[str, Literal["int", "float", "string"]] = {}
    use: tuple[str, ...] | None = None
    where: dict[str, Annotated[tuple[bool | int | float | str, ...], Field(min_length=1)]] = {}
    cache: Path | None = None

    @model_validator(mode="after")
    def _check(self) -> "DataConfig":
        if (self.dataset is None) == (self.path is None):
            raise ValueError("give either dataset (a known name) or path (your files)")
        return self


class EvaluationConfig(_Section):
    """What is measured beside the standard metrics.

    Attributes:
        slices: Features by whose training frequency the metrics are cut.
        few: Rows of items with fewer training rows than this, and those of unseen items, are also measured apart.
        resamples: Bootstrap resamples of the AUC interval.
    """

    slices: tuple[str, ...] = ()
    few: Annotated[int, Field(ge=1)] = 5
    resamples: Annotated[int, Field(ge=0)] = 200


class TrackingConfig(_Section):
    """Where the run is tracked.

    Attributes:
        kind: ``mlflow``, or ``none``.
        experiment: MLflow experiment.
        uri: MLflow tracking store; by default ``$MLFLOW_TRACKING_URI``, else a SQLite file in the working directory.
        log_model: Also log the model, so that ``mlflow.pyfunc.load_model`` scores raw rows.
    """

    kind: Literal["mlflow", "none"] = "mlflow"
    experiment: str = "recembed"
    uri: str | None = None
    log_model: bool = True


def parse_model(raw: Any) -> ModelConfig:
    """Turn one word, or a mapping with ``kind``, into the settings of that model.

    Raises:
        ConfigError: unknown kind or key, or a value out of range.
    """
    return parse_kind(raw, MODELS, "model kind")


class RunConfig(_Section):
    """A whole run.

    >>> config = RunConfig.parse({"data": {"dataset": "ml100k"}, "embeddings": {"table": "hashed"}})
    >>> config.embeddings.table.kind, config.model.kind, RunConfig.parse(config.to_dict()) == config
    ('hashed', 'deepfm', True)

    Attributes:
        name: Shown in tracking.
        data: Where the rows come from.
        schema: The columns; by default the data set's own.
        split: How rows are cut into training, validation and test; by default the data set's custom, else by chance.
        embeddings: Methods, row store, row rule.
        model: The CTR model.
        training: The loop.
        stages: What is done one after the other, for methods that take several trainings; by default what the methods
            in use ask for (their ``recipe``), and an empty list is a single training whatever they ask for.
        warm_start: Folder of an earlier run, from which rows of the ids that both know, and dense parameters, are taken.
        evaluation: What is measured.
        tracking: Where it is tracked.
    """

    name: str = "run"
    data: DataConfig
    schema_: Schema | None = Field(default=None, alias="schema")
    split: SplitConfig | None = None
    embeddings: EmbeddingConfig = EmbeddingConfig()
    model: Annotated[SerializeAsAny[ModelConfig], BeforeValidator(parse_model)] = parse_model("deepfm")
    training: TrainingConfig = TrainingConfig()
    stages: Stages | None = None
    warm_start: Path | None = None
    evaluation: EvaluationConfig = EvaluationConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        if self.schema_ is None and self.data.dataset is None:
            raise ValueError(
                "schema is required with data.path: list features and labels ('recembed infer' proposes one)"
            )
        for stage in self.stages or ():
            if isinstance(stage, TrainStage):
                stage.settings(self.training)  # a mistake in it is told now
        return self

    @classmethod
    def parse(cls, raw: Any) -> "RunConfig":
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


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run from a YAML file, then apply ``key=value`` overrides (dotted keys, values in YAML).

    Raises:
        ConfigError: no such file, broken YAML, an unknown key (the nearest is offered), a value out of range, or a run
            of another task.
    """
    raw = read_settings(path, overrides)
    if (task := raw.pop("task", "ctr")) != "ctr":
        raise ConfigError(f"config {path} is a run of task {task!r}; this needs one that predicts clicks (task: ctr)")
    return RunConfig.parse(raw)


def read_settings(path: Path | str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the plain values of a YAML file with the overrides applied; their meaning is not checked yet.

    Raises:
        ConfigError: no such file, or broken YAML.
    """
    path = Path(path)
    if not path.is_file():
        near = [str(other) for other in sorted(path.parent.glob("*.y*ml"))] if path.parent.is_dir() else []
        hint = did_you_mean(str(path), near) if near else ""
        raise ConfigError(f"config {path} does not exist{hint}")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"config {path}: expected sections with their settings, found {type(raw).__name__}")
    for override in overrides:
        apply_override(raw, override)
    return raw


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Lay one ``key=value`` over plain settings, in place.

    Raises:
        ConfigError: it is no such pair, or leads through a value that has no keys.
    """
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {override!r}: expected key=value, for example training.epochs=3")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override!r}: {text!r} is no valid YAML value") from None
    *parents, last = key.strip().split(".")
    place = raw
    for part in parents:
        inner = place.setdefault(part, {})
        if isinstance(inner, str):  # one word for a kind: make room for its settings
            inner = place[part] = {"kind": inner}
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override!r}: {part!r} holds {inner!r}, which has no keys")
        place = inner
    place[last] = value
