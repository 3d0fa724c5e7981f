"""``LookAhead``: while a step takes place the next batch is on its way to the device, and its addresses to their holders."""

from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from recembed.batch import Batch
from recembed.rows import Processes
from recembed.training.batches import Batches

__all__ = ["LookAhead", "LooksAhead"]


@runtime_checkable
class LooksAhead(Protocol):
    """A module inside the model that can begin a lookup one step early; names as in TorchRec's pipelines."""

    def start_sparse_data_dist(self, batch: Batch) -> object:
        """Begin the lookup of the next batch; return what must live until the step of that batch is over."""

    def wait_sparse_data_dist(self) -> None:
        """Do the part of it that needs to know what the other processes want."""

    def drop_sparse_data_dist(self) -> None:
        """Forget what was begun."""

    def embedded(self, batch: Batch) -> bool:
        """Return whether the last forward pass with gradient was of this very batch."""


class LookAhead:
    """Hands out batches with the next one begun: copied to the device, its addresses sent.

    The stages are those of TorchRec's ``TrainPipelineSparseDist``, without its rewriting of the model. On a GPU they run
    in a stream of their own, beside the kernels of the step. A module's lookups begin early once a step has shown that it
    embeds the batches themselves, and not others made from them. One process on CPU has nothing to gain: there a batch
    is asked for when the step before it is over. All processes take batches alike.

    Args:
        model: The model in training.
        train: The data.
        device: Where the model is.
        processes: Those that take steps together.
    """

    def __init__(self, model: nn.Module, train: Batches, device: torch.device, processes: Processes) -> None:
        self.train, self.device = train, device
        self._position: dict[str, int] | None = None
        self._modules = [module for module in model.modules() if isinstance(module, LooksAhead)]
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pays = processes.count > 1 or device.type == "cuda"
        self._lent: deque[tuple[torch.cuda.Event, object]] = deque()

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of an epoch, on the device."""
        source, ready = iter(self.train), list[LooksAhead]()
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
        try:
            coming = self._begin(source, ready)
            while coming is not None:
                batch, self._position, begun = coming
                if self._stream is not None:
                    torch.cuda.current_stream(self.device).wait_stream(self._stream)
                coming = self._begin(source, ready) if self._pays else None
                yield batch
                ready = [module for module in self._modules if module.embedded(batch)]
                self._lend((batch, begun))
                if not self._pays:
                    coming = self._begin(source, [])
        finally:
            for module in self._modules:
                module.drop_sparse_data_dist()

    def position(self) -> dict[str, int]:
        """Return where the data stand after the batch that was handed out last."""
        return self.train.state() if self._position is None else self._position

    def wait(self) -> None:
        """Go on with the next batch as far as the other processes must have told; best between forward and backward."""
        with self._beside():
            for module in self._modules:
                module.wait_sparse_data_dist()

    def _begin(
        self, source: Iterator[Batch], ready: list[LooksAhead]
    ) -> tuple[Batch, dict[str, int], list[object]] | None:
        with self._beside():
            batch = next(source, None)
            if batch is None:
                return None
            position = self.train.state()
            if self.device.type != "cpu":
                batch = batch.to(self.device)
            return batch, position, [module.start_sparse_data_dist(batch) for module in ready]

    def _beside(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def _lend(self, made: object) -> None:
        """Keep what was made beside until the step that reads it is over on the GPU: its memory would be used anew."""
        if self._stream is None:
            return
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(self.device))
        self._lent.append((done, made))
        while len(self._lent) > 1:
            self._stream.wait_event(self._lent[0][0])
            self._lent.popleft()
