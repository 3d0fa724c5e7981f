"""First-order weights: one number per id, added up over the features of a row.

Axes: ``B`` rows.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from recembed.batch import Batch
from recembed.embedding.config import EmbeddingConfig, PoolingOption
from recembed.embedding.groups import ColumnGroup, JaggedFeature, group_columns
from recembed.embedding.lookup import Lookups, Request
from recembed.numeric import NumericEncoder
from recembed.rows import RowStore
from recembed.schema.feature import Schema
from recembed.schema.fitted import FittedSchema
from recembed.tables import Table

__all__ = ["FirstOrderWeights"]

_POOLING: dict[PoolingOption, PoolingOption] = {"sum": "sum", "mean": "mean", "none": "mean", "max": "mean"}


class FirstOrderWeights(nn.Module):
    """The linear part of a wide or factorisation model, over tables of width 1.

    A bag counts the sum of its weights (or the mean, as it is pooled); a sequence the mean. Numbers that are
    embedded as fields get an encoder of width 1 here; numbers that enter a model as dense columns do not, since the
    model has weights for those itself.

    Args:
        fitted: Schema with its statistics.
        config: Pooling and numeric encoder per feature.
        tables: Tables of width 1, by vocabulary name.
        store: Where their rows are.
    """

    def __init__(
        self, fitted: FittedSchema, config: EmbeddingConfig, tables: Mapping[str, Table], store: RowStore
    ) -> None:
        super().__init__()
        schema = fitted.schema
        self.pooling: dict[str, PoolingOption] = {f.name: _POOLING[config.pooling_of(f)] for f in schema.jagged}
        self.place(schema, tables, store)
        self.numeric = nn.ModuleList()
        self._numeric_columns: list[slice] = []
        for feature, place in zip(schema.numeric, fitted.numeric_columns, strict=True):
            encoder = config.numeric_of(feature.name).build(feature, fitted.numeric[feature.name], 1)
            if encoder.interacts:
                self.numeric.append(encoder)
                self._numeric_columns.append(slice(place.start, place.start + place.width))

    def place(self, schema: Schema, tables: Mapping[str, Table], store: RowStore) -> None:
        """Read the weights from these tables and this store from now on."""
        self.columns = nn.ModuleList(group_columns(schema.categorical, tables, store))
        self._like: list[int | None] = [None] * len(self.columns)
        self.jagged = nn.ModuleList(
            JaggedFeature(feature, tables[feature.vocabulary_name], store, self.pooling[feature.name])
            for feature in schema.jagged
        )

    def share(self, groups: Sequence[ColumnGroup]) -> None:
        """Learn which groups of the vectors have the addresses of one of the weights' own: they are found once."""
        self._like = [
            next((i for i, vectors in enumerate(groups) if group.addresses_like(vectors)), None)
            for group in self._groups
        ]

    def request(self, lookups: Lookups, batch: Batch, addressed: Sequence[Tensor]) -> list[dict[int, Request]]:
        """Ask for the weights of a batch; where nothing but a sum is needed the kernel adds them up.

        Args:
            lookups: Takes the requests.
            batch: The rows.
            addressed: What the groups of ``share`` found for them.
        """
        requests = []
        for group, like in zip(self._groups, self._like, strict=True):
            addresses = group.address(group.take(batch.ids)) if like is None else addressed[like]
            if group.additive:
                requests.append({1: group.request_sums(lookups, addresses)})
            else:
                requests.append(group.request(lookups, addresses))
        return requests + [bag.request(lookups, batch.jagged[bag.name]) for bag in self._bags]

    def finish(self, requests: list[dict[int, Request]], batch: Batch) -> Tensor:
        """Return the sum of each row's weights, float32 ``[B]``."""
        total = torch.zeros(batch.ids.shape[0], device=batch.ids.device)  # [B]
        groups, bags = self._groups, self._bags
        for group, request in zip(groups, requests[: len(groups)], strict=True):
            if group.additive:
                total = total + request[1].rows.squeeze(1)
            else:
                total = total + group.decode(request, group.take(batch.ids)).sum(1)
        for bag, request in zip(bags, requests[len(groups) :], strict=True):
            total = total + cast(Tensor, bag.finish(request, batch.jagged[bag.name])).squeeze(1)
        for encoder, columns in zip(self.numeric, self._numeric_columns, strict=True):
            total = total + cast(NumericEncoder, encoder)(batch.numeric[:, columns]).squeeze(1)
        return total

    @property
    def _groups(self) -> list[ColumnGroup]:
        return [cast(ColumnGroup, group) for group in self.columns]

    @property
    def _bags(self) -> list[JaggedFeature]:
        return [cast(JaggedFeature, feature) for feature in self.jagged]
