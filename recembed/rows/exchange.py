"""``RowExchange``: addresses to the processes that hold their rows, rows back, and gradients there again.

Axes: ``U`` unique addresses, ``D`` width, ``W`` processes, ``L`` lanes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from recembed.rows.base import RowStore
from recembed.rows.lanes import Lane
from recembed.rows.process_group import Coming, ProcessGroup

__all__ = ["RowExchange", "Trip"]


@dataclass(slots=True)
class Trip:
    """One lookup on its way.

    Attributes:
        exchange: Who carries it.
        train: Whether gradients will come back.
        places: By width of the stack, where each address stands among the unique ones, int64 ``[N]``.
        unique: By width, how many unique addresses there are.
        carried: For each lane, which unique addresses of its stack it carries, sorted by holder.
        asked: For each lane, these addresses, as their holders count them.
        given: For each lane, how many of them go to each process.
        sizes: How many come from each process, on their way.
        taken: The same for each lane, once it is known.
        addresses: What the other processes ask of this one, on its way.
        looked_up: By width, the rows that the holders (this process among them) looked up, with gradient.
    """

    exchange: "RowExchange"
    train: bool
    places: dict[int, Tensor]
    unique: dict[int, int]
    carried: list[Tensor]
    asked: list[Tensor]
    given: list[list[int]]
    sizes: Coming
    taken: list[list[int]] = field(default_factory=list)
    addresses: "_ComingParts | None" = None
    looked_up: dict[int, Tensor] = field(default_factory=dict)

    def wait(self) -> None:
        """Wait for the sizes and send the addresses, once."""
        if self.addresses is None:
            self.taken = self.sizes.wait().T.tolist()
            self.addresses = self.exchange.send(self.asked, self.given, self.taken)


class RowExchange:
    """Fetches rows of all widths: ``start`` a trip, let its addresses go (``Trip.wait``), ``fetch`` the rows.

    Between the three, other work and other exchanges may take place, in the same order in all processes.

    Args:
        lanes: The ways, the same in every process.
        local: The rows of this process.
        processes: Those that train together.
    """

    def __init__(self, lanes: Sequence[Lane], local: RowStore, processes: ProcessGroup) -> None:
        self.lanes, self.local, self.processes = lanes, local, processes
        self.widths = sorted({lane.width for lane in lanes})
        self._trigger = torch.zeros((), requires_grad=True)  # makes autograd call backward

    def start(self, addresses: Mapping[int, Tensor], *, train: bool) -> Trip:
        """Find out who holds the rows at stack addresses ``[N]``, by width of the stack, and tell them how many."""
        device = next(iter(addresses.values())).device
        unique = {width: torch.unique(own, return_inverse=True) for width, own in addresses.items()}
        none = torch.empty(0, dtype=torch.int64, device=device)
        routes = [lane.route(unique.get(lane.stack, (none,))[0], self.processes.count) for lane in self.lanes]
        given = [sizes for _, _, sizes in routes]
        asked = [own for _, own, _ in routes]
        for place, lane in enumerate(self.lanes):
            if lane.everywhere and train:  # the gradient will go to all, so all look these rows up
                asked[place] = asked[place].repeat(self.processes.count)
            elif lane.everywhere:
                given[place] = self._here(given[place])
        counts = torch.tensor(given, dtype=torch.int64, device=device).T.contiguous()  # [W, L]
        return Trip(
            exchange=self,
            train=train,
            places={width: place for width, (_, place) in unique.items()},
            unique={width: len(own) for width, (own, _) in unique.items()},
            carried=[carried for carried, _, _ in routes],
            asked=asked,
            given=given,
            sizes=self.processes.start_counts(counts),
        )

    def fetch(self, trip: Trip) -> dict[int, Tensor]:
        """Return the rows ``[U, D]`` of the unique addresses, by width of the stack."""
        trip.wait()
        if trip.train:
            rows = _Fetch.apply(self._trigger, self, trip)  # type: ignore[no-untyped-call]
        else:
            rows = self.answer(trip)
        return dict(zip(trip.unique, rows, strict=True))

    def answer(self, trip: Trip) -> tuple[Tensor, ...]:
        """Look up what all processes ask of this one, and take what this one asked for."""
        assert trip.addresses is not None
        trip.looked_up = self._look_up(trip.addresses.wait(), train=trip.train)
        return self._bring_back(trip)

    def give(self, trip: Trip, gradients: Mapping[int, Tensor]) -> None:
        """Bring the gradients of the rows of a trip to their holders, and move the rows there."""
        parts = []
        for lane, carried in zip(self.lanes, trip.carried, strict=True):
            whole = gradients.get(lane.stack)
            part = (
                self._columns(whole, lane)[carried]
                if whole is not None
                else lane.shifts.new_zeros(0, lane.width, dtype=torch.float32)
            )
            part = part * self.processes.share
            parts.append(part.repeat(self.processes.count, 1) if lane.everywhere else part)
        received = self.send(parts, trip.given, trip.taken).wait()
        for width, rows in trip.looked_up.items():
            own = [part for lane, part in zip(self.lanes, received, strict=True) if lane.width == width]
            if len(rows):
                rows.backward(torch.cat(own))  # type: ignore[no-untyped-call]
        trip.looked_up.clear()

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

    def _bring_back(self, trip: Trip) -> tuple[Tensor, ...]:
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
        received = self.send(answers, given, taken).wait()
        device = trip.carried[0].device
        fetched = {width: torch.zeros(length, width, device=device) for width, length in trip.unique.items()}
        for lane, carried, part in zip(self.lanes, trip.carried, received, strict=True):
            if lane.stack in fetched:
                self._columns(fetched[lane.stack], lane)[carried] = part
        return tuple(fetched.values())

    def send(self, parts: list[Tensor], given: list[list[int]], taken: list[list[int]]) -> "_ComingParts":
        """Send every lane's numbers in one exchange: ``parts`` are sorted by process, and so is what comes back."""
        ranks = range(self.processes.count)
        wide = [part.shape[1] if part.ndim == 2 else 1 for part in parts]
        out, back = ([[n * w for n in sizes] for sizes, w in zip(all_, wide, strict=True)] for all_ in (given, taken))
        cut = [torch.split(part.reshape(-1), sizes) for part, sizes in zip(parts, out, strict=True)]
        packed = torch.cat([pieces[rank] for rank in ranks for pieces in cut])
        coming = self.processes.start_exchange(
            packed, [sum(n) for n in zip(*out, strict=True)], [sum(n) for n in zip(*back, strict=True)]
        )
        return _ComingParts(coming, back, [part.shape[1:] for part in parts])


@dataclass(slots=True)
class _ComingParts:
    """Every lane's numbers on their way in one exchange.

    Attributes:
        whole: All of them.
        sizes: For each lane, how many come from each process.
        shapes: For each lane, the shape of one row.
    """

    whole: Coming
    sizes: list[list[int]]
    shapes: list[torch.Size]

    def wait(self) -> list[Tensor]:
        """Return the numbers of each lane, sorted by process."""
        by_process = list(zip(*self.sizes, strict=True))
        pieces = iter(torch.split(self.whole.wait(), [size for sizes in by_process for size in sizes]))
        lanes = list(zip(*([next(pieces) for _ in sizes] for sizes in by_process), strict=True))
        return [torch.cat(own).view(-1, *shape) for own, shape in zip(lanes, self.shapes, strict=True)]


class _Fetch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, trigger: Tensor, exchange: RowExchange, trip: Trip) -> tuple[Tensor, ...]:
        ctx.exchange, ctx.trip = exchange, trip
        return exchange.answer(trip)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, ...]:
        ctx.exchange.give(ctx.trip, dict(zip(ctx.trip.unique, gradients, strict=True)))
        return None, None, None
