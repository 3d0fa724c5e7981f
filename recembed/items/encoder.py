"""``encoder:`` of a feature in a training config: item content, fused with the id, as a table of the model."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
from pydantic import BeforeValidator, Field, model_validator

from recembed.errors import ConfigError, DataError, did_you_mean
from recembed.items.encode import EncodedItems, encode_items
from recembed.items.fusion import FUSIONS, Fuse
from recembed.items.settings import ContentConfig
from recembed.items.streams import AttributeStream, Stream, Tuning, VectorStream, check_widths
from recembed.items.table import ContentTable, Items
from recembed.rows import Init
from recembed.schema.vocabulary import Vocabulary
from recembed.tables import Table, TableSpec

__all__ = ["EncoderConfig"]

_log = logging.getLogger("recembed.items")
_KEPT = 4
_encoded: dict[str, EncodedItems] = {}


def _tune(raw: object) -> object:
    return {"": raw} if isinstance(raw, str) else raw


class EncoderConfig(ContentConfig):
    """Item content as the encoder of a feature.

    Attributes:
        fuse: ``sum``, ``concat`` (through a network), ``gated`` (weights per dimension) or ``attention`` (weights per source).
        with_id: Fuse the id's own vector too, by the feature's ``table``.
        id_dropout: Share of known ids that training sees without their id part.
        modality_dropout: Share of each source that training leaves out.
        tune: What is learned of vectors, for all sources or by source: ``frozen`` (nothing), ``projected`` (a matrix),
            ``fine_tuned`` (also an offset per item).
        hidden: Width of the hidden layer of ``concat``; by default four times the vectors' width.

    >>> config = EncoderConfig(content="items.csv", id="item", text="title", tune="fine_tuned")
    >>> config.fuse, config.tuning_of("text")
    ('gated', 'fine_tuned')
    """

    fuse: Fuse = "gated"
    with_id: bool = True
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    tune: Annotated[dict[str, Tuning], BeforeValidator(_tune)] = Field(default_factory=dict)
    hidden: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _check_tune(self) -> "EncoderConfig":
        sources = [name for name in ("text", "image") if getattr(self, name)] + list(self.vectors)
        for name in self.tune:
            if name and name not in sources:
                raise ValueError(f"tune.{name}: no vectors of this name" + did_you_mean(name, sources))
        return self

    def tuning_of(self, source: str) -> Tuning:
        """Return what is learned of a source."""
        return self.tune.get(source, self.tune.get("", "projected"))

    def over(self, content: str | tuple[str, ...], id_column: str) -> "EncoderConfig":
        """Return these settings with a file of content and its ids, where none are named."""
        update: dict[str, object] = {"id": id_column} if self.id is None else {}
        if self.columns and self.content is None:
            update["content"] = content
        return self.model_copy(update=update)

    def build(self, spec: TableSpec, vocabulary: Vocabulary | None, ids: Table, seed: int) -> Table:
        """Build the table of a feature; first-order weights are the sum of an id's weight and a linear reading of content.

        Content is encoded now, unless the cache has it.

        Args:
            spec: The feature, or its first-order weights.
            vocabulary: Its ids.
            ids: The table of its ids.
            seed: Fresh weights depend on it.

        Raises:
            ConfigError: the feature has no vocabulary, or settings do not fit. DataError: content cannot be used.
        """
        if vocabulary is None:
            raise ConfigError(f"feature {spec.name!r} has an encoder and no vocabulary; set vocabulary: true")
        items = _items_of(self if self.id else self.model_copy(update={"id": spec.name}))
        _check_ids(spec, vocabulary, items)
        std = _std(spec.init)
        streams = self._streams(spec, items, std, seed)
        fuse: Fuse = "sum" if spec.linear else self.fuse
        widths = [spec.embedding_dim, *(stream.embedding_dim for stream in streams.values())]
        if fuse != "concat":
            check_widths(streams, spec.embedding_dim, fuse)
        fusion = FUSIONS[fuse](
            spec.table_name(),
            widths,
            spec.embedding_dim,
            hidden=self.hidden or 4 * spec.embedding_dim,
            std=std or 1.0,
            seed=seed,
        )
        table = ContentTable(
            vocabulary,
            Items(items.ids, items.keys),
            streams,
            fusion,
            ids if self.with_id else None,
            id_dropout=self.id_dropout,
            modality_dropout=self.modality_dropout,
            name=spec.table_name(),
            seed=seed,
        )
        table.served_dtype = spec.served_dtype
        return table

    def _streams(self, spec: TableSpec, items: EncodedItems, std: float, seed: int) -> dict[str, Stream]:
        streams: dict[str, Stream] = {}
        name, width = spec.table_name(), spec.embedding_dim
        for source, found in items.vectors.items():
            tuning: Tuning = "projected" if spec.linear else self.tuning_of(source)
            streams[source] = VectorStream(f"{name}.{source}", found, width, tuning=tuning, std=std, seed=seed)
        if items.attributes is not None:
            streams["attributes"] = AttributeStream(f"{name}.attributes", items.attributes, width, std=std, seed=seed)
        return streams


def _std(init: Init) -> float:
    return init.scale / 3**0.5 if init.law == "uniform" else init.scale


def _items_of(config: ContentConfig) -> EncodedItems:
    """Return the encoded items of a config; a model asks several times while it is built."""
    fields = set(ContentConfig.model_fields)
    own = ContentConfig.model_validate(config.model_dump(include=fields))
    key = own.model_dump_json() + repr(_files(own))
    if key not in _encoded:
        while len(_encoded) >= _KEPT:
            _encoded.pop(next(iter(_encoded)))
        _encoded[key] = encode_items(own)
    return _encoded[key]


def _files(config: ContentConfig) -> Mapping[str, tuple[int, int]]:
    """Return size and time of the files that a config names."""
    content = (config.content,) if isinstance(config.content, str) else config.content or ()
    paths = [*map(Path, content), *(one.path for one in config.vectors.values())]
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in paths if p.is_file()}


def _check_ids(spec: TableSpec, vocabulary: Vocabulary, items: EncodedItems) -> None:
    """Say how far ids and content fit.

    Raises:
        DataError: ids are of another type than the content's, or not one is known.
    """
    if (vocabulary.values.dtype == pl.String) != (items.ids.dtype == pl.String):
        raise DataError(
            f"feature {spec.name!r}: its ids are {vocabulary.values.dtype}, those of the content {items.ids.dtype}; "
            "write them in one type"
        )
    met = int(np.isin(vocabulary.keys, items.keys).sum())
    if not met and len(vocabulary.keys):
        raise DataError(
            f"feature {spec.name!r}: not one of its {len(vocabulary.keys):,} ids is among the {len(items.keys):,} ids of "
            f"the content (such as {vocabulary.values[0]!r} and {items.ids[0]!r}); is id the right column?"
        )
    if not spec.linear:
        _log.info(
            "%s: %d ids without content, %d items of the content not seen in training",
            spec.name,
            len(vocabulary.keys) - met,
            len(items.keys) - met,
        )
