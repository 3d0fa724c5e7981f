"""``ContentTable``: an item's vector from what is known of it and from its id, as any other table gives one.

The table reads raw keys, so an item that training never saw still finds its content. Its id part is any method over the
vocabulary's ids; an id that is unknown, or dropped, has no id part, and the vector is that of the content alone. Where
there is no content either, the row of missing or out-of-vocabulary ids stands in.
Axes: ``*S`` any shape of keys, ``N`` items with content, ``M`` streams, ``P`` slots, ``D`` width.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from recembed.items.fusion import Fusion
from recembed.items.served import ORIGINS, ServedItems
from recembed.items.streams import Stream
from recembed.rows import RowStore, ServedDtype
from recembed.rows.processes import Processes
from recembed.schema.vocabulary import Vocabulary, lookup_ids
from recembed.tables import Table
from recembed.tables.held_rows import held_bytes
from recembed.tables.parameters import uniform_parameter

__all__ = ["ContentTable", "Items"]

_CHUNK = 1 << 14


class Items:
    """The items that have content: raw ids in the order of their keys.

    Args:
        ids: Raw ids, ``N`` of them.
        keys: int64 ``[N]``, ascending.
    """

    def __init__(self, ids: pl.Series, keys: np.ndarray) -> None:
        self.ids, self.keys = ids, keys


class ContentTable(Table):
    """Content and id, fused.

    Args:
        vocabulary: The ids that training knows.
        items: The items that have content.
        streams: What is known of them, by source.
        fusion: Its first stream is the id.
        ids: The id part, a table that is handed the vocabulary's ids; None leaves ids out.
        id_dropout: Share of known ids whose id part is left out in training, so that content learns to stand alone.
        modality_dropout: Share of each source's vectors left out in training.
        name: Of the feature; fresh weights depend on it.
        seed: Fresh weights depend on it.

    Shapes:
        keys: int64 ``[*S]``; vectors: float32 ``[*S, D]``.
    """

    reads: Literal["ids", "keys"] = "keys"
    served_dtype: ServedDtype = "float32"

    def __init__(
        self,
        vocabulary: Vocabulary,
        items: Items,
        streams: Mapping[str, Stream],
        fusion: Fusion,
        ids: Table | None,
        *,
        id_dropout: float,
        modality_dropout: float,
        name: str,
        seed: int,
    ) -> None:
        own = ids.slots if ids is not None else ()
        super().__init__([*own, *(slot for stream in streams.values() for slot in stream.slots)], fusion.embedding_dim)
        self.name, self.vocabulary, self.items = name, vocabulary, items
        self.names = tuple(streams)
        self.streams = nn.ModuleList(streams.values())
        self.fusion, self.ids = fusion, ids
        self.id_dropout, self.modality_dropout = id_dropout, modality_dropout
        self.moves_rows, self.exact_rows = (ids.moves_rows, ids.exact_rows) if ids is not None else (False, "")
        if ids is None:
            self.unknown = uniform_parameter((fusion.embedding_dim,), 0.0, name, "unknown", seed)
        sorted_keys, sorted_ids = vocabulary.tensors()
        familiarity = np.log1p(vocabulary.row_counts()) / 5
        familiarity[: vocabulary.first_id] = 0
        for key, values in (
            ("sorted_keys", sorted_keys.clone()),
            ("sorted_ids", sorted_ids.clone()),
            ("item_keys", torch.from_numpy(items.keys.copy())),
            ("familiarity", torch.from_numpy(familiarity.astype(np.float32))),
        ):
            self.register_buffer(key, values, persistent=False)  # of the mapping and the content, not of training
        self._gradients: dict[str, Tensor] = {}

    def ids_of(self, keys: Tensor) -> Tensor:
        """Return the vocabulary's ids of keys, int64 ``[*S]``."""
        tensors = self.get_buffer("sorted_keys"), self.get_buffer("sorted_ids")
        return lookup_ids(keys, *tensors, self.vocabulary.oov_buckets)

    def items_of(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Return the place of each key among the items, int64 ``[*S]`` (0 where it is none), and whether it is one."""
        sorted_keys = self.get_buffer("item_keys")
        place = torch.searchsorted(sorted_keys, keys).clamp(max=sorted_keys.shape[0] - 1)
        found = sorted_keys[place] == keys
        return torch.where(found, place, 0), found

    def address(self, ids: Tensor) -> Tensor:
        """Return the rows of the id part, and those of fine-tuned content, int64 ``[*S, P]``, for keys ``[*S]``."""
        return self._address(self.ids_of(ids), *self.items_of(ids))

    def _address(self, ids: Tensor, items: Tensor, found: Tensor) -> Tensor:
        parts = [self.ids.address(ids)] if self.ids is not None else [ids.unsqueeze(-1)[..., :0]]
        tuned = torch.where(found, items + 1, 0).unsqueeze(-1)
        return torch.cat(parts + [tuned for stream in self._streams for _ in stream.slots], dim=-1)

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the fused vectors of keys ``[*S]``."""
        return self._decode(rows, self.ids_of(ids), *self.items_of(ids))

    def _decode(self, rows: Sequence[Tensor], ids: Tensor, items: Tensor, found: Tensor) -> Tensor:
        own = len(self.ids.slots) if self.ids is not None else 0
        first = self.ids.decode(rows[:own], ids) if self.ids is not None else self.unknown.expand(*ids.shape, -1)
        vectors, masks = [first], []
        for stream in self._streams:
            vectors.append(stream(items, rows[own : own + len(stream.slots)]))
            own += len(stream.slots)
            masks.append(found & stream.known[items])
        known = ids >= self.vocabulary.first_id if self.ids is not None else torch.zeros_like(found)
        if self.training:
            known = known & (torch.rand(known.shape, device=known.device) >= self.id_dropout)
            if self.modality_dropout:
                masks = [m & (torch.rand(m.shape, device=m.device) >= self.modality_dropout) for m in masks]
            self._watch(vectors)
        mask = torch.stack(masks, dim=-1)  # [*S, M - 1]
        mask = torch.cat(
            [(known | ~mask.any(-1)).unsqueeze(-1), mask], dim=-1
        )  # the id stands in where nothing is known
        familiarity = torch.where(known, self.get_buffer("familiarity")[ids], 0.0).unsqueeze(-1)
        fused: Tensor = self.fusion(vectors, mask, familiarity)
        return fused

    def _watch(self, vectors: Sequence[Tensor]) -> None:
        """Note how large the gradient of each stream is."""
        for name, vector in zip(("id", *self.names), vectors, strict=True):
            if vector.requires_grad:
                vector.register_hook(partial(self._note, name))  # type: ignore[no-untyped-call]

    def _note(self, name: str, gradient: Tensor) -> None:
        square = gradient.detach().square().sum()
        self._gradients[name] = self._gradients[name] + square if name in self._gradients else square

    def gradient_norms(self) -> dict[str, float]:
        """Return the norm of all gradients since the last call, by table and stream (``item/id``, ``item/text``)."""
        found = {f"{self.name}/{name}": float(square) ** 0.5 for name, square in self._gradients.items()}
        self._gradients = {}
        return found

    def provenance(self, keys: Tensor) -> list[str]:
        """Return where the vector of each key ``[N]`` comes from.

        ``trained``: it has a row that training moved; ``content``: from content alone; ``out_of_vocabulary``: neither.
        """
        return [ORIGINS[origin] for origin in self._origins(keys).tolist()]

    def _origins(self, keys: Tensor) -> Tensor:
        items, found = self.items_of(keys)
        known = torch.stack([found & stream.known[items] for stream in self._streams]).any(0)
        trained = (self.ids_of(keys) >= self.vocabulary.first_id) & (self.ids is not None)
        return torch.where(trained, 0, torch.where(known, 1, 2))

    @property
    def _streams(self) -> list[Stream]:
        return [stream for stream in self.streams if isinstance(stream, Stream)]

    def before_lookup(self, store: RowStore, ids: Tensor) -> None:
        """Let the id part move its rows."""
        if self.ids is not None:
            self.ids.before_lookup(store, self.ids_of(ids))

    def join(self, processes: Processes) -> None:
        """Train together with these processes from now on."""
        super().join(processes)
        if self.ids is not None:
            self.ids.join(processes)

    def take_losses(self) -> list[Tensor]:
        """Return the losses of the id part."""
        return super().take_losses() + (self.ids.take_losses() if self.ids is not None else [])

    def search_parameters(self) -> list[nn.Parameter]:
        """Return those of the id part."""
        return self.ids.search_parameters() if self.ids is not None else []

    def settle(self, store: RowStore) -> dict[str, float]:
        """Settle the id part."""
        return self.ids.settle(store) if self.ids is not None else {}

    @property
    def served_rows(self) -> dict[str, int]:
        """No rows: vectors are served fused."""
        return {}

    @property
    def served_overhead_bytes(self) -> int:
        """Bytes of the fused vectors of all items, of reserved ids, and of the map of their keys."""
        every = len(self._every_key())
        return held_bytes(self.vocabulary.first_id + every, self.embedding_dim, self.served_dtype) + 12 * every

    def _every_key(self) -> np.ndarray:
        return np.union1d(self.vocabulary.keys, self.items.keys)

    def compact(self, store: RowStore) -> Table:
        """Return the fused vectors of all items with an id or content, by key."""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        device = self.get_buffer("item_keys").device
        reserved = torch.arange(self.vocabulary.first_id, device=device)
        nothing = torch.zeros_like(reserved)
        keys = torch.from_numpy(self._every_key()).to(device)
        with torch.no_grad():
            vectors = [self._vectors(store, reserved, nothing, nothing.bool())]
            for part in torch.split(keys, _CHUNK):
                vectors.append(self._vectors(store, self.ids_of(part), *self.items_of(part)))
        for module, mode in modes:
            module.training = mode
        return ServedItems(
            torch.cat(vectors),
            keys,
            first=self.vocabulary.first_id,
            oov_buckets=self.vocabulary.oov_buckets,
            origins=self._origins(keys),
            items=self.items,
            dtype=self.served_dtype,
        )

    def _vectors(self, store: RowStore, ids: Tensor, items: Tensor, found: Tensor) -> Tensor:
        addresses = self._address(ids, items, found)
        rows = [store.rows(slot.name)[addresses[:, place]] for place, slot in enumerate(self.slots)]
        return self._decode(rows, ids, items, found)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out gradients that were watched."""
        return self.__dict__ | {"_gradients": {}}
