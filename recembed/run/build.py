"""Config + fitted schema → model."""

from typing import cast

import torch

from recembed.config import RunConfig
from recembed.embedding import FeatureEmbedding
from recembed.errors import ConfigError, did_you_mean
from recembed.export import compact_model
from recembed.models import CTRModel
from recembed.rows import StoreMaker
from recembed.schema.feature import Feature, Schema
from recembed.schema.fitted import FittedSchema

__all__ = ["build_model", "embedding_of", "select_features", "served_model"]


def build_model(
    fitted: FittedSchema, config: RunConfig, device: torch.device | str = "cpu", make_store: StoreMaker | None = None
) -> CTRModel:
    """Build the model of a run, with fresh weights that depend on ``training.seed`` alone.

    Where the model needs fields of one width, methods that widen a field get a projection. ``make_store`` makes the
    row store; None takes the one that the config names.
    """
    builds = config.model.builds
    embeddings = config.embeddings
    if builds.needs_equal_widths and not embeddings.project:
        embeddings = embeddings.model_copy(update={"project": True})
    if isinstance(config.data.path, str | tuple):
        embeddings = embeddings.with_content(config.data.path, fitted.schema)
    embedding = FeatureEmbedding(
        fitted,
        embeddings,
        fields=builds.needs_fields,
        linear=builds.needs_linear,
        seed=config.training.seed,
        device=device,
        make_store=make_store,
    )
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(config.training.seed)
        return config.model.build(embedding)


def embedding_of(model: CTRModel) -> FeatureEmbedding:
    """Return the embedding part of a model that ``build_model`` made."""
    return cast(FeatureEmbedding, model.embedding)


def served_model(model: CTRModel) -> CTRModel:
    """Return what will be served: the compact form where rows are rounded, else the model itself, which says the same."""
    if embedding_of(model).config.served_dtype == "float32":
        return model
    return cast(CTRModel, compact_model(model))


def select_features(schema: Schema, use: tuple[str, ...] | None) -> Schema:
    """Keep the features that ``data.use`` names, in the schema's order; ``None`` keeps all.

    Raises:
        ConfigError: a name the schema lacks, or a feature whose table belongs to one that is left out.
    """
    if use is None:
        return schema
    for name in use:
        if name not in schema.names:
            raise ConfigError(f"data.use: {name!r} is not in the schema" + did_you_mean(name, schema.names))
    kept: tuple[Feature, ...] = tuple(feature for feature in schema.features if feature.name in use)
    for feature in kept:
        if feature.shares and feature.shares not in use:
            raise ConfigError(f"data.use: {feature.name!r} shares the table of {feature.shares!r}; list that one too")
    return schema.model_copy(update={"features": kept})
