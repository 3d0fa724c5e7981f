"""``FeatureEmbedding``: the one module a user puts in a model, ``Batch`` → ``Embedded``.

All ids of all features are addressed first, then looked up in one call per row width, then decoded.
Axes: ``B`` rows, ``D`` width of a field, ``W`` numeric columns.
"""

import copy
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Self, cast

import torch
from torch import Tensor, nn

from recembed.batch import Batch
from recembed.embedded import Embedded, KeyedTensor, PaddedSequence
from recembed.embedding.asked import Ahead, Asked
from recembed.embedding.budget import fit_to_budget, served_bytes
from recembed.embedding.compaction import COMPACT_FORM, compact_tables, refuse_compact_state
from recembed.embedding.config import EmbeddingConfig
from recembed.embedding.first_order import FirstOrderWeights
from recembed.embedding.groups import ColumnGroup, JaggedFeature, group_columns, in_schema_order
from recembed.embedding.lookup import Lookups
from recembed.embedding.numbers import NumericFeatures
from recembed.embedding.tables import build_tables, row_tables
from recembed.errors import ConfigError
from recembed.rows import ServedStore, StoreMaker, make_row_store
from recembed.schema.fitted import FittedSchema
from recembed.tables import Table

__all__ = ["FeatureEmbedding"]


