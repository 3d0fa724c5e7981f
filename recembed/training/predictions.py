"""Logits of rows that several processes evaluate, each its own slice of every batch.

Axes: ``N`` rows of all processes, ``B`` rows of a batch.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from recembed.batch import Batch
from recembed.errors import DataError
from recembed.evaluation.evaluate import predict_logits
from recembed.rows import Processes
from recembed.training.interrupt import Interrupt

__all__ = ["gathered_logits"]

_Floats = NDArray[np.float32]


def gathered_logits(
    model: nn.Module,
    batches: Iterable[Batch],
    processes: Processes,
    device: torch.device | str = "cpu",
    interrupt: Interrupt | None = None,
) -> tuple[_Floats, _Floats]:
    """Return labels and logits, float32 ``[N]`` each, of the rows of all processes in the order of one.

    Every process has as many batches, and calls it; all get the same.

    Args:
        model: What is evaluated.
        batches: The rows of this process; some batches may be empty.
        processes: Those that evaluate together.
        device: Where the model is.
        interrupt: After the first batch, ends the evaluation when the user asks for it.

    Raises:
        DataError: there are no rows.
    """
    sizes: list[int] = []

    def counted() -> Iterator[Batch]:
        for batch in batches:
            if sizes and interrupt is not None and interrupt.asked_by_any(processes):
                return
            sizes.append(len(batch))
            yield batch

    try:
        labels, logits = predict_logits(model, counted(), device)
    except DataError:
        if processes.count == 1 or any(sizes):
            raise
        labels = logits = np.empty(0, np.float32)  # the others have rows
    if processes.count == 1:
        return labels, logits
    own = torch.from_numpy(np.stack([labels, logits], axis=1)).to(device)
    every = torch.tensor([processes.tell(sizes)]).squeeze(0)  # [W, batches]
    rows = processes.gather(own).cpu()
    if not len(rows):
        raise DataError("the loader gave no rows to evaluate; check the split and the path of the data")
    batch_and_rank = torch.arange(every.shape[1]) * len(every) + torch.arange(len(every)).unsqueeze(1)
    order = torch.repeat_interleave(batch_and_rank.flatten(), every.flatten()).argsort(stable=True)
    ordered = rows[order].numpy()
    return ordered[:, 0].copy(), ordered[:, 1].copy()
