"""A byte budget → the size of every method: the largest ``ratio`` under which the served bytes fit."""

from collections.abc import Callable, Iterable, Sequence

from recembed.embedding.config import EmbeddingConfig
from recembed.embedding.tables import build_tables, table_specs
from recembed.errors import ConfigError
from recembed.rows import ServedDtype, served_row_bytes
from recembed.schema.fitted import FittedSchema
from recembed.tables import Table, TableConfig

__all__ = ["exact_bytes", "fit_to_budget", "served_bytes", "served_rows"]

_SMALLEST = 1e-6
_STEPS = 40
_CLOSE = 0.002
_NARROWING = 5


def served_bytes(tables: Iterable[Table], dtype: ServedDtype = "float32") -> int:
    """Return the planned bytes of the serving form of several tables; rows they share count once."""
    rows: dict[str, int] = {}
    overhead = 0
    for table in tables:
        rows |= served_rows(table, dtype)
        overhead += table.served_overhead_bytes
    return sum(rows.values()) + overhead


def served_rows(table: Table, dtype: ServedDtype) -> dict[str, int]:
    """Return the planned bytes of a table's rows; those that stay in the store are of ``dtype``."""
    if type(table).compact is not Table.compact:
        return table.served_rows
    return {slot.name: served_row_bytes(slot, dtype) for slot in table.slots}


def exact_bytes(fitted: FittedSchema, config: EmbeddingConfig, parts: Sequence[bool]) -> int:
    """Return the bytes of exact tables, as float32.

    Args:
        fitted: Schema with its vocabularies.
        config: Widths.
        parts: False for the vectors, True for first-order weights; one of them or both.

    Raises:
        ConfigError: a feature has no vocabulary, so there is no exact table.
    """
    specs = [spec for linear in parts for _, spec in table_specs(fitted, config, linear=linear)]
    for spec in specs:
        if spec.num_embeddings is None:
            raise ConfigError(
                f"embeddings.ratio = {config.ratio}: feature {spec.name!r} has no vocabulary, so there is no exact table "
                "to take a share of; set vocabulary: true, or give embedding_budget in bytes"
            )
    return sum(4 * spec.known_ids("full") * spec.embedding_dim for spec in specs)


def fit_to_budget(
    fitted: FittedSchema, config: EmbeddingConfig, parts: Sequence[bool], seed: int = 0
) -> EmbeddingConfig:
    """Return ``config`` with every sized method at the largest common ``ratio`` whose served bytes fit the budget.

    The budget is ``config.embedding_budget``, or ``config.ratio`` of the exact tables; without either the config
    comes back as it is. Methods without a ``ratio`` and those with a number of rows of their own keep their size.
    Bytes are those of vectors and first-order weights together, remaps, codes and dense parameters included. Where the
    budget is out of reach with the small features exact, an ``exact_below`` that was not set becomes 0.

    Args:
        fitted: Schema with its vocabularies.
        config: Methods and the budget.
        parts: False for the vectors, True for first-order weights; one of them or both.
        seed: Salts depend on it, sizes do not.

    Raises:
        ConfigError: the smallest possible tables are larger than the budget; the message says how large they are.
    """
    if config.ratio is not None:
        budget = int(config.ratio * exact_bytes(fitted, config, parts))
    elif config.embedding_budget is not None:
        budget = config.embedding_budget
    else:
        return config

    def size(ratio: float) -> int:
        sized = _resized(config, ratio)
        tables = [t for linear in parts for t in build_tables(fitted, sized, linear=linear, seed=seed).values()]
        return served_bytes(tables, config.served_dtype)

    largest = size(1.0)
    if largest <= budget:
        return _resized(config, 1.0)
    smallest, low = _smallest(size)
    if smallest > budget and _compressible(config) != config:
        return fit_to_budget(fitted, _compressible(config), parts, seed)
    if smallest > budget:
        raise ConfigError(_too_small(config, budget, smallest, largest))
    high = 1.0
    for _ in range(_STEPS):
        middle = (low * high) ** 0.5 if high > 4 * low else (low + high) / 2
        taken = size(middle)
        low, high = (middle, high) if taken <= budget else (low, middle)
        if taken <= budget and (taken >= (1 - _CLOSE) * budget or high - low < 1e-7):
            break
    return _resized(config, low)


def _smallest(size: Callable[[float], int]) -> tuple[int, float]:
    """Return the smallest bytes and their ratio; methods refuse ratios they cannot build, so it is searched for."""
    low, high = 0.0, _SMALLEST
    while True:
        try:
            found = size(high)
            break
        except ConfigError:
            if high >= 1:
                raise
            low, high = high, min(high * 2, 1.0)
    for _ in range(_NARROWING if low else 0):
        try:
            found, high = size((low + high) / 2), (low + high) / 2
        except ConfigError:
            low = (low + high) / 2
    return found, high


def _compressible(config: EmbeddingConfig) -> EmbeddingConfig:
    """Return ``config`` without the ``exact_below`` that nobody set: small features are compressed too."""
    features = {
        name: options.model_copy(update={"table": _without_exact(options.table)}) if options.table else options
        for name, options in config.features.items()
    }
    return config.model_copy(update={"table": _without_exact(config.table), "features": features})


def _without_exact(table: TableConfig) -> TableConfig:
    inner = getattr(table, "table", None)
    if isinstance(inner, TableConfig):
        return table.model_copy(update={"table": _without_exact(inner)})
    if "exact_below" not in type(table).model_fields or "exact_below" in table.model_fields_set:
        return table
    return table.model_copy(update={"exact_below": 0})


def _resized(config: EmbeddingConfig, ratio: float) -> EmbeddingConfig:
    features = {
        name: options.model_copy(update={"table": options.table.resized(ratio)}) if options.table else options
        for name, options in config.features.items()
    }
    update = {"table": config.table.resized(ratio), "features": features, "embedding_budget": None, "ratio": None}
    return config.model_copy(update=update)


def _too_small(config: EmbeddingConfig, budget: int, smallest: int, largest: int) -> str:
    asked = f"embedding_budget = {config.embedding_budget}" if config.ratio is None else f"ratio = {config.ratio}"
    fixes = ["raise the budget", "lower embedding_dim"]
    if any(getattr(table, "exact_below", 0) for table in _tables(config)):
        fixes.append("lower exact_below")
    if any(table.kind != "multiplexed" for table in _tables(config)):
        fixes.append("choose a method without rows per id, such as 'multiplexed'")
    kinds = ", ".join(sorted({repr(table.kind) for table in _tables(config)}))
    return (
        f"embeddings.{asked}: {budget:,} bytes are fewer than the smallest tables that {kinds} can make here, "
        f"{smallest:,} bytes (exact tables and fixed sizes take up to {largest:,}); {', or '.join(fixes)}"
    )


def _tables(config: EmbeddingConfig) -> list[TableConfig]:
    return [config.table, *(options.table for options in config.features.values() if options.table)]