class FeatureEmbedding(nn.Module):
    """Embed every feature of a schema.

    Args:
        fitted: Schema with its vocabularies and statistics.
        config: Method, pooling and numeric encoder per feature, row store and row rule.
        fields: Keep a vector per feature; False leaves first-order weights and dense numbers alone.
        linear: Also keep first-order weights (tables of width 1); their sum comes out as ``Embedded.linear``.
        seed: Fresh weights depend on it and on names alone.
        device: Where rows and parameters live; ``meta`` counts bytes without taking them.
        make_store: Makes the row store, as ``ShardedStores`` does; None takes the one that ``config`` names.

    Attributes:
        field_keys: Names of the fields, in the order of ``Embedded.fields``.
        field_widths: Their widths.
        dense_width: Columns of ``Embedded.dense``.
        sequence_widths: Widths of the sequences that are not pooled, by name.
        key_features: Features whose tables read raw keys: encode the data with it.
        tables: The method of each vocabulary, by its name.
        store: The rows.
        rows_stay: Let no method move rows before it reads them in training.

    Raises:
        ConfigError: the config names a feature that the schema lacks, or a method cannot serve a feature.
    """

    def __init__(
        self,
        fitted: FittedSchema,
        config: EmbeddingConfig | None = None,
        *,
        fields: bool = True,
        linear: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
        make_store: StoreMaker | None = None,
    ) -> None:
        super().__init__()
        self.config = config or EmbeddingConfig()
        self.schema = fitted.schema
        self.embedding_dim = self.config.embedding_dim
        self.linear = linear
        self.config.check(self.schema)
        parts = [part for part, wanted in ((False, fields), (True, linear)) if wanted]
        self.config = fit_to_budget(fitted, self.config, parts, seed)
        tables = build_tables(fitted, self.config, linear=False, seed=seed) if fields else {}
        weights = build_tables(fitted, self.config, linear=True, seed=seed) if linear else {}
        for name in tables.keys() & weights.keys():
            if tables[name].reads != weights[name].reads:
                raise ConfigError(
                    f"feature {name!r}: its vectors read {tables[name].reads}, its first-order weights "
                    f"{weights[name].reads}; a batch holds one of them"
                )
        slots = row_tables(tables, self.config) + row_tables(weights, self.config)
        make_store = make_store or partial(make_row_store, self.config.row_store)
        self.store = make_store(slots, optimizer=self.config.row_optimizer, seed=seed, device=device)
        self.num_embeddings = {name: vocabulary.num_embeddings for name, vocabulary in fitted.vocabularies.items()}
        self._fields = fields
        self.compacted = self.rows_stay = False
        self._ahead = Ahead()
        with torch.device(device), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.numeric = NumericFeatures(fitted, self.config, fields=fields)
            self.first_order = FirstOrderWeights(fitted, self.config, weights, self.store) if linear else None
            self._place(tables, weights)
            self._lay_out()
        self.to(device)
        self.register_load_state_dict_pre_hook(refuse_compact_state)  # type: ignore[no-untyped-call]

    def _place(self, tables: dict[str, Table], weights: dict[str, Table]) -> None:
        """Read vectors and first-order weights from these tables, whose rows are in the store."""
        self.tables, self.weights = tables or weights, weights
        self.columns = nn.ModuleList(group_columns(self.schema.categorical, tables, self.store) if self._fields else [])
        self.jagged = nn.ModuleList(
            JaggedFeature(feature, tables[feature.vocabulary_name], self.store, self.config.pooling_of(feature))
            for feature in (self.schema.jagged if self._fields else ())
        )
        if self.first_order is not None:
            self.first_order.place(self.schema, weights, self.store)
            self.first_order.share(self._groups)
        self._movers = [(name, table) for name, table in self._named_tables() if table.moves_rows]

    def _named_tables(self) -> Iterator[tuple[str, Table]]:
        yield from self.tables.items()
        if self.weights is not self.tables:
            yield from self.weights.items()

    def _lay_out(self) -> None:
        pooled = [(j.name, j.width) for j in self._jagged_features if j.pooling != "none"]
        self.sequence_widths = {j.name: j.width for j in self._jagged_features if j.pooling == "none"}
        widths = {k: w for group in self._groups for k, w in zip(group.keys, group.widths, strict=True)}
        columns = [(feature.name, widths[feature.name]) for feature in self.schema.categorical if widths]
        fields = [*columns, *pooled, *self.numeric.fields]
        self.field_keys = tuple(name for name, _ in fields)
        self._fetched_widths = tuple(width for _, width in fields)
        self.dense_width = self.numeric.dense_width
        project = self.config.project and any(width != self.embedding_dim for width in self._fetched_widths)
        self.projections = nn.ModuleList(
            nn.Linear(width, self.embedding_dim, bias=False) if width != self.embedding_dim else nn.Identity()
            for width in (self._fetched_widths if project else ())
        )
        self.field_widths = (self.embedding_dim,) * len(fields) if project else self._fetched_widths
        with_ids = (*self.schema.categorical, *self.schema.jagged)
        self.key_features = frozenset(f.name for f in with_ids if self.tables[f.vocabulary_name].reads == "keys")

    def forward(self, batch: Batch) -> Embedded:
        """Embed one batch; see ``Embedded`` for the shapes."""
        if self.training and self._movers and not self.rows_stay:
            self._move_rows(batch)
        asked = self._ahead.take(batch, training=self.training) or self._ask(batch)
        asked.lookups.gather()

        groups = self._groups
        vectors = [g.decode(r, own) for g, r, own in zip(groups, asked.columns, asked.ids, strict=True)]
        pieces = in_schema_order(groups, vectors)
        jagged = zip(self._jagged_features, asked.jagged, strict=True)
        finished = {j.name: j.finish(requests, batch.jagged[j.name]) for j, requests in jagged}
        pieces += [vectors for vectors in finished.values() if not isinstance(vectors, PaddedSequence)]
        sequences = {name: vectors for name, vectors in finished.items() if isinstance(vectors, PaddedSequence)}
        fields, dense = self.numeric(batch.numeric)
        linear = self.first_order.finish(asked.weights, batch) if self.first_order is not None else None
        dense_columns = torch.cat(dense, dim=1) if dense else batch.numeric[:, :0]
        asked.lookups.forget()
        return Embedded(self._keyed(pieces + fields, batch), dense_columns, linear, sequences)

    def _ask(self, batch: Batch) -> Asked:
        decay = self.config.l2 / max(int(batch.ids.shape[0]), 1) if self.config.l2 and self.training else 0.0
        lookups, groups = Lookups(self.store, decay), self._groups
        ids = [group.take(batch.ids) for group in groups]
        addresses = [group.address(own) for group, own in zip(groups, ids, strict=True)]
        columns = [group.request(lookups, own) for group, own in zip(groups, addresses, strict=True)]
        jagged = [j.request(lookups, batch.jagged[j.name]) for j in self._jagged_features]
        weights = self.first_order.request(lookups, batch, addresses) if self.first_order is not None else []
        return Asked(batch, self.training, lookups, ids, columns, jagged, weights)

    def start_sparse_data_dist(self, batch: Batch) -> object:
        """Begin the lookup of a batch that training embeds after the one in hand; return what must outlive its step.

        Over processes its addresses go to those that hold the rows while the step before it takes place, as in TorchRec's
        ``TrainPipelineSparseDist``; all call it alike. Nothing is begun where there is one process, nor where any feature's
        method moves rows before they are read. The vectors are the same bits with it and without it.
        """
        if self.store.processes.count == 1 or self._movers:
            return None
        asked = self._ask(batch)
        self._ahead.begin(asked)
        return asked

    def wait_sparse_data_dist(self) -> None:
        """Let the addresses go, once all processes have told how many they are."""
        self._ahead.wait()

    def drop_sparse_data_dist(self) -> None:
        """Forget lookups that were begun; all processes call it alike."""
        self._ahead.drop()

    def embedded(self, batch: Batch) -> bool:
        """Return whether the last forward pass with gradient was of this very batch, and not of one made from it."""
        return self._ahead.embedded(batch)

    def _keyed(self, pieces: list[Tensor], batch: Batch) -> KeyedTensor:
        if not pieces:
            return KeyedTensor((), (), batch.numeric[:, :0])
        values = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)
        if len(self.projections):
            parts = torch.split(values, list(self._fetched_widths), dim=1)
            values = torch.cat([project(part) for project, part in zip(self.projections, parts, strict=True)], dim=1)
        return KeyedTensor(self.field_keys, self.field_widths, values)

    @torch.no_grad()
    def _move_rows(self, batch: Batch) -> None:
        for name, table in self._movers:
            columns = [i for i, f in enumerate(self.schema.categorical) if f.vocabulary_name == name]
            bags = [batch.jagged[f.name].values for f in self.schema.jagged if f.vocabulary_name == name]
            parts = [self.store.processes.gather(ids) for ids in (*batch.ids[:, columns].unbind(1), *bags)]
            table.before_lookup(self.store, torch.cat(parts))

    def take_auxiliary_loss(self) -> Tensor | None:
        """Return the sum of what the methods add to the training loss of the last batch; None where they add nothing."""
        losses = [loss for _, table in self._named_tables() for loss in table.take_losses()]
        return torch.stack(losses).sum() if losses else None

    def all_tables(self) -> dict[str, Table]:
        """Return the tables of the vectors by vocabulary name, and those of first-order weights as ``name.linear``."""
        own = {} if self.weights is self.tables else self.tables
        return own | {f"{name}.linear": table for name, table in self.weights.items()}

    @torch.no_grad()
    def compact(self) -> "FeatureEmbedding":
        """Return a copy in its serving form: every table compacted where that makes it smaller, rows on CPU.

        It gives the vectors of evaluation mode, up to the rounding of ``config.served_dtype``, and cannot be trained.
        ``bytes`` of the copy are what it serves.

        Raises:
            ConfigError: a method has to be settled first.
        """
        if self.compacted:
            return self
        self.take_auxiliary_loss()  # losses that nobody took cannot be copied
        dtype = self.config.served_dtype
        tables = compact_tables(self.tables, self.store, self.num_embeddings, dtype)
        weights = tables
        if self.weights is not self.tables:
            weights = compact_tables(self.weights, self.store, self.num_embeddings, dtype)
        slots = chain.from_iterable(table.slots for table in (*tables.values(), *weights.values()))
        store = ServedStore(self.store, list(slots), dtype)
        served = copy.deepcopy(self, {id(self.store): store})
        served._place(tables if self._fields else {}, weights)
        served.register_buffer(COMPACT_FORM, torch.ones((), dtype=torch.bool))
        served.eval().cpu().compacted = True
        return served

    def train(self, mode: bool = True) -> Self:
        """Set the mode.

        Raises:
            ConfigError: this is a compact embedding, which serves and cannot be trained.
        """
        if mode and self.compacted:
            raise ConfigError("a compact embedding cannot be trained: build the model from its config and checkpoint")
        return super().train(mode)

    @property
    def _groups(self) -> list[ColumnGroup]:
        return [cast(ColumnGroup, group) for group in self.columns]

    @property
    def _jagged_features(self) -> list[JaggedFeature]:
        return [cast(JaggedFeature, feature) for feature in self.jagged]

    @property
    def device(self) -> torch.device:
        """Where rows and parameters live."""
        return next(chain(self.store.buffers(), self.buffers(), self.parameters())).device

    @property
    def bytes(self) -> int:
        """Bytes of all rows, first-order weights included, and of what the methods keep beside them.

        Rows are of ``config.row_dtype`` in training; those of a compact copy have the type they are served in.
        """
        return self.store.bytes + sum(table.overhead_bytes for table in self.all_tables().values())

    @property
    def served_bytes(self) -> int:
        """Planned bytes of the serving form; after training ``compact().bytes`` are the bytes taken, never more."""
        return served_bytes(self.all_tables().values(), self.config.served_dtype)
