"""Which checkpoints a run keeps: the last ones, to go on from, and the best one, to use; written now or by a thread."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from recembed.errors import CheckpointError
from recembed.rows import Processes
from recembed.schema.fitted import FittedSchema
from recembed.training.checkpoint import first_whole, load_checkpoint, load_training
from recembed.training.folder_swap import kept_folders
from recembed.training.manifest import Manifest, read_manifest
from recembed.training.pieces import processes_of
from recembed.training.snapshot import Snapshot, copy_weights, on_all

__all__ = ["Checkpointer"]


class Checkpointer:
    """Keeps ``folder/last`` and ``folder/best``; ``load_checkpoint(folder, model)`` reads the best.

    All processes that train a model use one each, alike.

    Args:
        folder: Where; made when the first checkpoint is written.
        fitted: The mapping, saved with the weights; checkpoints of another one are refused.
        config: The effective config of the run, plain values.
        keep: Checkpoints to go on from: ``last``, and before it ``last.old``, ``last.old2``… for the day on which the
            last one is found damaged.
        background: Write in a thread while training goes on; it holds a second copy of everything meanwhile.
    """

    def __init__(
        self,
        folder: Path,
        fitted: FittedSchema | None = None,
        config: Mapping[str, Any] | None = None,
        *,
        keep: int = 1,
        background: bool = False,
    ) -> None:
        self.folder, self.fitted, self.config = folder, fitted, dict(config or {})
        self.keep, self.background = keep, background
        self._processes: Processes | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._under_way: list[Future[None]] = []

    @property
    def last(self) -> Path:
        """Where the last checkpoint is."""
        return self.folder / "last"

    @property
    def best(self) -> Path:
        """Where the best checkpoint is."""
        return self.folder / "best"

    def save_last(
        self, model: nn.Module, training: Mapping[str, Tensor], *, step: int, epoch: int, progress: dict[str, Any]
    ) -> None:
        """Write the last checkpoint, or let it be written.

        Raises:
            CheckpointError: it cannot be written, or the one before it, by the thread, could not.
        """
        self.flush()
        processes = self._processes_of(model)
        words: dict[str, Any] = {"step": step, "epoch": epoch, "progress": progress}
        snapshot = Snapshot.of(model, training, processes.rank, fitted=self.fitted, config=self.config, **words)
        if self.background:
            snapshot = snapshot.copy()
        self._do(lambda: snapshot.write(self.last, processes, keep=self.keep))

    def keep_last_as_best(self) -> None:
        """Make the last checkpoint the best one too."""
        processes = self._processes or Processes()

        def copy() -> None:
            on_all(processes, lambda: copy_weights(self.last, self.best) if processes.rank == 0 else None, self.best)

        self._do(copy)

    def flush(self) -> None:
        """Wait until everything is written; raises what went wrong."""
        while self._under_way:
            self._under_way.pop(0).result()

    def close(self) -> None:
        """End the thread, when it has done its work."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _do(self, work: Callable[[], None]) -> None:
        if not self.background:
            work()
            return
        self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="recembed-checkpoint")
        self._under_way.append(self._pool.submit(work))

    def _processes_of(self, model: nn.Module) -> Processes:
        """Return the processes, over connections that this thread and training do not share."""
        if self._processes is None:
            processes = processes_of(model)
            self._processes = processes.beside() if self.background else processes
        return self._processes

    def has_last(self) -> bool:
        """Return whether there is something to resume from."""
        return bool(kept_folders(self.last))

    def best_step(self) -> int | None:
        """Return the step of the best checkpoint, None where there is none."""
        try:
            return read_manifest(self.best).step
        except CheckpointError:
            return None

    def load_last(self, model: nn.Module) -> tuple[Manifest, dict[str, Tensor], str | None]:
        """Load weights and row states to go on; where the last checkpoint is damaged, those of the one before it.

        Returns:
            The manifest, the other tensors, and what the user should know.
        """
        self.flush()
        self._processes_of(model)
        places = kept_folders(self.last)
        place, _ = first_whole(places, processes_of(model))
        manifest = load_checkpoint(place, model, self.fitted)
        warning = None
        if place != places[0]:
            warning = f"checkpoint {places[0]} is damaged; went on from {place.name}, step {manifest.step}"
        return manifest, load_training(place, model), warning

    def load_best(self, model: nn.Module) -> None:
        """Load the best weights."""
        self.flush()
        load_checkpoint(self.best, model, self.fitted)
