"""``Snapshot``: everything a checkpoint says, and how processes write it together, each its own parts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from torch import Tensor, nn

from recembed.errors import CheckpointError, DataError, RecembedError, TrainingError
from recembed.rows import Piece, Processes
from recembed.schema.fitted import FittedSchema
from recembed.training.folder_swap import (
    begin_folder,
    drop_folder,
    end_folder,
    link_or_copy,
    whole_folder,
    write_text,
)
from recembed.training.manifest import CONFIG, Manifest, find_checkpoint, read_manifest, tensor_file
from recembed.training.pieces import state_pieces, state_places, weight_pieces
from recembed.training.tensor_file import file_digest, write_tensors

__all__ = ["Snapshot", "copy_weights", "on_all"]

_OWN = "random/"  # every process has its own generators
_Answer = TypeVar("_Answer")
_Pieces = Mapping[str, Piece]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Everything a checkpoint says, as far as it lies in this process; see ``save_checkpoint``.

    Attributes:
        weights: Dense parameters, buffers and rows.
        training: States of optimisers and generators; None in a checkpoint of weights only.
    """

    weights: _Pieces
    training: _Pieces | None
    fitted: FittedSchema | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0
    epoch: int = 0
    progress: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module, training: Mapping[str, Tensor] | None, rank: int, **words: Any) -> "Snapshot":
        """Return the live state of ``model``, with the tensors of its training by name."""
        if training is None:
            return cls(weights=weight_pieces(model), training=None, **words)
        states = {f"rows/{name}": piece for name, piece in state_pieces(model).items()}
        own = {name: Piece.of(v, saved=rank == 0 or name.startswith(_OWN)) for name, v in training.items()}
        places = state_places(model, {name: v.shape for name, v in training.items()})
        own |= {name: replace(place, values=training[name]) for name, place in places.items()}
        return cls(weights=weight_pieces(model), training=states | own, **words)

    def copy(self) -> "Snapshot":
        """Return the state of this moment: a second copy of all that lies in this process, on CPU."""
        weights, training = ({name: p.copy() for name, p in (ps or {}).items()} for ps in (self.weights, self.training))
        return replace(self, weights=weights, training=None if self.training is None else training)

    def write(self, folder: Path, processes: Processes, *, keep: int = 1) -> None:
        """Write a checkpoint; what ``folder`` held stays until it is complete, and ``keep - 1`` of them longer.

        No process gathers what others hold: each writes its own parts, rank 0 the manifest at last.

        Raises:
            CheckpointError: the disk is full or the place cannot be written; the old checkpoint is whole.
        """
        first = processes.rank == 0
        try:
            files: dict[str, str] = {}
            began = on_all(processes, lambda: str(begin_folder(folder)) if first else "", folder)[0]
            for own in on_all(processes, lambda: self._write_own(Path(began), processes), folder):
                files |= own
            on_all(processes, lambda: self._write_head(folder, Path(began), files, keep) if first else None, folder)
        except BaseException:
            if first:
                drop_folder(folder)
            raise

    def _write_own(self, beside: Path, processes: Processes) -> dict[str, str]:
        if not beside.is_dir():
            raise CheckpointError(
                f"{beside} is not seen by rank {processes.rank}; take a folder that all machines share"
            )
        files = {}
        for kind, pieces in (("weights", self.weights), ("training", self.training)):
            if pieces is not None:
                name = tensor_file(kind, processes.rank, processes.count)
                files[name] = write_tensors(
                    beside / name, {name: piece for name, piece in pieces.items() if piece.saved}
                )
        return files

    def _write_head(self, folder: Path, beside: Path, files: dict[str, str], keep: int) -> None:
        files = dict(files)
        if self.fitted:
            files |= _place_fitted(beside, self.fitted, whole_folder(folder))
        write_text(beside / CONFIG, yaml.safe_dump(dict(self.config), sort_keys=False))
        files[CONFIG] = file_digest(beside / CONFIG)
        Manifest(
            step=self.step,
            epoch=self.epoch,
            mapping_version=self.fitted.version if self.fitted else None,
            files=files,
            progress=self.progress,
        ).write(beside)
        end_folder(folder, keep=keep)


def on_all(processes: Processes, work: Callable[[], _Answer], folder: Path) -> list[_Answer]:
    """Do ``work`` on every process and return what each answered; where one fails, all stop.

    Raises:
        CheckpointError: a place cannot be written; on processes that could, a TrainingError that names the other.
    """
    answer, fault = None, None
    try:
        answer = work()
    except (OSError, DataError, RecembedError) as error:
        fault = _explained(error, folder)
    words = processes.tell((answer, None if fault is None else str(fault)))
    if fault is not None:
        raise fault
    for rank, (_, said) in enumerate(words):
        if said is not None:
            raise TrainingError(f"rank {rank}: {said}")
    return [word for word, _ in words]


def _explained(error: Exception, folder: Path) -> Exception:
    cause = error if isinstance(error, OSError) else error.__context__
    if not isinstance(cause, OSError):
        return error
    explained = CheckpointError(
        f"cannot write checkpoint {folder}: {cause.strerror or cause}; free some space or name a folder that can "
        "be written; the checkpoint that was there before, if any, is untouched"
    )
    explained.__cause__ = error
    return explained


def _place_fitted(beside: Path, fitted: FittedSchema, previous: Path) -> dict[str, str]:
    """Save the mapping, or link its files from the checkpoint before; return their checksums."""
    try:
        known, previous = read_manifest(previous), find_checkpoint(previous)
    except CheckpointError:
        known = None
    if known and known.mapping_version == fitted.version:
        files = {name: digest for name, digest in known.files.items() if name.startswith("fitted/")}
        if all((previous / name).is_file() for name in files):
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
    files = {name: digest for name, digest in manifest.files.items() if not name.startswith("training")}
    head = Manifest(step=manifest.step, epoch=manifest.epoch, mapping_version=manifest.mapping_version, files=files)
    source = find_checkpoint(source)

    def link() -> None:
        beside = begin_folder(target)
        for name in files:
            link_or_copy(source / name, beside / name)
        head.write(beside)
        end_folder(target)

    try:
        on_all(Processes(), link, target)
    except BaseException:
        drop_folder(target)
        raise
