"""Rows of a run → its mapping, its encoded parts, its loaders."""

from pathlib import Path

from recembed.data import EncodedData, KeptRows, Loader, encode, encode_to, fit, fit_and_keep
from recembed.models import CTRModel
from recembed.run.build import embedding_of
from recembed.run.data import RunData
from recembed.schema.fitted import FittedSchema
from recembed.training import TrainingConfig

__all__ = ["encode_parts", "fit_or_load", "training_loader", "validation_loader"]


def fit_or_load(data: RunData, out: Path, *, resume: bool) -> tuple[FittedSchema, KeptRows | None]:
    """Return the mapping and, where it was fitted in memory just now, the training rows that were read for it."""
    if resume:
        for place in (out / "checkpoint", *sorted(out.glob("stages/*/checkpoint"))):
            for kept in (place / "last" / "fitted", place / "best" / "fitted"):
                if kept.is_dir():
                    return FittedSchema.load(kept), None
    if data.config.data.cache is not None:
        return fit(data.splits.train, data.schema), None
    return fit_and_keep(data.splits.train, data.schema)


def encode_parts(data: RunData, fitted: FittedSchema, kept: KeptRows | None, model: CTRModel) -> dict[str, EncodedData]:
    """Return the rows of ``train``, ``valid`` and ``test`` as the model reads them."""
    keys = embedding_of(model).key_features
    cache = data.config.data.cache
    if cache is not None:
        return {name: encode_to(frame, fitted, cache / name, key_features=keys) for name, frame in data.splits.items()}
    frames = dict(data.splits.items())
    train = kept.encode(keys) if kept else encode(frames["train"], fitted, key_features=keys)
    return {
        "train": train,
        "valid": encode(frames["valid"], fitted, key_features=keys),
        "test": encode(frames["test"], fitted, key_features=keys),
    }


def training_loader(data: EncodedData, settings: TrainingConfig) -> Loader:
    """Return the batches that training reads."""
    return Loader(data, settings.batch_size, shuffle=settings.shuffle, seed=settings.seed, id_dropout=True)


def validation_loader(data: EncodedData, settings: TrainingConfig) -> Loader | None:
    """Return the batches of an evaluation, None where there are no rows."""
    return Loader(data, settings.batch_size, shuffle=False, seed=settings.seed) if len(data) else None
