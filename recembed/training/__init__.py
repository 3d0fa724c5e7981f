"""The loop that knows no model: trainer, checkpoints, tracking."""

from recembed.training.bilevel import BilevelSearch
from recembed.training.checkpoint import load_checkpoint, save_checkpoint
from recembed.training.checkpointer import Checkpointer
from recembed.training.config import EarlyStopping, TrainingConfig
from recembed.training.manifest import Manifest, find_checkpoint, read_manifest
from recembed.training.objectives import Objective, binary_logloss
from recembed.training.schedule import Schedule
from recembed.training.tracking import MemoryTracker, NullTracker, Tracker
from recembed.training.trainer import Trainer, TrainResult

__all__ = [
    "BilevelSearch",
    "Checkpointer",
    "EarlyStopping",
    "Manifest",
    "MemoryTracker",
    "NullTracker",
    "Objective",
    "Schedule",
    "Tracker",
    "TrainResult",
    "Trainer",
    "TrainingConfig",
    "binary_logloss",
    "find_checkpoint",
    "load_checkpoint",
    "read_manifest",
    "save_checkpoint",
]
