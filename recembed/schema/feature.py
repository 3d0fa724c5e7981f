"""What the columns are: features, labels and the schema that lists them."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from recembed.errors import ConfigError, did_you_mean
from recembed.settings import explain_validation
from recembed.sources import Source, reading, scan

__all__ = ["Feature", "Label", "Schema"]

Kind = Literal["categorical", "bag", "sequence", "numeric"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Feature(_Record):
    """One input column.

    Attributes:
        name: The feature's name in the model.
        kind: ``categorical`` (one id), ``bag`` (several ids, any order), ``sequence`` (ordered ids, oldest
            first) or ``numeric`` (a number or a vector of fixed ``width``).
        column: The source column, if its name differs from ``name``.
        role: ``user`` and ``item`` mark the ids that group rows (gAUC) and that are exported.
        shares: Name of the feature whose vocabulary and table this one uses.
        vocabulary: False skips the vocabulary: only hash methods, which read raw keys, then fit the feature.
        min_count: Values seen less often in training fold into an out-of-vocabulary bucket, which they train.
        top_k: Keep at most this many values, the most frequent ones.
        oov_buckets: Out-of-vocabulary rows; an unseen value is hashed to one of them.
        id_dropout: Share of training ids replaced by their out-of-vocabulary bucket, so that it is trained;
            ``auto`` is 0.005 where folding leaves the buckets fewer than 0.1 % of the training rows, else 0.
        separator: Splits a text cell into the values of a bag or sequence (list columns need none).
        weights: Column with one number per id of a bag.
        max_length: Sequences and bags longer than this keep their last ``max_length`` ids.
        width: Numbers per row of a numeric feature.
    """

    name: Annotated[str, Field(min_length=1)]
    kind: Kind = "categorical"
    column: str | None = None
    role: Literal["user", "item"] | None = None
    shares: str | None = None
    vocabulary: bool = True
    min_count: Annotated[int, Field(ge=1)] = 1
    top_k: Annotated[int, Field(ge=1)] | None = None
    oov_buckets: Annotated[int, Field(ge=1)] = 1
    id_dropout: Annotated[float, Field(ge=0, lt=1)] | Literal["auto"] = "auto"
    separator: str | None = None
    weights: str | None = None
    max_length: Annotated[int, Field(ge=1)] | None = None
    width: Annotated[int, Field(ge=1)] = 1

    @property
    def source(self) -> str:
        """The column to read."""
        return self.column or self.name

    @property
    def jagged(self) -> bool:
        """Whether a row holds any number of ids."""
        return self.kind in ("bag", "sequence")

    @property
    def vocabulary_name(self) -> str:
        """The feature whose vocabulary encodes this one."""
        return self.shares or self.name


class Label(_Record):
    """A target column: 0/1 as it is, or ``value >= positive_from`` where that is given."""

    name: Annotated[str, Field(min_length=1)] = "label"
    column: str | None = None
    positive_from: float | None = None

    @property
    def source(self) -> str:
        """The column to read."""
        return self.column or self.name


class Schema(_Record):
    """The columns of one data set.

    >>> schema = Schema.parse({"features": [{"name": "user", "role": "user"}], "labels": [{"name": "click"}]})
    >>> schema.categorical[0].name, Schema.from_yaml(schema.to_yaml()) == schema
    ('user', True)
    """

    features: tuple[Feature, ...]
    labels: tuple[Label, ...] = ()
    timestamp: str | None = None

    @model_validator(mode="after")
    def _check(self) -> "Schema":
        names = [feature.name for feature in self.features] + [label.name for label in self.labels]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"name {twice[0]!r} stands twice; every feature and label needs its own name")
        by_name = {feature.name: feature for feature in self.features}
        for feature in self.features:
            _check_feature(feature, by_name)
        for role in ("user", "item"):
            holders = [f.name for f in self.features if f.role == role]
            if len(holders) > 1:
                raise ValueError(f"role {role!r} is given to {' and '.join(holders)}; give it to one feature")
        return self

    @classmethod
    def parse(cls, raw: Any) -> "Schema":
        """Build a schema from plain dictionaries; raises ``ConfigError`` with the place and the fix."""
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise ConfigError(explain_validation(error, "schema", cls)) from None

    @classmethod
    def infer(cls, source: Source | pl.LazyFrame | pl.DataFrame, *, label: str | None = None) -> "Schema":
        """Propose a schema from a file, a folder, a glob or a frame; ``recembed.schema.infer`` states the rules.

        Raises:
            DataError: the file cannot be read, or holds nothing to learn from.

        >>> Schema.infer(pl.DataFrame({"user_id": [1, 2], "price": [0.5, 1.5], "click": [0, 1]})).names
        ('user_id', 'price')
        """
        from recembed.schema.infer import infer_schema  # it builds on this module

        if isinstance(source, pl.LazyFrame | pl.DataFrame):
            return infer_schema(source, label=label)
        with reading(source):
            return infer_schema(scan(source), label=label)

    @classmethod
    def from_yaml(cls, text_or_path: str | Path) -> "Schema":
        """Read a schema from YAML text or from a YAML file (given as ``Path``).

        Raises:
            ConfigError: the file cannot be read, or it is no valid YAML or no valid schema.
        """
        try:
            text = text_or_path.read_text() if isinstance(text_or_path, Path) else text_or_path
            raw = yaml.safe_load(text)
        except OSError as error:
            raise ConfigError(f"schema {text_or_path} cannot be read: {error.strerror or error}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"schema is no valid YAML: {' '.join(str(error).split())}") from None
        return cls.parse(raw)

    def to_yaml(self) -> str:
        """Return the schema as YAML, defaults left out."""
        return yaml.safe_dump(self.model_dump(exclude_defaults=True, mode="json"), sort_keys=False)

    def __getitem__(self, name: str) -> Feature:
        """Return the feature called ``name``."""
        for feature in self.features:
            if feature.name == name:
                return feature
        raise ConfigError(f"feature {name!r} is not in the schema" + did_you_mean(name, self.names))

    @property
    def names(self) -> tuple[str, ...]:
        """All feature names."""
        return tuple(feature.name for feature in self.features)

    @property
    def categorical(self) -> tuple[Feature, ...]:
        """Features with one id a row: the columns of ``Batch.ids``."""
        return tuple(feature for feature in self.features if feature.kind == "categorical")

    @property
    def jagged(self) -> tuple[Feature, ...]:
        """Bags and sequences: the keys of ``Batch.jagged``."""
        return tuple(feature for feature in self.features if feature.jagged)

    @property
    def numeric(self) -> tuple[Feature, ...]:
        """Numeric features; each takes ``width`` columns of ``Batch.numeric``."""
        return tuple(feature for feature in self.features if feature.kind == "numeric")

    def role(self, role: str) -> Feature | None:
        """Return the feature that holds ``role`` (``user`` or ``item``), or None."""
        return next((feature for feature in self.features if feature.role == role), None)


def _check_feature(feature: Feature, by_name: dict[str, Feature]) -> None:
    where = f"feature {feature.name!r}"
    if feature.kind != "numeric" and feature.width != 1:
        raise ValueError(f"{where}: width = {feature.width} belongs to numeric features; kind is {feature.kind!r}")
    if not feature.jagged and (feature.separator or feature.weights or feature.max_length):
        raise ValueError(f"{where}: separator, weights and max_length belong to kind bag or sequence")
    if feature.shares is None:
        return
    other = by_name.get(feature.shares)
    if other is None or other is feature or other.shares or other.kind == "numeric" or feature.kind == "numeric":
        raise ValueError(
            f"{where}: shares = {feature.shares!r}: expected another categorical, bag or sequence feature "
            "of this schema that shares no table itself"
        )
