"""Where a NaN or an infinity began: in the batch, in a table's rows, in a parameter, or in a layer.

Axes: ``B`` rows, ``W`` numeric columns, ``L`` labels, ``R`` rows of a table.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from recembed.batch import Batch
from recembed.rows import Piece, RowStore
from recembed.schema.feature import Schema
from recembed.training.pieces import processes_of

__all__ = ["find_nonfinite"]

_ROWS_AT_ONCE = 1 << 18
_DENSE_FIX = "lower training.dense_optimizer.learning_rate or set training.clip_norm"
_ROWS_FIX = "lower embeddings.row_optimizer.learning_rate"


@torch.no_grad()
def find_nonfinite(model: nn.Module, batch: Batch, forward: Callable[[], object]) -> str:
    """Return in words where a value that is not finite began, and what helps.

    All processes that train the model call it, each with its own batch.

    Args:
        model: The model.
        batch: What it was given; NaN in ``numeric`` means missing and is the model's business, infinity is not.
        forward: Repeats the computation on that batch.
    """
    processes = processes_of(model)
    looks: tuple[Callable[[], str | None], ...] = (
        partial(_in_batch, model, batch),
        partial(_in_rows, model),
        partial(_in_parameters, model),
        partial(_in_layers, model, batch, forward),
    )
    for look in looks:
        for rank, found in enumerate(processes.tell(look())):
            if found is not None:
                return f"{found} (on rank {rank})" if processes.count > 1 else str(found)
    return "the loss itself: every layer gives finite numbers for this batch; look at the objective"


def _in_batch(model: nn.Module, batch: Batch) -> str | None:
    bad = torch.isinf(batch.numeric).any(0)  # [W]
    if bad.any():
        name = _numeric_name(model, int(bad.nonzero()[0]))
        return f"the data: {name} is infinite; clean the column"
    bad = ~torch.isfinite(batch.labels).all(0)  # [L]
    if bad.any():
        return f"the data: label column {int(bad.nonzero()[0])} is not finite; clean the labels"
    return None


def _numeric_name(model: nn.Module, column: int) -> str:
    schemas = (getattr(module, "schema", None) for module in model.modules())
    schema = next((schema for schema in schemas if isinstance(schema, Schema)), None)
    end = 0
    for feature in schema.numeric if schema else ():
        end += feature.width
        if column < end:
            return f"numeric feature {feature.name!r}"
    return f"numeric column {column}"


def _in_rows(model: nn.Module) -> str | None:
    stores = [module for module in model.modules() if isinstance(module, RowStore)]
    pieces = [named for store in stores for named in store.named_pieces()]
    for name, piece in sorted(pieces, key=lambda named: not named[0].endswith(".weight")):
        first, count = _bad_rows(piece.values)
        if count:
            more = f" and {count - 1} more" if count > 1 else ""
            return f"table {_table_name(name)!r}: row {_first_row(piece) + first}{more}; {_ROWS_FIX}"
    return None


def _first_row(piece: Piece) -> int:
    return piece.start[0] if piece.start else 0


def _table_name(name: str) -> str:
    table, _, state = name.rpartition(".")
    return table if state == "weight" else f"{table} ({state})"


def _bad_rows(rows: Tensor) -> tuple[int, int]:
    first, count = -1, 0
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        bad = (~torch.isfinite(rows[start : start + _ROWS_AT_ONCE]).reshape(-1, rows[:1].numel()).all(1)).nonzero()
        if len(bad) and first < 0:
            first = start + int(bad[0])
        count += len(bad)
    return first, count


def _in_parameters(model: nn.Module) -> str | None:
    for kind, named in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, values in named:
            if values.is_floating_point() and not torch.isfinite(values).all():
                return f"{kind} {name!r}, spoilt by an earlier step; {_DENSE_FIX}"
    return None


def _in_layers(model: nn.Module, batch: Batch, forward: Callable[[], object]) -> str | None:
    """Run the model once more; layers are heard in the order in which they finish, so inner ones come first."""
    found: list[str] = []
    missing = torch.isnan(batch.numeric).sum(0)  # [W]

    def listen(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            if found or all(torch.isfinite(tensor).all() for tensor in _tensors(output)):
                return
            inputs = [tensor for tensor in _tensors(given) if tensor.numel()]
            whole = all(torch.isfinite(tensor).all() for tensor in inputs)
            largest = max((float(tensor.abs().max()) for tensor in inputs), default=0.0)
            about = f"largest input {largest:.3g}" if whole else "its input is not finite already"
            found.append(f"layer {name!r} ({type(module).__name__}, {about}); {_DENSE_FIX}")

        return hook

    names = ((name or "model", module) for name, module in model.named_modules())
    handles = [module.register_forward_hook(listen(name)) for name, module in names]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    if found and missing.any():
        column = int(missing.argmax())
        found[0] += f" ({_numeric_name(model, column)} is NaN, that is missing, in {int(missing[column])} rows)"
    return found[0] if found else None


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors in ``value``: a tensor, a container or a record."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)
    elif is_dataclass(value) and not isinstance(value, type):
        for entry in fields(value):
            yield from _tensors(getattr(value, entry.name))
