"""Item content → vectors by raw id: read, encoded where it changed, mapped from the cache.

Axes: ``N`` items, ``D`` width.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from recembed.data.datasets import cache_folder
from recembed.errors import DataError
from recembed.items.attributes import AttributeCodes, code_attributes
from recembed.items.batches import BatchEncoder, progress_bar
from recembed.items.cache import VectorCache
from recembed.items.catalogue import Catalogue, read_catalogue
from recembed.items.contents import Contents, images, texts
from recembed.items.faults import Faults
from recembed.items.given import read_vectors
from recembed.items.layout import ItemVectors, attributes_onto, laid_out, vectors_onto
from recembed.items.settings import ContentConfig
from recembed.items.towers import TowerMaker

__all__ = ["EncodedItems", "ItemVectors", "encode_items", "make_towers"]

_log = logging.getLogger("recembed.items")
_KEEP_EVERY = 2048


@dataclass(frozen=True, eq=False)
class EncodedItems:
    """All that is known of items.

    Attributes:
        ids: Raw ids, Int64 or String, ``N`` of them, in the order of their keys.
        keys: int64 ``[N]``, ascending.
        vectors: By source: ``text``, ``image``, and given ones by their names.
        attributes: Codes of attributes, or None.
        faults: What was wrong.
        encoded: Items that were encoded now, by source; the others came from the cache.
    """

    ids: pl.Series
    keys: np.ndarray
    vectors: Mapping[str, ItemVectors]
    attributes: AttributeCodes | None
    faults: Faults
    encoded: Mapping[str, int] = field(default_factory=dict)

    def to_frame(self, id_column: str) -> pl.DataFrame:
        """Return the vectors as a frame: the raw id and a column of vectors per source, null where there is none."""
        columns = [self.ids.alias(id_column)]
        for name, found in self.vectors.items():
            array = pl.Series(name, np.asarray(found.matrix), dtype=pl.Array(pl.Float32, found.matrix.shape[1]))
            columns.append(array.set(pl.Series(~found.present), None) if not found.present.all() else array)
        return pl.DataFrame(columns)


def make_towers(config: ContentConfig) -> dict[str, TowerMaker]:
    """Return the makers of the encoders that a config names."""
    from recembed.items.image_tower import ImageTowerMaker
    from recembed.items.text_tower import TextTowerMaker

    makers: dict[str, TowerMaker] = {}
    if config.text:
        makers["text"] = TextTowerMaker(config.text, device=config.device, precision=config.precision)
    if config.image:
        makers["image"] = ImageTowerMaker(config.image, device=config.device, precision=config.precision)
    return makers


def encode_items(
    config: ContentConfig, *, towers: Mapping[str, TowerMaker] | None = None, progress: bool | None = None
) -> EncodedItems:
    """Read items and give each source's vectors; only content that the cache does not know is encoded.

    Args:
        config: What to read, and how.
        towers: Makers of encoders by source, in place of those that ``config`` names.
        progress: Show progress bars; None shows them on a terminal only.

    Raises:
        ConfigError, MissingPackageError: a model or package is not there; the message holds the line that gets it.
        DataError: nothing can be read, or something is broken and ``on_error`` is ``stop``.
    """
    faults = Faults(config.on_error)
    catalogue = read_catalogue(config, faults)
    given = {name: read_vectors(name, one, faults, config.id) for name, one in config.vectors.items()}
    series = [catalogue.ids] if catalogue else []
    series += [one.ids for one in given.values()]
    if len({ids.dtype for ids in series}) > 1:
        raise DataError("ids are integers in one file and text in another; write them in one type")
    whole = _whole(series, [*([catalogue.keys] if catalogue else []), *(one.keys for one in given.values())])
    root = config.cache or cache_folder() / "content"
    vectors: dict[str, ItemVectors] = {}
    encoded: dict[str, int] = {}
    attributes = None
    if catalogue:
        towers = towers if towers is not None else make_towers(config)
        for contents in _contents(config, catalogue, faults):
            maker = towers[contents.source]
            found, encoded[contents.source] = _encoded(contents, maker, root, config.batch_size, faults, progress)
            vectors[contents.source] = vectors_onto(found, catalogue.keys, whole[1])
        if config.attributes:
            attributes = code_attributes(catalogue.frame, catalogue.ids, config.attributes, faults)
            attributes = attributes_onto(attributes, catalogue.keys, whole[1])
    for name, one in given.items():
        cache = VectorCache(root, {"kind": "given", "name": name, "width": one.vectors.shape[1]})
        vectors[name] = laid_out(one.keys, one.vectors, one.rows, whole[1], cache)
        absent = whole[0].filter(pl.Series(~vectors[name].present)).to_list()
        faults.lacking(name, "ids without a vector", absent)
    for line in faults.lines():
        _log.warning("%s", line)
    return EncodedItems(whole[0], whole[1], vectors, attributes, faults, encoded)


def _whole(series: list[pl.Series], keys: list[np.ndarray]) -> tuple[pl.Series, np.ndarray]:
    """Return all ids and keys, in the order of the keys."""
    if len(keys) == 1:
        return series[0], keys[0]
    together, places = np.unique(np.concatenate(keys), return_index=True)
    return pl.concat([ids.alias("id") for ids in series]).gather(places), together


def _contents(config: ContentConfig, catalogue: Catalogue, faults: Faults) -> list[Contents]:
    found = []
    if config.text:
        found.append(texts(catalogue, config.text, faults))
    if config.image:
        assert config.content is not None  # the catalogue was read from it
        found.append(images(catalogue, config.image, config.content, faults))
    return found


def _encoded(
    contents: Contents, maker: TowerMaker, root: Path, batch_size: int, faults: Faults, progress: bool | None
) -> tuple[ItemVectors, int]:
    """Return the vectors of all contents, and how many were made now."""
    cache = VectorCache(root, maker.record)
    new = 0
    if not cache.path_of_view(contents.digests, contents.present).is_file():
        wanted = np.flatnonzero(contents.present & ~cache.find(contents.digests))
        _, first = np.unique(contents.digests[wanted], axis=0, return_index=True)
        wanted = wanted[np.sort(first)]  # equal content is encoded once
        if wanted.size:
            new = _encode_into(cache, contents, wanted, maker, batch_size, faults, progress)
    matrix, present = cache.view(contents.digests, contents.present)
    if contents.present.any() and not present.any():
        raise DataError(f"{contents.source}: not one item could be encoded: {'; '.join(faults.lines())}")
    return ItemVectors(matrix, present, cache.name, cache.encoder), new


def _encode_into(
    cache: VectorCache,
    contents: Contents,
    wanted: np.ndarray,
    maker: TowerMaker,
    batch_size: int,
    faults: Faults,
    progress: bool | None,
) -> int:
    wanted = wanted[maker.order([contents.sizes[place] for place in wanted])]
    runner = BatchEncoder(maker.load(), contents.source, batch_size=batch_size, faults=faults)
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    done = 0

    def keep() -> None:
        if waiting:
            places = wanted[np.concatenate([own for own, _ in waiting])]
            cache.add(contents.digests[places], np.concatenate([vectors for _, vectors in waiting]))
            waiting.clear()

    def item(place: int) -> object:
        try:
            return contents.read(wanted[place])
        except OSError as error:
            raise DataError("the file is not there") from error

    with progress_bar(progress) as bar:
        task = bar.add_task(f"encoding {contents.source}", total=len(wanted))
        try:
            for places, vectors in runner.encode(len(wanted), item, lambda place: contents.ids[int(wanted[place])]):
                waiting.append((places, vectors))
                done += len(places)
                bar.update(task, advance=len(places))
                if sum(len(own) for own, _ in waiting) >= _KEEP_EVERY:
                    keep()
        finally:  # what was encoded stays, whatever stopped the rest
            keep()
    return done
