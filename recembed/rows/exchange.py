"""``RowExchange``: addresses to the processes that hold their rows, rows back, and gradients there again.

Axes: ``U`` unique addresses, ``D`` width, ``W`` processes, ``L`` lanes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recembed.rows.base import RowStore
from recembed.rows.lanes import Lane
from recembed.rows.process_group import ProcessGroup

__all__ = ["RowExchange"]


@dataclass(slots=True)
class _Trip:
    """One lookup on its way.

    Attributes:
        places: For each lane, which unique addresses of its stack it carries, sorted by holder.
        given, taken: For each lane, how many addresses go to and come from each process.
        looked_up: By width, the rows that the holders (this process among them) looked up, with gradient.
    """

    places: list[Tensor]
    given: list[list[int]]
    taken: list[list[int]]
    looked_up: dict[int, Tensor]


class RowExchange:
    """Fetches rows of all widths.

    Args:
        lanes: The ways, the same in every process.
        local: The rows of this process.
        processes: Those that train together.
    """

    def __init__(self, lanes: Sequence[Lane], local: RowStore, processes: ProcessGroup) -> None:
        self.lanes, self.local, self.processes = lanes, local, processes
        self.widths = sorted({lane.width for lane in lanes})
        self._trigger = torch.zeros((), requires_grad=True)  # makes autograd call backward

    def __call__(self, addresses: Mapping[int, Tensor], *, train: bool) -> dict[int, Tensor]:
        """Return the rows ``[U, D]`` of unique stack addresses ``[U]``, by width of the stack."""
        widths = list(addresses)
        if not train:
            with torch.no_grad():
                return dict(zip(widths, self.fetch(addresses, train=False)[1], strict=True))
        rows = _Fetch.apply(self._trigger, self, widths, *addresses.values())  # type: ignore[no-untyped-call]
        return dict(zip(widths, rows, strict=True))

    def fetch(self, addresses: Mapping[int, Tensor], *, train: bool) -> tuple[_Trip, tuple[Tensor, ...]]:
        """Look up the rows; see ``__call__``."""
        device = next(iter(addresses.values())).device
        empty = torch.empty(0, dtype=torch.int64, device=device)
        routes = [lane.route(addresses.get(lane.stack, empty), self.processes.count) for lane in self.lanes]
        given = [sizes for _, _, sizes in routes]
        asked = [own for _, own, _ in routes]
        for place, lane in enumerate(self.lanes):
            if lane.everywhere and train:  # the gradient will go to all, so all look these rows up
                asked[place] = asked[place].repeat(self.processes.count)
            elif lane.everywhere:
                given[place] = self._here(given[place])
        counts = torch.tensor(given, dtype=torch.int64, device=device).T.contiguous()  # [W, L]
        taken = self.processes.exchange_counts(counts).T.tolist()
        received = self._send(asked, given, taken)
        looked_up = self._look_up(received, train=train)
        trip = _Trip([places for places, _, _ in routes], given, taken, looked_up)
        return trip, self._bring_back(trip, addresses)

    def give(self, trip: _Trip, gradients: Mapping[int, Tensor]) -> None:
        """Bring the gradients of the rows of a trip to their holders, and move the rows there."""
        parts = []
        for lane, places in zip(self.lanes, trip.places, strict=True):
            whole = gradients.get(lane.stack)
            part = (
                self._columns(whole, lane)[places]
                if whole is not None
                else lane.shifts.new_zeros(0, lane.width, dtype=torch.float32)
            )
            part = part * self.processes.share
            parts.append(part.repeat(self.processes.count, 1) if lane.everywhere else part)
        received = self._send(parts, trip.given, trip.taken)
        for width, rows in trip.looked_up.items():
            own = [part for lane, part in zip(self.lanes, received, strict=True) if lane.width == width]
            if len(rows):
                rows.backward(torch.cat(own))  # type: ignore[no-untyped-call]

    def _here(self, sizes: list[int]) -> list[int]:
        return [size if rank == self.processes.rank else 0 for rank, size in enumerate(sizes)]

    @staticmethod
    def _columns(rows: Tensor, lane: Lane) -> Tensor:
        return rows[:, lane.column : lane.column + lane.width]

    def _look_up(self, received: list[Tensor], *, train: bool) -> dict[int, Tensor]:
        found = {}
        with torch.set_grad_enabled(train):
            for width in self.widths:
                own = [part for lane, part in zip(self.lanes, received, strict=True) if lane.width == width]
                asked = torch.cat(own)
                found[width] = self.local(asked, width) if len(asked) else torch.empty(0, width, device=asked.device)
        return found

    def _bring_back(self, trip: _Trip, addresses: Mapping[int, Tensor]) -> tuple[Tensor, ...]:
        """Send the looked-up rows to those that asked, and lay them in the order of the unique addresses."""
        rows: list[Tensor] = []
        for width in self.widths:
            sizes = [sum(taken) for lane, taken in zip(self.lanes, trip.taken, strict=True) if lane.width == width]
            rows += torch.split(trip.looked_up[width].detach(), sizes)  # lanes are sorted by width
        answers, given, taken = [], [], []
        for lane, own, out, back in zip(self.lanes, rows, trip.taken, trip.given, strict=True):
            start = sum(out[: self.processes.rank])
            here = own[start : start + out[self.processes.rank]]
            answers.append(here if lane.everywhere else own)
            given.append(self._here(out) if lane.everywhere else out)
            taken.append(self._here(back) if lane.everywhere else back)
        received = self._send(answers, given, taken)
        fetched = {width: torch.zeros(len(own), width, device=own.device) for width, own in addresses.items()}
        for lane, places, part in zip(self.lanes, trip.places, received, strict=True):
            if lane.stack in fetched:
                self._columns(fetched[lane.stack], lane)[places] = part
        return tuple(fetched.values())

    def _send(self, parts: list[Tensor], given: list[list[int]], taken: list[list[int]]) -> list[Tensor]:
        """Send every lane's numbers in one exchange: ``parts`` are sorted by process, and so is what comes back."""
        ranks = range(self.processes.count)
        wide = [part.shape[1] if part.ndim == 2 else 1 for part in parts]
        out, back = ([[n * w for n in sizes] for sizes, w in zip(all_, wide, strict=True)] for all_ in (given, taken))
        cut = [torch.split(part.reshape(-1), sizes) for part, sizes in zip(parts, out, strict=True)]
        packed = torch.cat([pieces[rank] for rank in ranks for pieces in cut])
        received = self.processes.exchange(
            packed, [sum(n) for n in zip(*out, strict=True)], [sum(n) for n in zip(*back, strict=True)]
        )
        pieces = iter(torch.split(received, [sizes[rank] for rank in ranks for sizes in back]))
        by_rank = [[next(pieces) for _ in parts] for _ in ranks]
        return [torch.cat([own[lane] for own in by_rank]).view(-1, *part.shape[1:]) for lane, part in enumerate(parts)]


class _Fetch(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, trigger: Tensor, exchange: RowExchange, widths: list[int], *addresses: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.exchange, ctx.widths = exchange, widths
        ctx.trip, rows = exchange.fetch(dict(zip(widths, addresses, strict=True)), train=True)
        return rows

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, ...]:
        ctx.exchange.give(ctx.trip, dict(zip(ctx.widths, gradients, strict=True)))
        return (None,) * (3 + len(gradients))
