"""recembed's tables in a plain TorchRec model: an ``EmbeddingBagCollection`` of the rows and the keyed ids that read it.

The collection knows rows alone. A feature that reads one row per id has one key, its own name; a feature of several
probes has a key per probe, ``name:0``, ``name:1`` and so on, and what the method makes of them (side by side, added) is
up to the TorchRec model. Addresses are computed here, so hashing and shared rows stay what they were in training.
Axes: ``B`` rows of a batch, ``P`` probes (slots) of a feature, ``N`` ids of a jagged feature.
"""

from typing import TYPE_CHECKING, Literal

from torch import Tensor

from recembed.batch import Batch
from recembed.embedding.module import FeatureEmbedding
from recembed.errors import ConfigError
from recembed.schema.feature import Feature
from recembed.tables import Table

if TYPE_CHECKING:
    import torchrec

__all__ = ["slot_keys", "to_embedding_bag_collection", "to_keyed_jagged_tensor"]

_BagPooling = Literal["sum", "mean"]


def slot_keys(embedding: FeatureEmbedding) -> dict[str, tuple[str, ...]]:
    """Return the keys of each feature with ids, in schema order: its name, or ``name:probe`` where there are several.

    >>> import polars as pl
    >>> from recembed.data import fit
    >>> from recembed.embedding import EmbeddingConfig
    >>> from recembed.schema.feature import Schema
    >>> schema = Schema.parse({"features": [{"name": "city"}], "labels": [{"name": "click"}]})
    >>> fitted = fit(pl.DataFrame({"city": [1, 2], "click": [0, 1]}), schema)
    >>> hashed = {"kind": "hashed", "num_embeddings": 2, "probes": 2}
    >>> slot_keys(FeatureEmbedding(fitted)), slot_keys(FeatureEmbedding(fitted, EmbeddingConfig(table=hashed)))
    ({'city': ('city',)}, {'city': ('city:0', 'city:1')})
    """
    return {feature.name: _keys(feature, table) for feature, table in _features(embedding)}


def to_embedding_bag_collection(embedding: FeatureEmbedding) -> "torchrec.EmbeddingBagCollection":
    """Copy the rows into a plain TorchRec ``EmbeddingBagCollection``, table by table under the same names.

    First-order weights, numeric encoders and projections stay behind: they are no tables of vectors.

    Raises:
        ConfigError: a bag is pooled by ``max``, carries weights or is kept as a sequence, which the collection cannot
            do; or bags of one table are pooled in two ways.
        MissingPackageError: torchrec is not installed.
    """
    from recembed.rows.torchrec_tables import embedding_bag_collection

    feature_names: dict[str, list[str]] = {}
    for feature, table in _features(embedding):
        for key, slot in zip(_keys(feature, table), table.slots, strict=True):
            feature_names.setdefault(slot.name, []).append(key)
    tables = {name: (embedding.store.tables[name], embedding.store.rows(name)) for name in feature_names}
    return embedding_bag_collection(tables, feature_names, _poolings(embedding))


def to_keyed_jagged_tensor(embedding: FeatureEmbedding, batch: Batch) -> "torchrec.KeyedJaggedTensor":
    """Return the row addresses of a batch, as bags: of one id for a categorical feature, of ``lengths`` for a jagged one.

    Shapes:
        values: int64 addresses, key by key; lengths: int64 ``[keys * B]``.

    Raises:
        MissingPackageError: torchrec is not installed.
    """
    from recembed.rows.torchrec_tables import keyed_jagged_tensor

    columns = {feature.name: place for place, feature in enumerate(embedding.schema.categorical)}
    bags: dict[str, tuple[Tensor, Tensor]] = {}
    for feature, table in _features(embedding):
        if feature.jagged:
            ids, lengths = batch.jagged[feature.name].values, batch.jagged[feature.name].offsets.diff()  # [N], [B]
        else:
            ids = batch.ids[:, columns[feature.name]]  # [B]
            lengths = ids.new_ones(len(batch))  # [B]
        addresses = table.address(ids)  # [N, P]
        bags |= {key: (addresses[:, place], lengths) for place, key in enumerate(_keys(feature, table))}
    return keyed_jagged_tensor(bags)


def _features(embedding: FeatureEmbedding) -> list[tuple[Feature, Table]]:
    tables = embedding.tables
    return [(f, tables[f.vocabulary_name]) for f in (*embedding.schema.categorical, *embedding.schema.jagged)]


def _keys(feature: Feature, table: Table) -> tuple[str, ...]:
    if len(table.slots) == 1:
        return (feature.name,)
    return tuple(f"{feature.name}:{probe}" for probe in range(len(table.slots)))


def _poolings(embedding: FeatureEmbedding) -> dict[str, _BagPooling]:
    """Return how each table that bags read is pooled; a bag of one id is the same under both."""
    poolings: dict[str, _BagPooling] = {}
    for feature, table in _features(embedding):
        if not feature.jagged:
            continue
        pooling = embedding.config.pooling_of(feature)
        if pooling not in ("sum", "mean") or feature.weights is not None:
            found = f"weights {feature.weights!r}" if pooling in ("sum", "mean") else f"pooling {pooling!r}"
            raise ConfigError(
                f"feature {feature.name!r} has {found}: TorchRec's EmbeddingBagCollection pools by sum or mean, "
                "without weights; change the pooling, or keep this feature in FeatureEmbedding"
            )
        for name in {slot.name for slot in table.slots}:
            if poolings.setdefault(name, pooling) != pooling:
                raise ConfigError(
                    f"feature {feature.name!r} has pooling {pooling!r}, but another bag of table {name!r} has "
                    f"{poolings[name]!r}: TorchRec pools a table in one way; set the same pooling for both"
                )
    return poolings
