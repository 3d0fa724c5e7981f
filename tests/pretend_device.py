"""A device that is only pretended: its tensors lie in memory, but tensors of two devices may not meet, as with a GPU.

Finds what was built on the CPU by mistake on a machine without a GPU. Kernels are those of the CPU, so nothing is learned about
theirs. Import it in a process of its own: torch knows one such device, and for good.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("pretended")
DEVICE = torch.device("pretended:0")
_COPIES = ("aten::_to_copy", "aten::copy_", "aten::set_")
_INDEXED = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")


class There(Tensor):
    """A tensor on ``DEVICE`` around one in memory."""

    held: Tensor

    @staticmethod
    def __new__(cls: type["There"], real: Tensor) -> "There":
        strides = real.stride()
        there = Tensor._make_wrapper_subclass(cls, real.shape, strides=strides, dtype=real.dtype, device=DEVICE)
        there.held = real
        return there  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})

    def tolist(self) -> Any:
        return self.held.tolist()

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"There({self.held})"


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


@contextmanager
def pretending() -> Iterator[None]:
    """Let factories make tensors on ``DEVICE``."""
    torch._C._set_only_lift_cpu_tensors(True)  # ``torch.tensor`` makes one in memory, and copies it by ``to``
    try:
        with _Mode():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(False)


def _run(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    given = list(tree_iter((args, kwargs)))
    there = [value for value in given if isinstance(value, There)]
    devices = [value for value in given if isinstance(value, torch.device)]
    name = function._schema.name  # type: ignore[attr-defined]
    _refuse_mixed(name, args, given if there and name not in _COPIES else [])
    own = {id(value.held): value for value in there}

    def wrap(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return own[id(value)] if id(value) in own else There(value)

    out = function(*tree_map(_real, args), **tree_map(_real, kwargs))
    if name == "aten::copy_":
        return args[0]
    on_device = devices[0].type == DEVICE.type if devices else bool(there)
    return tree_map(wrap, out) if on_device else out


def _real(value: Any) -> Any:
    if isinstance(value, There):
        return value.held
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == DEVICE.type else value


def _refuse_mixed(name: str, args: Any, given: list[Any]) -> None:
    places = [id(value) for value in tree_iter(args[1])] if given and name in _INDEXED else []
    for value in given:
        if isinstance(value, Tensor) and not isinstance(value, There) and value.ndim and id(value) not in places:
            raise RuntimeError(f"{name}: expected all tensors on {DEVICE}, found {list(value.shape)} on {value.device}")
