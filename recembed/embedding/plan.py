"""The plan of a model's tables: which bytes training takes and which are served, table by table."""

import polars as pl

from recembed.embedding.budget import served_rows
from recembed.embedding.module import FeatureEmbedding
from recembed.schema.vocabulary import FIRST_OOV_ID
from recembed.tables import Table

__all__ = ["embedding_plan", "plan_lines"]

_ID_MAP_BYTES = 12  # per known id in the exported graph: an int64 key and an int32 id
_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "table": pl.String,
    "method": pl.String,
    "num_embeddings": pl.Int64,
    "rows": pl.Int64,
    "trained_bytes": pl.Int64,
    "optimizer_bytes": pl.Int64,
    "served_bytes": pl.Int64,
    "exact_bytes": pl.Int64,
    "id_map_bytes": pl.Int64,
}


def embedding_plan(embedding: FeatureEmbedding) -> pl.DataFrame:
    """Return one line per table, known before training: a line ``.linear`` holds a feature's first-order weights.

    Columns: ``num_embeddings`` ids (null without a vocabulary), ``rows`` held, ``trained_bytes`` and
    ``optimizer_bytes`` while training, ``served_bytes`` in the bundle, ``exact_bytes`` of an exact table, and
    ``id_map_bytes`` of the id map that the exported graph needs beside it (hash methods need none). Rows that several
    features share count where they come first.

    >>> import polars as pl
    >>> from recembed.data import fit
    >>> from recembed.embedding import EmbeddingConfig
    >>> from recembed.schema.feature import Schema
    >>> schema = Schema.parse({"features": [{"name": "city"}], "labels": [{"name": "click"}]})
    >>> fitted = fit(pl.DataFrame({"city": [1, 2], "click": [0, 1]}), schema)
    >>> embedding_plan(FeatureEmbedding(fitted, EmbeddingConfig(embedding_dim=4)))["served_bytes"].to_list()
    [80]
    """
    seen: set[str] = set()
    lines = []
    for name, table in embedding.all_tables().items():
        vocabulary = name.removesuffix(".linear")
        ids = embedding.num_embeddings.get(vocabulary)
        lines.append(
            {
                "table": name,
                "method": embedding.config.table_of(vocabulary).kind,
                "num_embeddings": ids,
                **_bytes(embedding, table, seen),
                "exact_bytes": None if ids is None else 4 * ids * table.embedding_dim,
                "id_map_bytes": _id_map_bytes(embedding, vocabulary)
                if table.reads == "ids" and name == vocabulary
                else 0,
            }
        )
    return pl.DataFrame(lines, schema=_SCHEMA)


def _id_map_bytes(embedding: FeatureEmbedding, vocabulary: str) -> int:
    reserved = FIRST_OOV_ID + embedding.schema[vocabulary].oov_buckets
    return _ID_MAP_BYTES * (embedding.num_embeddings[vocabulary] - reserved)


def _bytes(embedding: FeatureEmbedding, table: Table, seen: set[str]) -> dict[str, int]:
    own = {slot.name: slot for slot in table.slots if slot.name not in seen}
    served = {
        name: size for name, size in served_rows(table, embedding.config.served_dtype).items() if name not in seen
    }
    seen |= own.keys() | served.keys()
    optimizer = embedding.store.optimizer
    states = optimizer.states if optimizer else ()
    numbers = sum(
        slot.num_embeddings * optimizer.state_width(state, slot.embedding_dim)
        for slot in own.values()
        for state in states
        if optimizer
    )
    return {
        "rows": sum(slot.num_embeddings for slot in own.values()),
        "trained_bytes": sum(embedding.store.tables[name].bytes for name in own) + table.overhead_bytes,
        "optimizer_bytes": 4 * numbers,
        "served_bytes": sum(served.values()) + table.served_overhead_bytes,
    }


def plan_lines(plan: pl.DataFrame) -> list[str]:
    r"""Return the plan as lines of text, one per table and one for the sum; first-order weights count with vectors.

    >>> plan = pl.DataFrame({"table": ["city", "city.linear"], "method": ["full"] * 2, "num_embeddings": [5, 5],
    ...     "rows": [5, 5], **dict.fromkeys(("trained_bytes", "served_bytes", "exact_bytes"), [80, 20]),
    ...     "optimizer_bytes": [20, 20], "id_map_bytes": [60, 0]})
    >>> print("\n".join(plan_lines(plan)))
    table  method  ids  trained  optimiser  served  exact  id map  (bytes)
    city   full      5      100         40     100    100      60
    sum              5      100         40     100    100      60
    """
    sizes = ["trained_bytes", "optimizer_bytes", "served_bytes", "exact_bytes", "id_map_bytes"]
    tables = plan.group_by(pl.col("table").str.strip_suffix(".linear"), maintain_order=True).agg(
        pl.col("method", "num_embeddings").first(), pl.col(sizes).sum()
    )
    total = tables.select(
        pl.lit("sum").alias("table"), pl.lit("").alias("method"), pl.col("num_embeddings", *sizes).sum()
    )
    cells = [("table", "method", "ids", "trained", "optimiser", "served", "exact", "id map")]
    cells += [
        (row[0], row[1], *("" if n is None else f"{n:,}" for n in row[2:])) for row in (tables.rows() + total.rows())
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = []
    for line in cells:
        words = [line[i].ljust(widths[i]) if i < 2 else line[i].rjust(widths[i]) for i in range(len(line))]
        lines.append("  ".join(words).rstrip())
    return [lines[0] + "  (bytes)", *lines[1:]]
