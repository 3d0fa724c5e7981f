"""Schema + tables: ``Batch`` → vectors."""

from recembed.embedding.config import EmbeddingConfig, FeatureOptions
from recembed.embedding.lookup import table_vectors
from recembed.embedding.module import FeatureEmbedding
from recembed.embedding.plan import embedding_plan, plan_lines
from recembed.embedding.tables import build_tables

__all__ = [
    "EmbeddingConfig",
    "FeatureEmbedding",
    "FeatureOptions",
    "build_tables",
    "embedding_plan",
    "plan_lines",
    "table_vectors",
]
