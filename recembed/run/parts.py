"""Rows of a run → its mapping, its encoded parts, its loaders, its checkpoints."""

from collections.abc import Iterator
from pathlib import Path

from recembed.config import RunConfig
from recembed.data import EncodedData, KeptRows, Loader, encode, encode_to, fit, fit_and_keep
from recembed.errors import CheckpointError, ConfigError, DataError
from recembed.models import CTRModel
from recembed.rows import Processes
from recembed.run.build import embedding_of
from recembed.run.data import RunData
from recembed.schema.fitted import FittedSchema
from recembed.training import Checkpointer, TrainingConfig

__all__ = [
    "encode_parts",
    "encode_shared",
    "fit_or_load",
    "fit_shared",
    "run_checkpointer",
    "shared_folder",
    "training_loader",
    "validation_loader",
]


def fit_or_load(data: RunData, out: Path, *, resume: bool) -> tuple[FittedSchema, KeptRows | None]:
    """Return the mapping and, where it was fitted in memory just now, the training rows that were read for it."""
    if resume and (kept := _kept_mapping(out)):
        return kept, None
    if data.config.data.cache is not None:
        return fit(data.splits.train, data.schema), None
    return fit_and_keep(data.splits.train, data.schema)


def _kept_mapping(out: Path) -> FittedSchema | None:
    """Return the mapping of the first checkpoint of the run whose mapping is whole."""
    faults = []
    for place in _mappings(out):
        try:
            return FittedSchema.load(place)
        except DataError as error:
            faults.append(error)
    if faults:
        raise faults[0]
    return None


def _mappings(out: Path) -> Iterator[Path]:
    for place in (out / "checkpoint", *sorted(out.glob("stages/*/checkpoint"))):
        for name in ("last", "last.old", "best"):
            if (place / name / "fitted").is_dir():
                yield place / name / "fitted"


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


def shared_folder(config: RunConfig, out: Path) -> Path:
    """Return where several processes share the mapping and the encoded rows."""
    return config.data.cache or out / "encoded"


def fit_shared(data: RunData, out: Path, processes: Processes, *, resume: bool) -> FittedSchema:
    """Let rank 0 fit the mapping, or take that of the run, and return it on every process."""
    place = shared_folder(data.config, out) / "fitted"

    def fit_first() -> str:
        fitted = (_kept_mapping(out) if resume else None) or fit(data.splits.train, data.schema)
        fitted.save(place)
        return fitted.version

    version = processes.first_does(fit_first)
    _check_seen(place, processes)
    fitted = FittedSchema.load(place)
    fitted.check_version(version, f"the mapping of rank 0 in {place}")
    return fitted


def encode_shared(
    data: RunData, out: Path, fitted: FittedSchema, model: CTRModel, processes: Processes, *, resume: bool
) -> dict[str, EncodedData]:
    """Let rank 0 encode the rows to files, and map these on every process: a machine holds them once.

    A run that is resumed takes the files it left behind.
    """
    keys, folder = embedding_of(model).key_features, shared_folder(data.config, out)

    def encode_first() -> None:
        for name, frame in data.splits.items():
            if not (resume and _is_encoded(folder / name, fitted, keys)):
                encode_to(frame, fitted, folder / name, key_features=keys)

    processes.first_does(encode_first)
    _check_seen(folder, processes)
    return {name: EncodedData.open(folder / name, fitted) for name, _ in data.splits.items()}


def _is_encoded(folder: Path, fitted: FittedSchema, keys: frozenset[str]) -> bool:
    try:
        return EncodedData.open(folder, fitted).key_features == keys
    except (DataError, CheckpointError):
        return False


def _check_seen(place: Path, processes: Processes) -> None:
    blind = [rank for rank, seen in enumerate(processes.tell(place.is_dir())) if not seen]
    if blind:
        raise ConfigError(
            f"rank {blind[0]} does not see {place}, which rank 0 wrote: put --out (and data.cache) on a file system that "
            "all machines share"
        )


def training_loader(data: EncodedData, settings: TrainingConfig, processes: Processes) -> Loader:
    """Return the batches that this process trains on: its slice of each."""
    return Loader(
        data,
        settings.batch_size,
        shuffle=settings.shuffle,
        seed=settings.seed,
        id_dropout=True,
        rank=processes.rank,
        world_size=processes.count,
    )


def validation_loader(data: EncodedData, settings: TrainingConfig, processes: Processes) -> Loader | None:
    """Return the batches that this process evaluates: its slice of each; None where there are no rows at all."""
    if not len(data):
        return None
    rank, count = processes.rank, processes.count
    return Loader(data, settings.batch_size, shuffle=False, seed=settings.seed, rank=rank, world_size=count)


def run_checkpointer(folder: Path, fitted: FittedSchema, config: RunConfig) -> Checkpointer:
    """Return the keeper of checkpoints in ``folder``."""
    training = config.training
    keep, background = training.checkpoints_kept, training.checkpoint_in_background
    return Checkpointer(folder, fitted, config.to_dict(), keep=keep, background=background)
