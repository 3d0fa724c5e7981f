"""Checkpoints: one folder, written beside and renamed, checksummed, without pickles.

``manifest.json``, ``config.yaml``, ``fitted/``, ``weights.safetensors`` (dense parameters and rows by table name) and,
where training is to go on from it, ``training.safetensors`` (states of both optimisers, random generators).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn

from recembed.errors import CheckpointError, DataError
from recembed.rows import RowStore
from recembed.schema.fitted import FittedSchema
from recembed.training.folder_swap import link_or_copy, new_folder, whole_folder, write_text
from recembed.training.manifest import Manifest, find_checkpoint, read_manifest, verify_files
from recembed.training.tensor_file import copy_tensors, file_digest, read_tensors, tensor_shapes, write_tensors

__all__ = ["copy_weights", "load_checkpoint", "load_training", "row_states", "save_checkpoint", "weights"]

_CONFIG, _WEIGHTS, _TRAINING = "config.yaml", "weights.safetensors", "training.safetensors"


def row_states(model: nn.Module) -> dict[str, Tensor]:
    """Return the live optimiser states of all rows, by their names in ``model.state_dict()``."""
    states: dict[str, Tensor] = {}
    for place, module in model.named_modules():
        if isinstance(module, RowStore):
            prefix = f"{place}." if place else ""
            weights = {f"{table}.weight" for table in module.tables}
            states |= {prefix + name: values for name, values in module.named_tensors() if name not in weights}
    return states


def _named_row_states(model: nn.Module) -> dict[str, Tensor]:
    return {f"rows/{name}": values for name, values in row_states(model).items()}


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the live dense parameters, buffers and rows of ``model``, by their names in ``model.state_dict()``."""
    states = row_states(model)
    return {name: values for name, values in model.state_dict().items() if name not in states}


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
    folder = Path(folder)
    with _explained(folder), new_folder(folder) as beside:
        files = _place_fitted(beside, fitted, whole_folder(folder)) if fitted else {}
        write_text(beside / _CONFIG, yaml.safe_dump(dict(config or {}), sort_keys=False))
        files[_CONFIG] = file_digest(beside / _CONFIG)
        files[_WEIGHTS] = write_tensors(beside / _WEIGHTS, weights(model))
        if training is not None:
            files[_TRAINING] = write_tensors(beside / _TRAINING, {**_named_row_states(model), **training})
        Manifest(
            step=step,
            epoch=epoch,
            mapping_version=fitted.version if fitted else None,
            files=files,
            progress=progress or {},
        ).write(beside)
    return folder


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, DataError) as error:
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise CheckpointError(
            f"cannot write checkpoint {folder}: {cause.strerror or cause}; free some space or name a folder that can "
            "be written; the checkpoint that was there before, if any, is untouched"
        ) from error


def _place_fitted(beside: Path, fitted: FittedSchema, previous: Path) -> dict[str, str]:
    """Save the mapping, or link its files from the checkpoint before; return their checksums."""
    try:
        known, previous = read_manifest(previous), find_checkpoint(previous)
    except CheckpointError:
        known = None
    if known and known.mapping_version == fitted.version:
        files = {name: digest for name, digest in known.files.items() if name.startswith("fitted/")}
        for name in files:
            link_or_copy(previous / name, beside / name)
        return files
    fitted.save(beside / "fitted")
    paths = (path for path in sorted((beside / "fitted").rglob("*")) if path.is_file())
    return {path.relative_to(beside).as_posix(): file_digest(path) for path in paths}


def copy_weights(source: Path, target: Path) -> None:
    """Make checkpoint ``target`` from the weights, config and mapping of ``source``; files are linked, not written.

    Raises:
        CheckpointError: the place cannot be written.
    """
    manifest = read_manifest(source)
    files = {name: digest for name, digest in manifest.files.items() if name != _TRAINING}
    with _explained(target), new_folder(target) as beside:
        for name in files:
            link_or_copy(source / name, beside / name)
        Manifest(step=manifest.step, epoch=manifest.epoch, mapping_version=manifest.mapping_version, files=files).write(
            beside
        )


def load_checkpoint(folder: Path | str, model: nn.Module, fitted: FittedSchema | None = None) -> Manifest:
    """Load the weights of a checkpoint (see ``find_checkpoint``) into ``model``.

    Args:
        folder: A checkpoint, or the folder that holds ``best`` and ``last``.
        model: Built as the saved one; either row store may have written the rows.
        fitted: The mapping in use; a checkpoint of another one is refused.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, of another mapping, or of another model.
    """
    place = find_checkpoint(folder)
    manifest = read_manifest(place)
    verify_files(place, manifest)
    if fitted is not None and manifest.mapping_version is not None:
        fitted.check_version(manifest.mapping_version, f"checkpoint {place}")
    wanted = weights(model)
    _check_names(place / _WEIGHTS, wanted)
    copy_tensors(place / _WEIGHTS, wanted)
    return manifest


def _check_names(path: Path, wanted: Mapping[str, Tensor]) -> None:
    saved = tensor_shapes(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    faults = []
    if missing := sorted(shapes.keys() - saved.keys()):
        faults.append(f"it lacks {_shown(missing)}")
    if unexpected := sorted(saved.keys() - shapes.keys()):
        faults.append(f"the model has no {_shown(unexpected)}")
    for name in sorted(shapes.keys() & saved.keys()):
        if shapes[name] != saved[name]:
            faults.append(f"{name} has shape {saved[name]}, the model's has {shapes[name]}")
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
    path = find_checkpoint(folder) / _TRAINING
    if not path.is_file():
        raise CheckpointError(f"{folder} holds weights only, training cannot go on from it; use the 'last' checkpoint")
    live = _named_row_states(model)
    shapes = tensor_shapes(path)
    saved = {name: shape for name, shape in shapes.items() if name.startswith("rows/")}
    if saved != {name: tuple(values.shape) for name, values in live.items()}:
        raise CheckpointError(
            f"{path} holds states of another row rule ({_shown(sorted(saved)) or 'none'}; the model has "
            f"{_shown(sorted(live)) or 'none'}); resume with the row_optimizer of its config.yaml"
        )
    copy_tensors(path, live)
    return read_tensors(path, shapes.keys() - live.keys())
