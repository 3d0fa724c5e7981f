"""A trained model → one verified folder: vectors by raw id, the ranker as a graph, golden rows."""

from recembed.export.bundle import export_bundle
from recembed.export.graph import ServingGraph, compact_model, trace
from recembed.export.manifest import Manifest, Metric
from recembed.export.newcomers import add_newcomers
from recembed.export.vectors import feature_vectors
from recembed.export.verify import GOLDEN_LOGIT, Report, verify_bundle

__all__ = [
    "GOLDEN_LOGIT",
    "Manifest",
    "Metric",
    "Report",
    "ServingGraph",
    "add_newcomers",
    "compact_model",
    "export_bundle",
    "feature_vectors",
    "trace",
    "verify_bundle",
]
