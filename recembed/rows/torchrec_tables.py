"""TorchRec's own forms of tables and batches, for models that are written in it."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from recembed.errors import MissingPackageError
from recembed.rows.quiet import quiet
from recembed.rows.row_table import RowTable

try:
    with quiet():
        import torchrec
except (ImportError, OSError) as error:
    raise MissingPackageError(
        f"TorchRec's own tables need torchrec that fits this torch ({error}): "
        "run 'recembed doctor' for the line that installs it"
    ) from error

__all__ = ["embedding_bag_collection", "keyed_jagged_tensor", "keyed_tensor"]


def keyed_tensor(keys: Sequence[str], widths: Sequence[int], values: Tensor) -> torchrec.KeyedTensor:
    """Return a TorchRec ``KeyedTensor`` over ``values`` ``[B, sum(widths)]``."""
    return torchrec.KeyedTensor(keys=list(keys), length_per_key=list(widths), values=values)


def keyed_jagged_tensor(bags: Mapping[str, tuple[Tensor, Tensor]]) -> torchrec.KeyedJaggedTensor:
    """Return a TorchRec ``KeyedJaggedTensor`` of ``{key: (values int64 [N], lengths int64 [B])}``."""
    return torchrec.KeyedJaggedTensor(
        keys=list(bags),
        values=torch.cat([values for values, _ in bags.values()]),
        lengths=torch.cat([lengths for _, lengths in bags.values()]),
    )


def embedding_bag_collection(
    tables: Mapping[str, tuple[RowTable, Tensor]],
    feature_names: Mapping[str, Sequence[str]],
    poolings: Mapping[str, Literal["sum", "mean"]] | None = None,
) -> torchrec.EmbeddingBagCollection:
    """Return a plain TorchRec ``EmbeddingBagCollection`` that holds copies of the given rows.

    Args:
        tables: Table name to its record and its rows, float32 ``[num_embeddings, embedding_dim]``.
        feature_names: Table name to the keys that read it.
        poolings: Table name to what becomes of its bags; ``sum`` where it is not named.
    """
    pooling = {"sum": torchrec.PoolingType.SUM, "mean": torchrec.PoolingType.MEAN}
    configs = [
        torchrec.EmbeddingBagConfig(
            name=name,
            num_embeddings=table.num_embeddings,
            embedding_dim=table.embedding_dim,
            feature_names=list(feature_names[name]),
            pooling=pooling[(poolings or {}).get(name, "sum")],
        )
        for name, (table, _) in tables.items()
    ]
    with quiet():
        collection = torchrec.EmbeddingBagCollection(tables=configs)
    with torch.no_grad():
        for name, (_, rows) in tables.items():
            collection.embedding_bags[name].weight.copy_(rows)
    return collection
