"""Schema + settings → the tables of a model, one per vocabulary."""

from collections.abc import Mapping
from dataclasses import replace

from recembed.embedding.config import EmbeddingConfig
from recembed.errors import ConfigError
from recembed.rows import Init, RowTable
from recembed.schema.fitted import FittedSchema
from recembed.tables import Table, TableConfig, TableSpec

__all__ = ["build_tables", "row_tables", "table_specs"]

_LINEAR_INIT = Init(scale=0.0, law="uniform")


def build_tables(fitted: FittedSchema, config: EmbeddingConfig, *, linear: bool, seed: int) -> dict[str, Table]:
    """Build the table of every vocabulary, in schema order.

    Features under equal settings are built together, so that a shared store sees all of its features at once.

    Args:
        fitted: Schema with its vocabularies.
        config: The method of each feature.
        linear: Build the first-order weights (width 1, all zero at first) instead of the vectors.
        seed: Salts depend on it.
    """
    groups: list[tuple[TableConfig, list[TableSpec]]] = []
    names: list[str] = []
    for method, spec in table_specs(fitted, config, linear=linear):
        names.append(spec.name)
        members = next((specs for known, specs in groups if known == method), None)
        if members is None:
            groups.append((method, [spec]))
        else:
            members.append(spec)
    tables: dict[str, Table] = {}
    for method, specs in groups:
        tables |= method.build(specs, seed)
        for spec in specs:
            if encoder := config.encoder_of(spec.name):
                tables[spec.name] = encoder.build(spec, fitted.vocabulary_of(spec.name), tables[spec.name], seed)
    return {name: tables[name] for name in names}


def table_specs(fitted: FittedSchema, config: EmbeddingConfig, *, linear: bool) -> list[tuple[TableConfig, TableSpec]]:
    """Return the method and the task of every vocabulary, in schema order."""
    found: dict[str, tuple[TableConfig, TableSpec]] = {}
    for feature in (*fitted.schema.categorical, *fitted.schema.jagged):
        name = feature.vocabulary_name
        if name in found:
            continue
        vocabulary = fitted.vocabulary_of(name)
        spec = TableSpec(
            name=name,
            num_embeddings=vocabulary.num_embeddings if vocabulary else None,
            embedding_dim=1 if linear else config.embedding_dim,
            init=_LINEAR_INIT if linear else config.init,
            linear=linear,
            counts=vocabulary.row_counts() if vocabulary else None,
            reserved_ids=vocabulary.first_id if vocabulary else 0,
            vector_dim=config.embedding_dim if linear else None,
            served_dtype=config.served_dtype,
            values=vocabulary.values if vocabulary else None,
        )
        found[name] = config.table_of(name), spec
    return list(found.values())


def row_tables(tables: Mapping[str, Table], config: EmbeddingConfig) -> list[RowTable]:
    """Return the rows that tables train, in the type that the config names.

    Raises:
        ConfigError: a method needs float32 rows.
    """
    for name, table in tables.items():
        if config.row_dtype != "float32" and table.exact_rows:
            raise ConfigError(
                f"embeddings.row_dtype = {config.row_dtype!r}: method {config.table_of(name).kind!r} of feature {name!r} needs "
                f"float32 rows ({table.exact_rows}); set row_dtype to 'float32', or choose another method"
            )
    return [replace(slot, dtype=config.row_dtype) for table in tables.values() for slot in table.slots]
