"""``model:`` of a retrieval run: the encoders by the word that names them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny

from recembed.graph import NGCF, InteractionGraph, LightGCN
from recembed.graph.encoder import GraphEncoder
from recembed.items.freedom import Freedom
from recembed.items.layout import ItemVectors
from recembed.items.lirdrec import LIRDRec
from recembed.items.settings import ContentConfig
from recembed.items.vbpr import VBPR
from recembed.settings import parse_kind

__all__ = [
    "ENCODERS",
    "AnyEncoder",
    "Content",
    "ContentEncoderConfig",
    "EncoderConfig",
    "FreedomConfig",
    "LIRDRecConfig",
    "LightGCNConfig",
    "NGCFConfig",
    "VBPRConfig",
]

Content = Mapping[str, ItemVectors]
"""Vectors of each source by item number."""

NO_CONTENT: Content = MappingProxyType({})

_AtLeastOne = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EncoderConfig(_Section, ABC):
    """Settings of what turns the graph into vectors.

    Attributes:
        embedding_dim: Width of the vectors that are propagated.
    """

    kind: str
    embedding_dim: Annotated[int, Field(ge=1)] = 64

    @abstractmethod
    def build(self, graph: InteractionGraph, seed: int, content: Content = NO_CONTENT) -> GraphEncoder:
        """Build it with fresh vectors; ``content`` holds the vectors of each source by item number."""


class LightGCNConfig(EncoderConfig):
    """LightGCN; see ``recembed.graph.LightGCN``."""

    kind: Literal["lightgcn"] = "lightgcn"
    layers: Annotated[int, Field(ge=0)] = 3
    edge_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def build(self, graph: InteractionGraph, seed: int, content: Content = NO_CONTENT) -> GraphEncoder:
        """Build it with fresh vectors."""
        return LightGCN(graph, self.embedding_dim, self.layers, edge_dropout=self.edge_dropout, seed=seed)


class NGCFConfig(EncoderConfig):
    """NGCF; see ``recembed.graph.NGCF``."""

    kind: Literal["ngcf"] = "ngcf"
    layers: tuple[Annotated[int, Field(ge=1)], ...] = (64, 64, 64)
    form: Literal["paper", "code"] = "paper"
    adjacency: Literal["row_loops", "row"] = "row_loops"
    message_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    node_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    normalise: bool = True

    def build(self, graph: InteractionGraph, seed: int, content: Content = NO_CONTENT) -> GraphEncoder:
        """Build it with fresh vectors."""
        return NGCF(graph, seed=seed, **self.model_dump(exclude={"kind"}))


class ContentEncoderConfig(EncoderConfig):
    """Settings of an encoder that reads what is known of items.

    Attributes:
        items: Text, images and vectors, as everywhere. Paths that are not there are looked up in the data set's folder,
            and ids go by the name of the item's column where none is given.
        new_items: Rank also the items that have content and no interaction.
        missing: An item with interactions and without a vector of some source reads a ``stand_in`` that is learned, and
            is counted; ``stop`` makes it an error.
    """

    items: ContentConfig
    new_items: bool = False
    missing: Literal["stand_in", "stop"] = "stand_in"

    def settings(self) -> dict[str, Any]:
        """Return what the encoder itself is told."""
        return self.model_dump(exclude={"kind", "items", "new_items", "missing"})


class VBPRConfig(ContentEncoderConfig):
    """VBPR; see ``recembed.items.vbpr``. Users and items have two parts of ``embedding_dim``."""

    kind: Literal["vbpr"] = "vbpr"

    def build(self, graph: InteractionGraph, seed: int, content: Content = NO_CONTENT) -> GraphEncoder:
        """Build it with fresh vectors."""
        return VBPR(graph, content, seed=seed, **self.settings())


class FreedomConfig(ContentEncoderConfig):
    """FREEDOM; see ``recembed.items.freedom``."""

    kind: Literal["freedom"] = "freedom"
    layers: _AtLeastOne = 2
    item_layers: _AtLeastOne = 1
    neighbours: _AtLeastOne = 10
    weights: dict[str, Annotated[float, Field(ge=0)]] | None = None
    edge_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.8
    content_weight: Annotated[float, Field(ge=0)] = 1e-3

    def build(self, graph: InteractionGraph, seed: int, content: Content = NO_CONTENT) -> GraphEncoder:
        """Build it with fresh vectors."""
        return Freedom(graph, content, seed=seed, **self.settings())


class LIRDRecConfig(ContentEncoderConfig):
    """LIRDRec; see ``recembed.items.lirdrec``. ``embedding_dim`` is the width of a stream."""

    kind: Literal["lirdrec"] = "lirdrec"
    hidden: _AtLeastOne = 256
    layers: _AtLeastOne = 2
    neighbours: _AtLeastOne = 10
    weights: dict[str, Annotated[float, Field(ge=0)]] | None = None
    scorer_weight: Annotated[float, Field(ge=0, le=1)] = 0.9

    def build(self, graph: InteractionGraph, seed: int, content: Content = NO_CONTENT) -> GraphEncoder:
        """Build it with fresh vectors."""
        return LIRDRec(graph, content, seed=seed, **self.settings())


ENCODERS: dict[str, type[EncoderConfig]] = {
    "lightgcn": LightGCNConfig,
    "ngcf": NGCFConfig,
    "vbpr": VBPRConfig,
    "freedom": FreedomConfig,
    "lirdrec": LIRDRecConfig,
}
"""Encoders by the word that names them."""


def _parse_encoder(raw: Any) -> EncoderConfig:
    return parse_kind(raw, ENCODERS, "model kind")


AnyEncoder = Annotated[SerializeAsAny[EncoderConfig], BeforeValidator(_parse_encoder)]
"""One word, or a mapping with ``kind``."""
