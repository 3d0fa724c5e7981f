"""Embedding methods: ids → row addresses → vectors, one file each."""

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from recembed.settings import parse_kind
from recembed.tables.adaptive import AdaptiveConfig, AdaptiveTable
from recembed.tables.alpt import AlptConfig, AlptTable
from recembed.tables.autodim import AutoDimConfig, AutoDimTable
from recembed.tables.autosrh import AutoSrhConfig, AutoSrhTable
from recembed.tables.base import Table, TableConfig, Together
from recembed.tables.cafe import CafeConfig, CafeTable
from recembed.tables.compositional import CompositionalConfig, CompositionalTable
from recembed.tables.dedup import DedupConfig, DedupTable
from recembed.tables.deep_hash import DeepHashConfig, DeepHashTable
from recembed.tables.deeplight import DeepLightConfig, DeepLightTable
from recembed.tables.full import FullConfig, FullTable
from recembed.tables.graph_nodes import LightGCNConfig, NGCFConfig
from recembed.tables.graph_table import GraphTable
from recembed.tables.hashed import HashedConfig, HashedTable
from recembed.tables.integer import Int8Config, Int16Config, IntegerTable
from recembed.tables.matryoshka import MatryoshkaConfig, MatryoshkaTable
from recembed.tables.mixed_dimension import MixedDimensionConfig, MixedDimensionTable
from recembed.tables.multiplexed import MultiplexedConfig
from recembed.tables.optembed import OptEmbedConfig, OptEmbedTable
from recembed.tables.pep import PepConfig, PepTable
from recembed.tables.product_quantized import ProductQuantizedConfig, ProductQuantizedTable
from recembed.tables.robe import RobeConfig, RobeTable
from recembed.tables.served import ServedTable
from recembed.tables.side_by_side import SideBySide
from recembed.tables.spec import TableSpec
from recembed.tables.tensor_train import TensorTrainConfig, TensorTrainTable
from recembed.tables.zero_collision import ZeroCollisionConfig, ZeroCollisionTable

__all__ = [
    "MatryoshkaTable",
    "MatryoshkaConfig",
    "AutoSrhTable",
    "AutoSrhConfig",
    "AutoDimTable",
    "AutoDimConfig",
    "TABLES",
    "AdaptiveConfig",
    "AdaptiveTable",
    "AlptConfig",
    "AlptTable",
    "AnyTableConfig",
    "CafeConfig",
    "CafeTable",
    "CompositionalConfig",
    "CompositionalTable",
    "DedupConfig",
    "DedupTable",
    "DeepHashConfig",
    "DeepHashTable",
    "DeepLightConfig",
    "DeepLightTable",
    "FullConfig",
    "FullTable",
    "GraphTable",
    "HashedConfig",
    "HashedTable",
    "Int16Config",
    "Int8Config",
    "IntegerTable",
    "LightGCNConfig",
    "MixedDimensionConfig",
    "MixedDimensionTable",
    "MultiplexedConfig",
    "NGCFConfig",
    "OptEmbedConfig",
    "OptEmbedTable",
    "PepConfig",
    "PepTable",
    "ProductQuantizedConfig",
    "ProductQuantizedTable",
    "RobeConfig",
    "RobeTable",
    "ServedTable",
    "SideBySide",
    "Table",
    "TableConfig",
    "TableSpec",
    "TensorTrainConfig",
    "TensorTrainTable",
    "Together",
    "parse_table",
    "ZeroCollisionConfig",
    "ZeroCollisionTable",
]

TABLES: dict[str, type[TableConfig]] = {
    str(config.model_fields["kind"].default): config
    for config in (
        FullConfig,
        HashedConfig,
        MultiplexedConfig,
        CompositionalConfig,
        MixedDimensionConfig,
        TensorTrainConfig,
        RobeConfig,
        AdaptiveConfig,
        CafeConfig,
        ZeroCollisionConfig,
        DedupConfig,
        DeepHashConfig,
        LightGCNConfig,
        NGCFConfig,
        OptEmbedConfig,
        PepConfig,
        DeepLightConfig,
        AutoDimConfig,
        AutoSrhConfig,
        MatryoshkaConfig,
        Int8Config,
        Int16Config,
        AlptConfig,
        ProductQuantizedConfig,
    )
}


def parse_table(raw: Any) -> TableConfig:
    """Turn one word, or a mapping with ``kind``, into the settings of that method.

    Raises:
        ConfigError: unknown kind or key, or a value out of range.

    >>> parse_table({"kind": "hashed", "num_embeddings": 100}).kind, parse_table("full").kind
    ('hashed', 'full')
    """
    return parse_kind(raw, TABLES, "table kind")


AnyTableConfig = Annotated[SerializeAsAny[TableConfig], BeforeValidator(parse_table)]
