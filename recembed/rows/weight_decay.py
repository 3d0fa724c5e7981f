"""Weight decay that reaches every row, paid in turn: one window of rows a step, never the whole table.

``torch.optim.Adam(weight_decay=w)`` adds ``w * row`` to the gradient of every row in every step, looked up or not, so
that rare rows shrink as often as frequent ones. Here a step visits a window of rows and pays for all the steps since
their last turn, which is the same up to what happened in between. The L2 penalty of ``embeddings.l2`` is another thing: it
counts per look-up, and so weighs on frequent rows most.
"""

from collections.abc import Iterator, Mapping

import torch

from recembed.rows.base import RowStore
from recembed.rows.row_table import RowTable

__all__ = ["decay_rows", "windows"]


def windows(tables: Mapping[str, RowTable], step: int, window: int) -> Iterator[tuple[str, int, int]]:
    """Yield which rows step number ``step`` visits, as table name, first row and the row after the last.

    >>> tables = {"item": RowTable("item", 5, 4), "user": RowTable("user", 3, 4)}
    >>> [list(windows(tables, step, window=4)) for step in range(3)]
    [[('item', 0, 4)], [('item', 4, 5), ('user', 0, 3)], [('item', 0, 4)]]
    """
    begin = step % _turns(tables, window) * window
    for name, table in tables.items():
        first, last = max(begin, 0), min(begin + window, table.num_embeddings)
        if first < last:
            yield name, first, last
        begin -= table.num_embeddings


def _turns(tables: Mapping[str, RowTable], window: int) -> int:
    return -(-sum(table.num_embeddings for table in tables.values()) // window)


@torch.no_grad()
def decay_rows(store: RowStore, step: int, window: int) -> None:
    """Shrink the rows whose turn it is by the row rule's step along ``weight_decay * row``; states stay as they are.

    Rows that no step has moved yet keep their start, under the rules that can tell. The windows go by the
    rows of whole tables, so that any number of processes shrinks the same ones.

    Args:
        store: Its rows.
        step: Number of the step.
        window: Rows to visit; the same in all steps. With as many as a batch looks up the work grows with the batch.
    """
    rule = store.optimizer
    if rule is None or not rule.weight_decay or rule.moves_every_row:
        return
    owed = rule.weight_decay * store.learning_rate * _turns(store.tables, window)
    for name, first, last in windows(store.tables, step, window):
        for start, rows, states in store.live(name):
            here = slice(max(first - start, 0), max(last - start, 0))
            shrink = rule.step_size({state: values[here] for state, values in states.items()}) * owed
            rows[here].mul_(1 - torch.as_tensor(shrink).clamp(max=1))
