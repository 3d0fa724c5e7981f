"""Feature embeddings for recommender systems: compact tables, trained, exported, proved.

The names below are imported when they are first used, so ``import recembed`` itself is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recembed import serve
    from recembed.batch import Batch
    from recembed.config import RunConfig, load_config
    from recembed.data import EncodedData, Loader, encode, fit, leak_check, load_dataset, report, scan, split_frame
    from recembed.embedded import Embedded
    from recembed.embedding import EmbeddingConfig, FeatureEmbedding
    from recembed.export import export_bundle, verify_bundle
    from recembed.run import evaluate_run, export_run, load_run, predict_run, train
    from recembed.schema.feature import Feature, Label, Schema
    from recembed.schema.fitted import FittedSchema
    from recembed.training import Trainer, TrainingConfig

__all__ = [
    "Batch",
    "Embedded",
    "EmbeddingConfig",
    "EncodedData",
    "Feature",
    "FeatureEmbedding",
    "FittedSchema",
    "Label",
    "Loader",
    "RunConfig",
    "Schema",
    "Trainer",
    "TrainingConfig",
    "encode",
    "evaluate_run",
    "export_bundle",
    "export_run",
    "fit",
    "leak_check",
    "load_config",
    "load_dataset",
    "load_run",
    "predict_run",
    "report",
    "scan",
    "serve",
    "split_frame",
    "train",
    "verify_bundle",
]

_ROOMS = {
    "recembed.batch": ("Batch",),
    "recembed.config": ("RunConfig", "load_config"),
    "recembed.data": (
        "EncodedData",
        "Loader",
        "encode",
        "fit",
        "leak_check",
        "load_dataset",
        "report",
        "scan",
        "split_frame",
    ),
    "recembed.embedded": ("Embedded",),
    "recembed.embedding": ("EmbeddingConfig", "FeatureEmbedding"),
    "recembed.export": ("export_bundle", "verify_bundle"),
    "recembed.run": ("evaluate_run", "export_run", "load_run", "predict_run", "train"),
    "recembed.schema.feature": ("Feature", "Label", "Schema"),
    "recembed.schema.fitted": ("FittedSchema",),
    "recembed.training": ("Trainer", "TrainingConfig"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name from its room."""
    if name == "serve":
        return importlib.import_module("recembed.serve")
    if name not in _HOME:
        raise AttributeError(f"module 'recembed' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
