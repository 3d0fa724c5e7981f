"""Cut points of a numeric feature from its fitted quantiles."""

import numpy as np
import torch
from torch import Tensor

from recembed.schema.fitted import NumericStats

__all__ = ["quantile_edges"]


def quantile_edges(stats: NumericStats, bins: int) -> Tensor:
    """Return the ``bins + 1`` ends of ``bins`` bins that hold equal shares of the training rows.

    Read from the fitted quantiles by linear interpolation; a value that many rows share repeats. A feature that was
    always missing has zeros.

    Shapes:
        Returns float32 ``[w, bins + 1]``, ascending.
    """
    fitted = np.nan_to_num(np.asarray(stats.quantiles, dtype=np.float64))  # [w, Q]
    known = np.linspace(0, 1, fitted.shape[1])
    wanted = np.linspace(0, 1, bins + 1)
    edges = np.stack([np.interp(wanted, known, column) for column in fitted])  # [w, bins + 1]
    return torch.tensor(edges, dtype=torch.float32)
