"""``FeatureEmbedding``: the one module a user puts in a model, ``Batch`` → ``Embedded``.

All ids of all features are addressed first, then looked up in one call per row width, then decoded.
Axes: ``B`` rows, ``D`` width of a field, ``W`` numeric columns.
"""

from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn

from recembed.batch import Batch
from recembed.embedded import Embedded, KeyedTensor, PaddedSequence
from recembed.embedding.config import EmbeddingConfig
from recembed.embedding.groups import ColumnGroup, JaggedFeature, group_columns
from recembed.embedding.lookup import Lookups, Request
from recembed.embedding.tables import build_tables
from recembed.numeric import NumericEncoder
from recembed.rows import RowStore, make_row_store
from recembed.schema.fitted import FittedSchema
from recembed.tables import Table

__all__ = ["FeatureEmbedding"]


class FeatureEmbedding(nn.Module):
    """Embed every feature of a schema.

    Args:
        fitted: Schema with its vocabularies and statistics.
        config: Method, pooling and numeric encoder per feature, row store and row rule.
        linear: Also keep first-order weights (tables of width 1); their sum comes out as ``Embedded.linear``.
        seed: Fresh weights depend on it and on names alone.
        device: Where rows and parameters live; ``meta`` counts bytes without taking them.

    Attributes:
        field_keys: Names of the fields, in the order of ``Embedded.fields``.
        field_widths: Their widths.
        dense_width: Columns of ``Embedded.dense``.
        sequence_widths: Widths of the sequences that are not pooled, by name.
        key_features: Features whose tables read raw keys: encode the data with it.
        store: The rows.

    Raises:
        ConfigError: the config names a feature that the schema lacks, or a method cannot serve a feature.
    """

    def __init__(
        self,
        fitted: FittedSchema,
        config: EmbeddingConfig | None = None,
        *,
        linear: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.config = config or EmbeddingConfig()
        self.schema = fitted.schema
        self.linear = linear
        self.embedding_dim = self.config.embedding_dim
        self.config.check(self.schema)
        self._tables = build_tables(fitted, self.config, linear=False, seed=seed)
        first_order = build_tables(fitted, self.config, linear=True, seed=seed) if linear else {}
        slots = chain.from_iterable(table.slots for table in (*self._tables.values(), *first_order.values()))
        self.store: RowStore = make_row_store(
            self.config.row_store, list(slots), optimizer=self.config.row_optimizer, seed=seed, device=device
        )
        with torch.device(device), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.columns = nn.ModuleList(group_columns(self.schema.categorical, self._tables, self.store))
            self.jagged = self._jagged(self._tables)
            self.linear_columns = nn.ModuleList(
                group_columns(self.schema.categorical, first_order, self.store) if linear else []
            )
            self.linear_jagged = self._jagged(first_order)
            self.numeric = nn.ModuleList(
                self.config.numeric_of(f.name).build(f, fitted.numeric[f.name], self.embedding_dim)
                for f in self.schema.numeric
            )
            self._lay_out()
        self.to(device)

    def _jagged(self, tables: dict[str, Table]) -> nn.ModuleList:
        modules = nn.ModuleList()
        for feature in self.schema.jagged if tables else ():
            pooling = self.config.pooling_of(feature)
            if tables is not self._tables and pooling in ("none", "max"):
                pooling = "mean"  # the first-order weight of a sequence
            modules.append(JaggedFeature(feature, tables[feature.vocabulary_name], self.store, pooling))
        return modules

    def _lay_out(self) -> None:
        pooled = [(j.name, j.width) for j in self._jagged_features if j.pooling != "none"]
        self.sequence_widths = {j.name: j.width for j in self._jagged_features if j.pooling == "none"}
        columns = [pair for group in self._column_groups for pair in zip(group.keys, group.widths, strict=True)]
        numbers = list(zip((f.name for f in self.schema.numeric), self._numeric_encoders, strict=True))
        fields = [*columns, *pooled, *((name, e.embedding_dim) for name, e in numbers if e.interacts)]
        self.field_keys = tuple(name for name, _ in fields)
        self._fetched_widths = tuple(width for _, width in fields)
        self.dense_width = sum(encoder.embedding_dim for _, encoder in numbers if not encoder.interacts)
        project = self.config.project and any(width != self.embedding_dim for width in self._fetched_widths)
        self.projections = nn.ModuleList(
            nn.Linear(width, self.embedding_dim, bias=False) if width != self.embedding_dim else nn.Identity()
            for width in (self._fetched_widths if project else ())
        )
        self.field_widths = (self.embedding_dim,) * len(fields) if project else self._fetched_widths
        by_feature = {f.name: self._tables[f.vocabulary_name] for f in (*self.schema.categorical, *self.schema.jagged)}
        self.key_features = frozenset(name for name, table in by_feature.items() if table.reads == "keys")

    def forward(self, batch: Batch) -> Embedded:
        """Embed one batch; see ``Embedded`` for the shapes."""
        decay = self.config.l2 / max(int(batch.ids.shape[0]), 1) if self.config.l2 and self.training else 0.0
        lookups = Lookups(self.store, decay)
        columns = [(group, ids := group.take(batch.ids), group.request(lookups, ids)) for group in self._column_groups]
        jagged = [(j, j.request(lookups, batch.jagged[j.name])) for j in self._jagged_features]
        first_order = self._request_linear(lookups, batch) if self.linear else []
        lookups.gather()

        pieces = [group.decode(requests, ids) for group, ids, requests in columns]
        sequences: dict[str, PaddedSequence] = {}
        for feature, requests in jagged:
            vectors = feature.finish(requests, batch.jagged[feature.name])
            if isinstance(vectors, PaddedSequence):
                sequences[feature.name] = vectors
            else:
                pieces.append(vectors)
        fields, dense = self._encode_numbers(batch.numeric)
        return Embedded(
            self._keyed(pieces + fields, batch),
            torch.cat(dense, dim=1) if dense else batch.numeric[:, :0],
            self._sum_linear(first_order, batch) if self.linear else None,
            sequences,
        )

    def _request_linear(self, lookups: Lookups, batch: Batch) -> list[dict[int, Request]]:
        requests = []
        for group in self._linear_groups:
            ids = group.take(batch.ids)
            requests.append({1: group.request_sums(lookups, ids)} if group.additive else group.request(lookups, ids))
        return requests + [j.request(lookups, batch.jagged[j.name]) for j in self._linear_jagged]

    def _sum_linear(self, requests: list[dict[int, Request]], batch: Batch) -> Tensor:
        total = batch.labels.new_zeros(batch.ids.shape[0])  # [B]
        groups = self._linear_groups
        for group, request in zip(groups, requests, strict=False):
            if group.additive:
                total = total + request[1].rows.squeeze(1)
            else:
                total = total + group.decode(request, group.take(batch.ids)).sum(1)
        for feature, request in zip(self._linear_jagged, requests[len(groups) :], strict=True):
            total = total + cast(Tensor, feature.finish(request, batch.jagged[feature.name])).squeeze(1)
        return total

    def _encode_numbers(self, numeric: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        fields: list[Tensor] = []
        dense: list[Tensor] = []
        start = 0
        for feature, encoder in zip(self.schema.numeric, self._numeric_encoders, strict=True):
            vectors = encoder(numeric[:, start : start + feature.width])  # [B, D]
            (fields if encoder.interacts else dense).append(vectors)
            start += feature.width
        return fields, dense

    def _keyed(self, pieces: list[Tensor], batch: Batch) -> KeyedTensor:
        if not pieces:
            return KeyedTensor((), (), batch.numeric[:, :0])
        values = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)
        if len(self.projections):
            parts = torch.split(values, list(self._fetched_widths), dim=1)
            values = torch.cat([project(part) for project, part in zip(self.projections, parts, strict=True)], dim=1)
        return KeyedTensor(self.field_keys, self.field_widths, values)

    @property
    def _column_groups(self) -> list[ColumnGroup]:
        return [cast(ColumnGroup, group) for group in self.columns]

    @property
    def _jagged_features(self) -> list[JaggedFeature]:
        return [cast(JaggedFeature, feature) for feature in self.jagged]

    @property
    def _linear_groups(self) -> list[ColumnGroup]:
        return [cast(ColumnGroup, group) for group in self.linear_columns]

    @property
    def _linear_jagged(self) -> list[JaggedFeature]:
        return [cast(JaggedFeature, feature) for feature in self.linear_jagged]

    @property
    def _numeric_encoders(self) -> list[NumericEncoder]:
        return [cast(NumericEncoder, encoder) for encoder in self.numeric]

    @property
    def tables(self) -> dict[str, Table]:
        """The method of each vocabulary, by its name."""
        return dict(self._tables)

    @property
    def bytes(self) -> int:
        """Bytes of all rows as float32, first-order weights included, and of what the methods keep beside them."""
        return self.store.bytes + sum(table.overhead_bytes for table in self._tables.values())
