"""Settings of the embedding part of a run: which method, pooling and numeric encoder each feature gets."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, model_validator

from recembed.errors import ConfigError, did_you_mean
from recembed.items.encoder import EncoderConfig
from recembed.numeric import NUMERIC, NumericConfig
from recembed.rows import AnyRowOptimizer, Init, RowDtype, RowStoreName, RowWiseAdagrad, ServedDtype
from recembed.schema.feature import Feature, Schema
from recembed.settings import parse_kind
from recembed.tables import AnyTableConfig, FullConfig, TableConfig

__all__ = ["EmbeddingConfig", "FeatureOptions", "parse_bytes", "parse_numeric"]

PoolingOption = Literal["sum", "mean", "max", "none"]


def parse_numeric(raw: Any) -> NumericConfig:
    """Turn one word, or a mapping with ``kind``, into the settings of that numeric encoder.

    Raises:
        ConfigError: unknown kind or key, or a value out of range.
    """
    return parse_kind(raw, NUMERIC, "numeric encoder")


_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def parse_bytes(raw: Any) -> Any:
    """Turn ``20 MB``, ``1.5 GiB`` or a number into bytes; decimal units are powers of 1,000.

    Raises:
        ValueError: the text is no size.

    >>> parse_bytes("20 MB"), parse_bytes("1.5 KiB"), parse_bytes(791_000)
    (20000000, 1536, 791000)
    """
    if not isinstance(raw, str):
        return raw
    found = re.fullmatch(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", raw)
    if not found or found[2].lower() not in _UNITS:
        raise ValueError(f"{raw!r} is no size: expected a number and a unit, such as '20 MB' or '1.5 GiB'")
    return round(float(found[1]) * _UNITS[found[2].lower()])


AnyNumericConfig = Annotated[SerializeAsAny[NumericConfig], BeforeValidator(parse_numeric)]


class FeatureOptions(BaseModel):
    """What one feature does differently from the rest.

    Attributes:
        table: Method of a categorical, bag or sequence feature.
        pooling: How the vectors of a bag or sequence become one; ``none`` keeps a sequence, with its mask.
        numeric: Encoder of a numeric feature.
        encoder: Item content, fused with the id's vector.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    table: AnyTableConfig | None = None
    pooling: PoolingOption | None = None
    numeric: AnyNumericConfig | None = None
    encoder: EncoderConfig | None = None


