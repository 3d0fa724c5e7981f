"""Checkpoints: one folder, written beside and renamed, checksummed, without pickles.

``manifest.json``, ``config.yaml``, ``fitted/``, ``weights.safetensors`` (dense parameters and rows by table name) and,
where training is to go on from it, ``training.safetensors`` (states of both optimisers, random generators). Several
processes write ``weights-00001-of-00002.safetensors`` and so on, each its own parts of the rows, under the same names;
any number of processes reads them, and so does ``HuggingFaceStorageReader`` of ``torch.distributed.checkpoint``. Its
writers are not used: the plain one pickles its metadata, that for safetensors holds a whole file in memory once more,
and neither has checksums.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from recembed.errors import CheckpointError
from recembed.rows import Piece, Processes
from recembed.schema.fitted import FittedSchema
from recembed.training.manifest import Manifest, find_checkpoint, read_manifest, verify_files
from recembed.training.pieces import processes_of, row_states, state_pieces, state_places, weight_pieces, weights
from recembed.training.saved_tensors import SavedTensors
from recembed.training.snapshot import Snapshot, copy_weights, on_all

__all__ = [
    "copy_weights",
    "first_whole",
    "load_checkpoint",
    "load_training",
    "row_states",
    "save_checkpoint",
    "weights",
]


def save_checkpoint(
    folder: Path | str,
    model: nn.Module,
    *,
    fitted: FittedSchema | None = None,
    config: Mapping[str, Any] | None = None,
    training: Mapping[str, Tensor] | None = None,
    step: int = 0,
    epoch: int = 0,
    progress: dict[str, Any] | None = None,
) -> Path:
    """Write a checkpoint; the old one at ``folder`` stays until the new one is complete.

    All processes that train the model call it.

    Args:
        folder: Where to; its parents are made.
        model: Whose weights.
        fitted: The mapping the rows belong to.
        config: The effective config of the run, plain values.
        training: What else training needs to go on, by name; written beside the row optimiser states. None writes
            weights only.
        step: Optimiser steps so far.
        epoch: Epochs so far.
        progress: Anything JSON can hold.

    Raises:
        CheckpointError: the disk is full or the place cannot be written; the old checkpoint is whole.
    """
    folder, processes = Path(folder), processes_of(model)
    words: dict[str, Any] = {"step": step, "epoch": epoch, "progress": progress or {}}
    snapshot = Snapshot.of(model, training, processes.rank, fitted=fitted, config=config or {}, **words)
    snapshot.write(folder, processes)
    return folder


def load_checkpoint(folder: Path | str, model: nn.Module, fitted: FittedSchema | None = None) -> Manifest:
    """Load the weights of a checkpoint (see ``find_checkpoint``) into ``model``.

    Args:
        folder: A checkpoint, or the folder that holds ``best`` and ``last``.
        model: Built as the saved one; any row store, of any number of processes, may have written the rows.
        fitted: The mapping in use; a checkpoint of another one is refused.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, of another mapping, or of another model.
    """
    place, manifest = first_whole([Path(folder)], processes_of(model))
    if fitted is not None and manifest.mapping_version is not None:
        fitted.check_version(manifest.mapping_version, f"checkpoint {place}")
    paths = manifest.tensor_files(place, "weights")
    saved, wanted = SavedTensors(paths), weight_pieces(model)
    _check_names(place if len(paths) > 1 else paths[0], saved, wanted)
    saved.copy_into(wanted)
    return manifest


def first_whole(places: Sequence[Path], processes: Processes) -> tuple[Path, Manifest]:
    """Return the first checkpoint of ``places`` that is whole; of its files every process reads some.

    Raises:
        CheckpointError: none is whole; says what is wrong with the first.
    """
    faults: list[Exception] = []
    for folder in places:

        def verify(folder: Path = folder) -> None:
            verify_files(find_checkpoint(folder), read_manifest(folder), processes.rank, processes.count)

        try:
            on_all(processes, verify, folder)
            return find_checkpoint(folder), read_manifest(folder)
        except Exception as error:
            faults.append(error)
    raise faults[0]


def _check_names(path: Path, saved: SavedTensors, wanted: Mapping[str, Piece]) -> None:
    shapes = {name: piece.whole for name, piece in wanted.items()}
    faults = []
    if missing := sorted(shapes.keys() - saved.shapes.keys()):
        faults.append(f"it lacks {_shown(missing)}")
    if unexpected := sorted(saved.shapes.keys() - shapes.keys()):
        faults.append(f"the model has no {_shown(unexpected)}")
    for name in sorted(shapes.keys() & saved.shapes.keys()):
        if shapes[name] != saved.shapes[name]:
            faults.append(f"{name} has shape {saved.shapes[name]}, the model's has {shapes[name]}")
    if faults:
        raise CheckpointError(f"{path} is of another model: {'; '.join(faults[:4])}; build the model as in config.yaml")


def _shown(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def load_training(folder: Path, model: nn.Module) -> dict[str, Tensor]:
    """Load the row optimiser states into ``model`` and return all other tensors needed to go on.

    Call it after ``load_checkpoint``, which checks the files.

    Raises:
        CheckpointError: the checkpoint holds weights only, or states of another row rule.
    """
    place = find_checkpoint(folder)
    paths = read_manifest(place).tensor_files(place, "training")
    if not paths:
        raise CheckpointError(f"{folder} holds weights only, training cannot go on from it; use the 'last' checkpoint")
    live, saved = state_pieces(model), SavedTensors(paths)
    kept = {name.removeprefix("rows/"): shape for name, shape in saved.shapes.items() if name.startswith("rows/")}
    if kept != {name: piece.whole for name, piece in live.items()}:
        raise CheckpointError(
            f"{paths[0]} holds states of another row rule ({_shown(sorted(kept)) or 'none'}; the model has "
            f"{_shown(sorted(live)) or 'none'}); resume with the row_optimizer of its config.yaml"
        )
    saved.copy_into(live, prefix="rows/")
    places = state_places(model, saved.shapes)
    return {name: saved.read(name, places.get(name)) for name in saved.shapes if not name.startswith("rows/")}
