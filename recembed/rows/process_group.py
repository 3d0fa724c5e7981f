"""``ProcessGroup``: the processes of ``torch.distributed`` that train together; a silent one is named, not waited for.

Axes: ``N`` values of this process, ``A`` values of all, ``W`` processes, ``L`` lanes.
"""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from recembed.errors import TrainingError
from recembed.rows.heartbeat import Notes, beating, wait_while_it_beats
from recembed.rows.processes import Processes

__all__ = ["Coming", "ProcessGroup"]

_ANSWER_SECONDS = 10.0
_BEAT_SECONDS = 5.0
_PATIENCE = timedelta(days=7)
_Answer = TypeVar("_Answer")


class ProcessGroup(Processes):
    """The processes of the default group, over gloo for what lies in memory and NCCL for what lies on GPUs.

    Args:
        timeout: Seconds that a process waits for the others before it gives up.
        store: Where the processes can leave each other notes beside the collectives, as ``torch.distributed`` was
            started with; None names nobody.
        group: The group of ``torch.distributed``; None is the default one.

    Raises:
        TrainingError: in any method, when a process does not answer; names those that are silent.
    """

    def __init__(
        self, timeout: float = 600.0, store: Notes | None = None, group: dist.ProcessGroup | None = None
    ) -> None:
        super().__init__()
        self._group, self._patient = group, None
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self.timeout, self._notes, self._calls, self._works = timeout, store, 0, 0
        if store is not None:
            store.set(f"recembed/host/{self.rank}", socket.gethostname())

    @classmethod
    def start(cls, store: Any, rank: int, count: int, backend: str = "gloo", timeout: float = 600.0) -> "ProcessGroup":
        """Start ``torch.distributed`` and return its processes."""
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=timedelta(seconds=timeout))
        return cls(timeout, store)

    def start_exchange(self, values: Tensor, given: Sequence[int], taken: Sequence[int]) -> "Coming":
        """Begin to send ``given[r]`` of the values to each process ``r``; what comes are the ``taken[r]`` that each sent."""
        received = values.new_empty(sum(taken), *values.shape[1:])
        return self._start("an exchange of rows", received, values.contiguous(), list(taken), list(given))

    def start_counts(self, counts: Tensor) -> "Coming":
        """Begin to send row ``r`` of ``counts``, int64 ``[W, L]``, to process ``r``; what comes is what each sent, alike."""
        return self._start("the sizes of a lookup", torch.empty_like(counts), counts.contiguous(), None, None)

    def _start(
        self, what: str, received: Tensor, values: Tensor, taken: list[int] | None, given: list[int] | None
    ) -> "Coming":
        with self._named(what):
            work = dist.all_to_all_single(received, values, taken, given, group=self._group, async_op=True)
        return Coming(received, values, lambda: self._wait(what, work))

    def _wait(self, what: str, work: Any) -> None:
        with self._named(what):
            work.wait()

    def gather(self, values: Tensor) -> Tensor:
        """Return the values of all processes one after the other."""
        values = values.detach().contiguous()
        sizes = self._sizes(len(values))
        padded = values.new_zeros(max(sizes), *values.shape[1:])
        padded[: len(values)] = values
        parts = [torch.empty_like(padded) for _ in sizes]
        with self._named("a gather"):
            dist.all_gather(parts, padded, group=self._group)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes; backward adds up the gradients of all, each by its share."""
        summed: Tensor = _Sum.apply(values, self)  # type: ignore[no-untyped-call]
        return summed

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, without gradient."""
        summed = values.detach().clone()
        with self._named("a sum"):
            dist.all_reduce(summed, group=self._group)
        return summed

    def span(self, size: int) -> tuple[int, int]:
        """Return where ``size`` values of this process begin among those of all, and how many these are."""
        sizes = self._sizes(size)
        return sum(sizes[: self.rank]), sum(sizes)

    def broadcast(self, values: Tensor, rank: int) -> None:
        """Fill contiguous ``values`` with those of process ``rank``."""
        with self._named(f"rows of rank {rank}"):
            dist.broadcast(values, rank, group=self._group)

    def tell(self, word: Any) -> list[Any]:
        """Return what each process said."""
        words: list[Any] = [None] * self.count
        with self._named("a word of each process"):
            dist.all_gather_object(words, word, group=self._group)
        return words

    def agree(self, what: str, word: Any) -> None:
        """Refuse to go on where the processes differ.

        Raises:
            TrainingError: names what differs, and what each process has.
        """
        words = self.tell(word)
        if any(other != words[0] for other in words):
            shown = ", ".join(f"rank {rank}: {other}" for rank, other in enumerate(words))
            raise TrainingError(
                f"the processes differ in {what} ({shown}); start all of them with the same config and data"
            )

    def first_does(self, work: Callable[[], _Answer]) -> _Answer:
        """Let rank 0 do ``work`` and return its answer; the others wait as long as it gives signs of life.

        Raises:
            TrainingError: rank 0 could not do it (its own error says why), or fell silent.
        """
        answer, fault = None, None
        with self._in_turn():
            if self.rank == 0:
                try:
                    answer = work()
                except BaseException as error:
                    fault = error
        words = [(answer, f"{fault}" if fault else None)]
        with self._named("the work of rank 0"):
            dist.broadcast_object_list(words, 0, group=self._patient or self._group)
        if fault is not None:
            raise fault
        answer, said = words[0]
        if said is not None:
            raise TrainingError(f"rank 0 stopped: {said}")
        return answer  # type: ignore[return-value]

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Hold the other ranks back until rank 0 has left; without notes the collective after it must be patient."""
        self._works += 1
        key = f"recembed/alone/{self._works}"
        if self._notes is None:
            self._patient = self._patient or dist.new_group(backend="gloo", timeout=_PATIENCE)
            yield
        elif self.rank == 0:
            with beating(self._notes, key, min(_BEAT_SECONDS, self.timeout / 4)):
                yield
        else:
            yield
            with self._named("the work of rank 0"):
                host = self._notes.get("recembed/host/0").decode()
                wait_while_it_beats(self._notes, key, self.timeout, f"rank 0 ({host})")

    def beside(self) -> Self:
        """Return the same processes over connections of their own."""
        return type(self)(self.timeout, self._notes, dist.new_group(backend="gloo", timeout=_PATIENCE))

    def _sizes(self, size: int) -> list[int]:
        sizes = torch.zeros(self.count, dtype=torch.int64)  # in memory, over gloo: they are wanted there
        sizes[self.rank] = size
        return [int(one) for one in self.total(sizes).tolist()]

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        self._calls += 1
        try:
            yield
        except TimeoutError as error:
            raise TrainingError(f"rank {self.rank} waited in vain for {what}: {error}; look at its log") from error
        except RuntimeError as error:
            raise TrainingError(f"rank {self.rank} waited in vain for {what}: {self._silent()}") from error

    def _silent(self) -> str:
        """Return which processes do not leave a note that they are waiting too."""
        if self._notes is None:
            return f"another process is gone or stuck for more than {self.timeout:g} seconds; look at the other logs"
        try:
            self._notes.set(f"recembed/waiting/{self.rank}", str(self._calls))
            silent = self._without_note()
            hosts = [f"rank {rank} ({self._notes.get(f'recembed/host/{rank}').decode()})" for rank in silent]
        except RuntimeError:
            return "the process that keeps the notes of all (rank 0, or torchrun's agent) is gone; look at its log"
        if not hosts:
            return "a connection broke, and all processes noticed; look at the network"
        return f"{', '.join(hosts)} is gone, or stuck for more than {self.timeout:g} seconds; look at its log"

    def _without_note(self) -> list[int]:
        assert self._notes is not None
        end = time.monotonic() + _ANSWER_SECONDS
        while True:
            silent = [rank for rank in range(self.count) if not self._notes.check([f"recembed/waiting/{rank}"])]
            if not silent or time.monotonic() > end:
                return silent
            time.sleep(0.1)


@dataclass(slots=True)
class Coming:
    """Values on their way from the other processes, beside those on their way to them."""

    received: Tensor
    sent: Tensor  # held until it is there
    arrive: Callable[[], None]

    def wait(self) -> Tensor:
        """Return the values, once they are there; on a GPU the stream waits for them, and not the program."""
        self.arrive()
        return self.received


class _Sum(torch.autograd.Function):
    """Gradients are of each process's own loss; they count by its share, and the store applies this process's again."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, processes: ProcessGroup) -> Tensor:
        ctx.processes = processes
        return processes.total(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        share = ctx.processes.share
        return ctx.processes.total(gradient * share) / share, None
