"""A model's tensors as they lie in this process: dense ones whole, but for those cut by rows, and rows in parts."""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from recembed.rows import Piece, Processes, RowStore
from recembed.rows.piece import is_part

__all__ = ["processes_of", "row_states", "state_pieces", "state_places", "weight_pieces", "weights"]


def processes_of(model: nn.Module) -> Processes:
    """Return the processes that train ``model`` together: those of its row stores."""
    return next((store.processes for _, store in _stores(model)), Processes())


def weight_pieces(model: nn.Module) -> dict[str, Piece]:
    """Return the live dense parameters, buffers and rows, by their names in ``model.state_dict()``."""
    stores = [f"{place}." if place else "" for place, _ in _stores(model)]
    first = processes_of(model).rank == 0
    dense: dict[str, Tensor] = {}
    for place, module in model.named_modules(remove_duplicate=False):
        prefix = f"{place}." if place else ""
        if not any(prefix.startswith(store) for store in stores):
            module._save_to_state_dict(dense, prefix, keep_vars=True)
    pieces = {name: Piece.of(values, saved=first) for name, values in dense.items()}
    return pieces | {name: piece for name, piece in _rows(model) if name.endswith(".weight")}


def state_pieces(model: nn.Module) -> dict[str, Piece]:
    """Return the live optimiser states of all rows, by their names in ``model.state_dict()``."""
    return {name: piece for name, piece in _rows(model) if not name.endswith(".weight")}


def state_places(model: nn.Module, shapes: Mapping[str, Sequence[int]]) -> dict[str, Piece]:
    """Return, for states of a dense optimiser by name, the parameters held in part that they lie like; none of numbers."""
    parts = {name: Piece.of(parameter) for name, parameter in model.named_parameters() if is_part(parameter)}
    named = ((name, name.split("/", 2)[-1]) for name, shape in shapes.items() if shape)
    return {name: parts[parameter] for name, parameter in named if parameter in parts}


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Return what ``weight_pieces`` does, without the places."""
    return {name: piece.values for name, piece in weight_pieces(model).items()}


def row_states(model: nn.Module) -> dict[str, Tensor]:
    """Return what ``state_pieces`` does, without the places."""
    return {name: piece.values for name, piece in state_pieces(model).items()}


def _stores(model: nn.Module) -> Iterator[tuple[str, RowStore]]:
    return ((place, module) for place, module in model.named_modules() if isinstance(module, RowStore))


def _rows(model: nn.Module) -> Iterator[tuple[str, Piece]]:
    for place, store in _stores(model):
        for name, piece in store.named_pieces():
            yield (f"{place}.{name}" if place else name), piece