class EmbeddingConfig(BaseModel):
    """The embedding part of a run.

    Attributes:
        embedding_dim: Width of a feature's vector (a method with several probes may widen it).
        table: Method of every categorical, bag and sequence feature: one word, or a mapping with ``kind``.
        numeric: Encoder of every numeric feature, likewise.
        features: What single features do differently.
        embedding_budget: Bytes that the tables may take as they are served, first-order weights included: a number, or
            text such as ``20 MB``. The ``ratio`` of every method that has one is solved for it.
        ratio: The budget as a share of the bytes of exact tables.
        served_dtype: Type of the rows that are served: ``float32``, ``float16``, or ``int8`` with a float16 scale per row
            (rows under 4 wide: float16). Single weights of pruned tables are float16 under both; networks, projections,
            codebooks and the codes of integer methods stay as they are.
        row_dtype: Type of the rows in training: ``float32``, or ``float16`` or ``bfloat16`` at half the bytes, rounded at
            random at each update (see ``rows.rounding``). Optimiser states and all that is computed from rows stay
            float32. On CPU it takes row store ``torch``, which ``auto`` then is.
        project: Bring fields of other widths to ``embedding_dim`` by a learned projection.
        l2: Penalty ``l2 / 2 * sum(row**2)`` over the rows looked up, averaged over the batch.
        init: Law of fresh rows; first-order weights start at zero.
        row_store: ``torchrec``, ``torchrec_uvm``, ``torch`` or ``auto``; see ``rows.make_row_store``.
        row_optimizer: Row rule and its learning rate.

    >>> config = EmbeddingConfig(table="hashed", features={"genres": {"pooling": "sum"}})
    >>> config.table.kind, config.numeric.kind
    ('hashed', 'standardize')
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    embedding_dim: Annotated[int, Field(ge=1)] = 16
    table: AnyTableConfig = FullConfig()
    numeric: AnyNumericConfig = parse_numeric("standardize")
    features: dict[str, FeatureOptions] = {}
    embedding_budget: Annotated[int, BeforeValidator(parse_bytes), Field(ge=1)] | None = None
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    served_dtype: ServedDtype = "float32"
    row_dtype: RowDtype = "float32"
    project: bool = False
    l2: Annotated[float, Field(ge=0)] = 0.0
    init: Init = Init(scale=0.05, law="uniform")
    row_store: RowStoreName = "auto"
    row_optimizer: AnyRowOptimizer = RowWiseAdagrad()

    @model_validator(mode="after")
    def _check_budget(self) -> "EmbeddingConfig":
        if self.embedding_budget is not None and self.ratio is not None:
            raise ValueError("embedding_budget and ratio are both given; keep one of them")
        return self

    def table_of(self, name: str) -> TableConfig:
        """Return the method of feature ``name``."""
        options = self.features.get(name)
        return options.table if options and options.table else self.table

    def encoder_of(self, name: str) -> EncoderConfig | None:
        """Return the item content that encodes feature ``name``, if any."""
        options = self.features.get(name)
        return options.encoder if options else None

    def with_content(self, path: str | tuple[str, ...], schema: Schema) -> "EmbeddingConfig":
        """Return these settings with ``path``, the rows of a run, as the content of encoders that name no file of items."""
        features = {
            name: options.model_copy(update={"encoder": options.encoder.over(path, schema[name].source)})
            if options.encoder
            else options
            for name, options in self.features.items()
        }
        return self.model_copy(update={"features": features})

    def numeric_of(self, name: str) -> NumericConfig:
        """Return the numeric encoder of feature ``name``."""
        options = self.features.get(name)
        return options.numeric if options and options.numeric else self.numeric

    def pooling_of(self, feature: Feature) -> PoolingOption:
        """Return the pooling of a bag or sequence: its own, else ``mean``."""
        options = self.features.get(feature.name)
        return options.pooling if options and options.pooling else "mean"

    def check(self, schema: Schema) -> None:
        """Raise ``ConfigError`` where an option names a feature that is not there, or does not fit its kind."""
        for table in (self.table, *(options.table for options in self.features.values() if options.table)):
            probes = getattr(table, "probes", None)
            for name in probes if isinstance(probes, dict) else ():
                if name not in schema.names:
                    known = did_you_mean(name, schema.names)
                    raise ConfigError(f"table {table.kind!r}: probes: {name!r} is not in the schema{known}")
        for name, options in self.features.items():
            if name not in schema.names:
                raise ConfigError(
                    f"embeddings.features: {name!r} is not in the schema" + did_you_mean(name, schema.names)
                )
            feature = schema[name]
            where = f"embeddings.features.{name}"
            if options.pooling and not feature.jagged:
                raise ConfigError(
                    f"{where}.pooling = {options.pooling!r}: belongs to a bag or sequence, and {name!r} is "
                    f"{feature.kind}; leave it out"
                )
            if options.pooling == "none" and feature.kind == "bag":
                raise ConfigError(
                    f"{where}.pooling = 'none': a bag has no order; make it a sequence, or use sum, mean or max"
                )
            if options.pooling == "max" and feature.weights:
                raise ConfigError(f"{where}.pooling = 'max' cannot use weights; use sum or mean, or drop the weights")
            if options.encoder and (feature.kind == "numeric" or feature.shares):
                owner = f"shares the table of {feature.shares!r}; set it there" if feature.shares else "is numeric"
                raise ConfigError(f"{where}.encoder: {name!r} {owner}")
            if options.table and feature.kind == "numeric":
                raise ConfigError(
                    f"{where}.table: belongs to features with ids; {name!r} is numeric, set numeric instead"
                )
            if options.table and feature.shares:
                raise ConfigError(f"{where}.table: {name!r} shares the table of {feature.shares!r}; set it there")
            if options.numeric and feature.kind != "numeric":
                raise ConfigError(f"{where}.numeric: {name!r} is {feature.kind}; set table instead")
