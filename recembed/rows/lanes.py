"""``Lane``: the way of a stack's addresses to the processes that hold their rows.

Axes: ``N`` addresses, ``S`` segments (tables side by side in the stack, cut where their holder changes).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from recembed.rows.row_table import RowTable
from recembed.rows.sharding_plan import ShardingPlan

__all__ = ["Lane", "local_order", "make_lanes"]

_NOBODY = -1


@dataclass(frozen=True, slots=True)
class Lane:
    """Rows of ``width`` numbers that go to columns ``column .. column + width`` of the stack's rows.

    Attributes:
        stack: Width of the stack.
        width, column: The columns.
        everywhere: All processes hold these rows: the lookup stays here, the gradient goes to all.
        ends: int64 ``[S]``, where each segment ends in the stack.
        holders: int64 ``[S]``, the process of each segment, or -1 where the lane has no rows.
        shifts: int64 ``[S]``, what turns an address of the stack into one of the holder's own stack.
    """

    stack: int
    width: int
    column: int
    everywhere: bool
    ends: Tensor
    holders: Tensor
    shifts: Tensor

    def route(self, addresses: Tensor, count: int) -> tuple[Tensor, Tensor, list[int]]:
        """Return which of the addresses ``[N]`` go where: places in ``addresses``, own addresses of the holders, sizes.

        They are sorted by holder; where all hold them, they are meant for each.
        """
        segments = torch.searchsorted(self.ends, addresses, right=True)  # [N]
        holders = self.holders[segments]
        if self.everywhere:
            places = (holders != _NOBODY).nonzero().squeeze(1)
            return places, addresses[places] + self.shifts[segments[places]], [len(places)] * count
        order = holders.argsort(stable=True)
        sizes = torch.bincount(holders + 1, minlength=count + 1).tolist()
        places = order[sizes[0] :]
        return places, addresses[places] + self.shifts[segments[places]], sizes[1:]


def make_lanes(
    tables: Mapping[str, RowTable], first_row: Mapping[str, int], plan: ShardingPlan, device: torch.device
) -> list[Lane]:
    """Return the lanes of all widths in rising order, the same in every process."""
    starts = _local_starts(tables, plan)
    lanes: dict[tuple[int, int, int, bool], dict[int, tuple[int, int, int]]] = {}
    for name, table in tables.items():
        for shard in plan.shards(table):
            key = (table.embedding_dim, len(shard.columns), shard.columns.start, shard.copy)
            start = first_row[name] + shard.rows.start
            own = starts[shard.rank, shard.table(table).name]
            lanes.setdefault(key, {}).setdefault(start, (start + len(shard.rows), shard.rank, own - start))
    made = [_lane(key, segments, device) for key, segments in lanes.items()]
    return sorted(made, key=lambda lane: (lane.width, lane.stack, lane.column, lane.everywhere))


def _local_starts(tables: Mapping[str, RowTable], plan: ShardingPlan) -> dict[tuple[int, str], int]:
    """Return where each part lies in the stack of its width on its process: copies first, so that they lie alike."""
    starts: dict[tuple[int, str], int] = {}
    used: dict[tuple[int, int], int] = {}
    for part, rank in local_order(tables, plan):
        place = (rank, part.embedding_dim)
        starts[rank, part.name] = used.get(place, 0)
        used[place] = starts[rank, part.name] + part.num_embeddings
    return starts


def local_order(tables: Mapping[str, RowTable], plan: ShardingPlan) -> list[tuple[RowTable, int]]:
    """Return all parts with their processes, in the order in which these stack them."""
    shards = [(shard, table) for table in tables.values() for shard in plan.shards(table)]
    shards.sort(key=lambda pair: not pair[0].copy)
    return [(shard.table(table), shard.rank) for shard, table in shards]


def _lane(key: tuple[int, int, int, bool], segments: Mapping[int, tuple[int, int, int]], device: torch.device) -> Lane:
    stack, width, column, everywhere = key
    ends, holders, shifts = list[int](), list[int](), list[int]()
    last = 0
    for start in sorted(segments):
        end, rank, shift = segments[start]
        if start > last:
            ends, holders, shifts = [*ends, start], [*holders, _NOBODY], [*shifts, 0]
        ends, holders, shifts, last = [*ends, end], [*holders, rank], [*shifts, shift], end
    ends, holders, shifts = [*ends, 2**62], [*holders, _NOBODY], [*shifts, 0]
    numbers = (torch.tensor(values, dtype=torch.int64, device=device) for values in (ends, holders, shifts))
    return Lane(stack, width, column, everywhere, *numbers)
