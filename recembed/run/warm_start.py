"""Warm start: a run takes over what an earlier run learned of the ids that both know.

Rows follow raw ids, not vocabulary ids: a vocabulary that was fitted anew gives every id the row that the earlier run
would have served for it, which for ids it did not know is that of their out-of-vocabulary bucket.
Axes: ``U`` ids, ``P`` slots.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from recembed.config import RunConfig, load_config
from recembed.errors import ConfigError
from recembed.items.table import ContentTable
from recembed.models import CTRModel
from recembed.rows import Piece, RowStore
from recembed.run.build import build_model, embedding_of
from recembed.schema.fitted import FittedSchema
from recembed.schema.vocabulary import FIRST_OOV_ID, Vocabulary
from recembed.tables import Table
from recembed.tables.addresses import addresses_in_memory
from recembed.training import Manifest, find_checkpoint
from recembed.training.checkpoint import first_whole
from recembed.training.manifest import read_manifest
from recembed.training.pieces import processes_of, weight_pieces
from recembed.training.saved_tensors import SavedTensors

__all__ = ["Carried", "warm_start"]

_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Carried:
    """What became of one table.

    Attributes:
        table: Its name.
        kept, new, dropped: Ids that both runs know, that only this one, that only the earlier one knows.
        reason: Why its rows are fresh; empty where they were carried over.
        states: Whether the optimiser rows were carried over too.
    """

    table: str
    kept: int = 0
    new: int = 0
    dropped: int = 0
    reason: str = ""
    states: bool = False

    @property
    def line(self) -> str:
        """What people are told.

        >>> Carried("item", 1200, 34, 5, states=True).line
        'item: kept 1,200 ids, 34 new ones start from out-of-vocabulary, 5 dropped; optimiser rows too'
        """
        if self.reason:
            return f"{self.table}: fresh rows, {self.reason}"
        ids = f"kept {self.kept:,} ids, {self.new:,} new ones start from out-of-vocabulary, {self.dropped:,} dropped"
        return f"{self.table}: {ids}" + ("; optimiser rows too" if self.states else "")


class _NoRows(RowStore):
    """Knows the tables, and holds no row."""

    def _allocate(self, device: torch.device) -> None:
        """Take nothing."""

    def stack(self, width: int) -> Tensor:
        """Return rows without numbers."""
        return torch.empty(self.stack_rows[width], width, device="meta")

    def stack_states(self, width: int) -> dict[str, Tensor]:
        """Return no states."""
        return {}

    def forward(self, addresses: Tensor, width: int, offsets: Tensor | None = None) -> Tensor:
        """Refuse: there is nothing to look up."""
        raise NotImplementedError


class _Earlier:
    """An earlier run: its mapping and model without the rows, which stay in its files until they are asked for."""

    def __init__(self, folder: Path, check: Callable[[Path], tuple[Path, Manifest]]) -> None:
        if not (folder / "config.yaml").is_file():
            raise ConfigError(f"warm_start {folder}: no run there (no config.yaml); name the folder of a finished run")
        place, manifest = check(find_checkpoint(folder / "checkpoint"))
        self.config: RunConfig = load_config(place / "config.yaml")
        self.fitted = FittedSchema.load(place / "fitted")
        self.model = build_model(self.fitted, self.config, make_store=_NoRows)
        self.saved = SavedTensors(manifest.tensor_files(place, "weights"))
        dense = {name: piece for name, piece in weight_pieces(self.model).items() if not piece.values.is_meta}
        self.saved.copy_into(dense)
        last = folder / "checkpoint" / "last"
        self.states = SavedTensors(read_manifest(last).tensor_files(last, "training") if last.is_dir() else ())


@torch.no_grad()
def warm_start(model: CTRModel, fitted: FittedSchema, config: RunConfig, folder: Path) -> list[Carried]:
    """Carry over rows, optimiser rows and dense parameters from the run in ``folder``; return what became of each table.

    Rows and dense parameters are those of its best checkpoint, optimiser rows those of its last. Dense parameters of the
    same name and shape are taken, all others stay fresh; so do tables whose rows belong to no single id. All processes
    that train the model call it.

    Raises:
        ConfigError: there is no run. CheckpointError: its checkpoint is damaged.
    """
    processes = processes_of(model)
    earlier = _Earlier(folder, lambda place: first_whole([place], processes))
    before = dict(earlier.model.named_parameters())
    for name, parameter in model.named_parameters():
        piece = Piece.of(parameter)
        if name in before and before[name].shape == piece.whole:
            parameter.copy_(piece.within(before[name]))
    norms = dict(earlier.model.named_modules())
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and isinstance(norms.get(name), _BatchNorm):
            for buffer, values in norms[name].named_buffers():
                if values.shape == module.get_buffer(buffer).shape:
                    module.get_buffer(buffer).copy_(values)
    return [_carry(name, table, model, fitted, config, earlier) for name, table in _tables(model).items()]


def _tables(model: CTRModel) -> dict[str, Table]:
    return embedding_of(model).all_tables()


def _carry(
    name: str, table: Table, model: CTRModel, fitted: FittedSchema, config: RunConfig, earlier: _Earlier
) -> Carried:
    old = _tables(earlier.model).get(name)
    if old is None:
        return Carried(name, reason="the earlier run has no such table")
    widths, widths_before = ([slot.embedding_dim for slot in one.slots] for one in (table, old))
    if widths != widths_before or table.reads != old.reads:
        return Carried(
            name, reason=f"its rows are {widths} wide, read by {table.reads}; before {widths_before}, {old.reads}"
        )
    vocabulary = name.removesuffix(".linear")
    copies = _copies(table, old, fitted.vocabularies.get(vocabulary), earlier.fitted.vocabularies.get(vocabulary))
    if isinstance(copies, str):
        return Carried(name, reason=copies)
    rule, rule_before = config.embeddings.row_optimizer, earlier.config.embeddings.row_optimizer
    states = tuple(rule.states) if rule.kind == rule_before.kind and earlier.states.shapes else ()
    store = embedding_of(model).store
    for places, places_before in copies:
        for slot, (own, other) in enumerate(zip(places.unbind(1), places_before.unbind(1), strict=True)):
            _copy(store, table.slots[slot].name, own, earlier, old.slots[slot].name, other, states)
    return Carried(name, *_counts(fitted, earlier.fitted, vocabulary), states=bool(states))


def _copy(
    store: RowStore, name: str, places: Tensor, earlier: _Earlier, old: str, places_before: Tensor,
    states: tuple[str, ...],
) -> None:  # fmt: skip
    prefix = "embedding.store."
    store.write_rows(name, earlier.saved.rows(f"{prefix}{old}.weight", places_before), places)
    for state in states:
        values = earlier.states.rows(f"rows/{prefix}{old}.{state}", places_before)
        store.write_rows(name, values, places, state)


def _copies(
    table: Table, old: Table, vocabulary: Vocabulary | None, before: Vocabulary | None
) -> Iterator[tuple[Tensor, Tensor]] | str:
    """Return pairs of places ``[U, P]``, of rows here and of those they are copied from; or why there are none."""
    fused = isinstance(table, ContentTable) and isinstance(old, ContentTable)
    if isinstance(table, ContentTable) and isinstance(old, ContentTable):
        if table.ids is None or old.ids is None:
            return "it has content alone"
        table, old = table.ids, old.ids  # their rows stand first, and are read by ids
    sizes, sizes_before = ([slot.num_embeddings for slot in one.slots] for one in (table, old))
    if table.reads == "keys" and not fused:
        if sizes != sizes_before:
            return f"it hashes into {sizes[0]:,} rows, before into {sizes_before[0]:,}"
        return ((rows, rows) for rows in (_columns(block, len(sizes)) for block in _blocks(sizes[0])))
    if vocabulary is None or before is None:
        return "it has no vocabulary"
    for one, known in ((table, vocabulary), (old, before)):
        if not _own_rows(one, known.num_embeddings):
            return "its rows belong to several ids each"
    blocks = _blocks(vocabulary.num_embeddings)
    return ((addresses_in_memory(table, ids), old.address(_before(ids, vocabulary, before))) for ids in blocks)


def _blocks(count: int) -> Iterator[Tensor]:
    return iter(torch.split(torch.arange(count), _AT_ONCE))


def _columns(rows: Tensor, count: int) -> Tensor:
    return rows.unsqueeze(1).expand(-1, count)


def _own_rows(table: Table, ids: int) -> bool:
    """Say whether every id has a row of its own in every slot."""
    addresses = addresses_in_memory(table, torch.arange(ids))
    return all(len(torch.unique(column)) == ids for column in addresses.unbind(1))


def _before(ids: Tensor, vocabulary: Vocabulary, before: Vocabulary) -> Tensor:
    """Return the ids that the earlier run had for what these ids stand for."""
    own = ids.numpy()
    found = own.copy()  # padding, missing
    bucket = (own >= FIRST_OOV_ID) & (own < vocabulary.first_id)
    found[bucket] = FIRST_OOV_ID + (own[bucket] - FIRST_OOV_ID) % before.oov_buckets
    known = own >= vocabulary.first_id
    found[known] = before.lookup(vocabulary.keys[own[known] - vocabulary.first_id])
    return torch.from_numpy(found)


def _counts(fitted: FittedSchema, earlier: FittedSchema, name: str) -> tuple[int, int, int]:
    own, other = fitted.vocabularies.get(name), earlier.vocabularies.get(name)
    if own is None or other is None:
        return 0, 0, 0
    kept = int(np.count_nonzero(other.lookup(own.keys) >= other.first_id))
    return kept, len(own.keys) - kept, len(other.keys) - kept
