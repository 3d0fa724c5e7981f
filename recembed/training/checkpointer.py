"""Which checkpoints a run keeps: the last one, to go on from, and the best one, to use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from recembed.errors import CheckpointError
from recembed.schema.fitted import FittedSchema
from recembed.training.checkpoint import copy_weights, load_checkpoint, load_training, save_checkpoint
from recembed.training.folder_swap import whole_folder
from recembed.training.manifest import Manifest, read_manifest

__all__ = ["Checkpointer"]


@dataclass(frozen=True)
class Checkpointer:
    """Keeps ``folder/last`` and ``folder/best``; ``load_checkpoint(folder, model)`` reads the best.

    Attributes:
        folder: Where; made when the first checkpoint is written.
        fitted: The mapping, saved with the weights; checkpoints of another one are refused.
        config: The effective config of the run, plain values.
    """

    folder: Path
    fitted: FittedSchema | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

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
        """Write the last checkpoint."""
        save_checkpoint(
            self.last,
            model,
            fitted=self.fitted,
            config=self.config,
            training=training,
            step=step,
            epoch=epoch,
            progress=progress,
        )

    def keep_last_as_best(self) -> None:
        """Make the last checkpoint the best one too."""
        copy_weights(self.last, self.best)

    def has_last(self) -> bool:
        """Return whether there is something to resume from."""
        return whole_folder(self.last).is_dir()

    def best_step(self) -> int | None:
        """Return the step of the best checkpoint, None where there is none."""
        try:
            return read_manifest(self.best).step
        except CheckpointError:
            return None

    def load_last(self, model: nn.Module) -> tuple[Manifest, dict[str, Tensor]]:
        """Load weights and row states to go on; return the manifest and the other tensors."""
        manifest = load_checkpoint(self.last, model, self.fitted)
        return manifest, load_training(self.last, model)

    def load_best(self, model: nn.Module) -> None:
        """Load the best weights."""
        load_checkpoint(self.best, model, self.fitted)
