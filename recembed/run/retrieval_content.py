"""What is known of the items of a retrieval run: read once, and laid out by item number."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from recembed.data.datasets import load_dataset
from recembed.errors import DataError
from recembed.graph import InteractionGraph
from recembed.graph.raw_ids import distinct_ids, places_of
from recembed.items import ContentConfig, EncodedItems, encode_items
from recembed.items.layout import ItemVectors
from recembed.run.retrieval_models import ContentEncoderConfig

__all__ = ["GraphContent"]

_log = logging.getLogger("recembed.run")


@dataclass(frozen=True)
class GraphContent:
    """Content of items by raw id, for a graph.

    Attributes:
        config: The model that reads it.
        encoded: All items that have content.
    """

    config: ContentEncoderConfig
    encoded: EncodedItems

    @classmethod
    def read(cls, config: ContentEncoderConfig, dataset: str | None, item: str) -> "GraphContent":
        """Read and encode it; what the cache knows is not encoded again.

        Args:
            config: The model.
            dataset: Name of the data set in whose folder files are looked up too.
            item: Column of the items' ids.

        Raises:
            DataError: content cannot be used.
        """
        items = config.items
        if items.id is None:
            items = items.model_copy(update={"id": item})
        if dataset is not None:
            items = _in_folder(items, load_dataset(dataset).folder)
        return cls(config, encode_items(items))

    def item_ids(self, met: pl.Series) -> pl.Series:
        """Return the items of the graph: those that were met, and the new ones where the model wants them.

        Raises:
            DataError: ids of another type than the met ones.
        """
        ids = self.encoded.ids
        if met.dtype.is_integer() != ids.dtype.is_integer():
            raise DataError(
                f"items are {met.dtype} in the interactions and {ids.dtype} in the content; write their ids in one type"
            )
        return distinct_ids(pl.concat([met, ids.alias(met.name)])) if self.config.new_items else met

    def of(self, graph: InteractionGraph) -> dict[str, ItemVectors]:
        """Return the vectors of each source by item number.

        Raises:
            DataError: a source knows none of the items, or, where the model says ``missing: stop``, not all.
        """
        places = places_of(graph.item_ids, self.encoded.ids)
        found = {}
        for name, whole in self.encoded.vectors.items():
            present = (places >= 0) & whole.present[places]
            self._tell(name, graph.item_ids.filter(pl.Series(~present)), len(present))
            found[name] = replace(whole, matrix=np.ascontiguousarray(whole.matrix[places]), present=present)
        return found

    def _tell(self, name: str, without: pl.Series, count: int) -> None:
        if len(without) == count:
            raise DataError(
                f"{name}: not one of the {count:,} items has a vector (items such as {without[0]!r}, content of "
                f"{self.encoded.ids[0]!r}); is items.id the right column?"
            )
        if len(without) and self.config.missing == "stop":
            raise DataError(
                f"{name}: {len(without):,} of {count:,} items have no vector, the first is {without[0]!r}; give them one, "
                "or set missing: stand_in"
            )
        if len(without):
            _log.warning("%s: %d of %d items have no vector and read a stand-in", name, len(without), count)


def _in_folder(items: ContentConfig, folder: Path) -> ContentConfig:
    """Return settings whose files, where they are not there, are those of ``folder``."""

    def found(path: Path) -> Path:
        return path if path.exists() or not (folder / path).exists() else folder / path

    vectors = {
        name: one.model_copy(update={"path": found(one.path), "ids": one.ids and found(one.ids)})
        for name, one in items.vectors.items()
    }
    content = str(found(Path(items.content))) if isinstance(items.content, str) else items.content
    return items.model_copy(update={"vectors": vectors, "content": content})
