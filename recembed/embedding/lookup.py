"""``Lookups``: everything one step wants to read, gathered in one kernel call per row width.

Axes: ``N`` addresses, ``G`` bags, ``D`` width.
"""

from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from recembed.errors import RecembedError
from recembed.pooling import pool
from recembed.rows import RowStore, decay_lookups
from recembed.rows.sparse_data_dist import Requests, SparseDataDist
from recembed.tables import Table

__all__ = ["Lookups", "Request", "table_vectors"]


@dataclass(slots=True)
class Request:
    """Addresses in the stack of one width, and after ``gather`` what they held.

    Shapes:
        addresses: int64 ``[N]``; offsets: int64 ``[G + 1]`` or None; result: float32 ``[N, D]``, or ``[G, D]`` sums.
    """

    addresses: Tensor
    offsets: Tensor | None
    result: Tensor | None = None

    @property
    def rows(self) -> Tensor:
        """The rows, or the sums of the bags."""
        if self.result is None:
            raise RecembedError("a lookup was read before it was gathered")
        return self.result


class Lookups:
    """Collect requests, then gather them all.

    Args:
        store: Where the rows are.
        decay: Coefficient of the L2 penalty per looked-up row.
    """

    def __init__(self, store: RowStore, decay: float = 0.0) -> None:
        self._store = store
        self._decay = decay
        self._requests: dict[int, list[Request]] = {}
        self._asked: Requests | None = None
        self._begun: SparseDataDist | None = None

    def rows(self, addresses: Tensor, width: int) -> Request:
        """Ask for one row per address."""
        request = Request(addresses, None)
        self._requests.setdefault(width, []).append(request)
        return request

    def sums(self, addresses: Tensor, offsets: Tensor, width: int) -> Request:
        """Ask for the sum of each bag of rows."""
        request = Request(addresses, offsets)
        self._requests.setdefault(width, []).append(request)
        return request

    def start_sparse_data_dist(self) -> None:
        """Begin what ``gather`` will end: no requests may follow."""
        self._asked = self._by_width()
        self._begun = self._store.start_sparse_data_dist(self._asked) if self._asked else None

    def wait_sparse_data_dist(self) -> None:
        """Let the addresses go."""
        if self._begun is not None:
            self._begun.wait()

    def gather(self) -> None:
        """Fill in every request."""
        if torch.compiler.is_exporting():
            for width, requests in self._requests.items():
                for request in requests:
                    request.result = self._store(request.addresses, width, request.offsets)
            return
        asked = self._by_width() if self._asked is None else self._asked
        if not asked:  # methods that read no rows
            return
        for width, rows in self._store.gather(asked, self._begun).items():
            self._hand_out(self._requests[width], rows)

    def forget(self) -> None:
        """Let go of the rows, once they are decoded."""
        for request in chain.from_iterable(self._requests.values()):
            request.result = None

    def _by_width(self) -> Requests:
        return {width: self._together(requests) for width, requests in self._requests.items()}

    def _together(self, requests: list[Request]) -> tuple[Tensor, Tensor | None]:
        """Return all addresses, and the offsets of their bags; decayed rows come one by one, so that each is seen."""
        addresses = torch.cat([request.addresses for request in requests]) if requests[1:] else requests[0].addresses
        if self._decay or all(request.offsets is None for request in requests):
            return addresses, None
        if not requests[1:]:
            return addresses, requests[0].offsets
        starts, first = [], 0
        for request in requests:
            own = request.offsets
            own = torch.arange(len(request.addresses), device=addresses.device) if own is None else own[:-1]
            starts.append(own + first)
            first += len(request.addresses)
        return addresses, torch.cat([*starts, starts[0].new_tensor([first])])

    def _hand_out(self, requests: list[Request], rows: Tensor) -> None:
        if self._decay:
            rows = decay_lookups(rows, self._decay)
        sizes = [
            len(request.addresses) if self._decay or request.offsets is None else len(request.offsets) - 1
            for request in requests
        ]
        for request, part in zip(requests, torch.split(rows, sizes), strict=True):
            bags = request.offsets if self._decay else None
            request.result = part if bags is None else pool(part, bags, "sum")


def table_vectors(table: Table, store: RowStore, ids: Tensor) -> Tensor:
    """Return the vectors of ``ids`` of one table, without gradient.

    Shapes:
        ids: int64 ``[N]``, on the store's device. Returns float32 ``[N, D]``.
    """
    with torch.no_grad():
        addresses = table.address(ids)  # [N, P]
        rows = [store.rows(slot.name)[addresses[:, p]] for p, slot in enumerate(table.slots)]
        return table.decode(rows, ids)
