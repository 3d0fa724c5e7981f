"""``Ranker``: the graph of a bundle, loaded, with the reader that feeds it raw rows."""

from pathlib import Path

import numpy as np
import polars as pl
import torch

from recembed.errors import ExportError
from recembed.export.inputs import RowReader
from recembed.schema.fitted import FittedSchema

__all__ = ["GRAPH_FILE", "SCHEMA_FOLDER", "Ranker"]

GRAPH_FILE = "ranker.pt2"
SCHEMA_FOLDER = "schema"

_BLOCK_ROWS = 1 << 14


class Ranker:
    """Raw rows to scores.

    Attributes:
        reader: Turns rows into tensors; counts unseen ids.
    """

    def __init__(self, folder: Path, fitted: FittedSchema) -> None:
        try:
            self._graph = torch.export.load(folder / GRAPH_FILE).module()
        except Exception as error:  # torch raises whatever its reader met
            raise ExportError(
                f"{folder / GRAPH_FILE} cannot be loaded by torch {torch.__version__}: {error}"
            ) from error
        self.reader = RowReader(fitted)

    def logits(self, rows: pl.DataFrame) -> np.ndarray:
        """Return float32 ``[N]``; see ``RowReader.read`` for the errors."""
        return self._run(rows, "logit")

    def probabilities(self, rows: pl.DataFrame) -> np.ndarray:
        """Return float32 ``[N]``, each in 0..1."""
        return self._run(rows, "probability")

    @torch.no_grad()
    def _run(self, rows: pl.DataFrame, output: str) -> np.ndarray:
        scores = [self._graph(*inputs)[output].numpy() for inputs in self.reader.read(rows, _BLOCK_ROWS)]
        return np.concatenate(scores) if scores else np.empty(0, np.float32)
