"""Rows in FBGEMM's fused kernels: lookup, gradient and row update in one call per width.

The only file that imports ``fbgemm_gpu``. Rows need no ``torchrec``, which brings PyTorch's compiler along, some 70 MB and 2
seconds a process: ``torchrec_tables`` and ``torchrec_planner`` load it for its own forms of tables and plans.
Axes: ``N`` addresses, ``G`` bags, ``D`` width, ``R`` rows of a stack.
"""

import math
from typing import Any

import torch
from torch import Tensor

from recembed.errors import ConfigError, MissingPackageError
from recembed.rows.base import RowStore
from recembed.rows.huge_pages import on_huge_pages
from recembed.rows.optimizers import SGD, Adagrad, RowOptimizer, RowWiseAdagrad
from recembed.rows.quiet import quiet
from recembed.rows.width_one import hold_width_one

__all__ = ["TorchRecStore"]

_LANES = 4  # FBGEMM rows are multiples of four numbers, but for those of one number on CPU
_WIDEST = 16_384  # beyond it FBGEMM's CPU kernel crashes the process


try:
    with quiet():
        from fbgemm_gpu.split_embedding_configs import EmbOptimType, SparseType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )
except (ImportError, OSError) as error:
    raise MissingPackageError(
        f"row store 'torchrec' needs fbgemm that fits this torch ({error}): "
        "run 'recembed doctor' for the line that installs them, or set row_store to 'torch'"
    ) from error

_RULES: dict[type[RowOptimizer], tuple[EmbOptimType, str | None]] = {
    SGD: (EmbOptimType.EXACT_SGD, None),
    Adagrad: (EmbOptimType.EXACT_ADAGRAD, "sum"),
    RowWiseAdagrad: (EmbOptimType.EXACT_ROWWISE_ADAGRAD, "sum"),
}


class TorchRecStore(RowStore):
    """Row store ``torchrec``: one FBGEMM table-batched embedding per width, the row rule fused into its backward.

    Widths that are no multiple of four are padded in memory (FBGEMM's lanes), but for width 1 on CPU; rows, states and
    results keep the asked-for width, and row-wise Adagrad divides by it.

    Attributes:
        cached: Whether rows lie in the host's memory, cached on the GPU; see ``rows.uvm``.

    Raises:
        ConfigError: the row rule is not among FBGEMM's on this device, or rows are wider than it can take.
    """

    cached = False

    def _allocate(self, device: torch.device) -> None:
        if device.type == "meta":
            device = torch.device("meta")
        rule = self.optimizer or SGD(learning_rate=1.0)
        if type(rule) not in _RULES:
            known = ", ".join(repr(str(kind.model_fields["kind"].default)) for kind in _RULES)
            raise ConfigError(
                f"row_optimizer.kind = {getattr(rule, 'kind', '?')!r}: FBGEMM offers {known} on {device.type}; "
                "choose one of them or set row_store to 'torch'"
            )
        if self.row_dtype != torch.float32 and device.type != "cuda":
            name = str(self.row_dtype).removeprefix("torch.")
            raise ConfigError(
                f"embeddings.row_dtype = {name!r}: on CPU FBGEMM rounds float16 rows to nearest, which loses small steps, and "
                "has no bfloat16; set row_store to 'torch' or 'auto', whose rows are rounded at random"
            )
        self._kernels = _Kernels()
        self._held = {width: _padded(width, device) for width in self.stack_rows}
        for width, rows in self.stack_rows.items():
            if width > _WIDEST:
                raise ConfigError(
                    f"rows of width {width}: FBGEMM takes at most {_WIDEST}; narrow them or set row_store to 'torch'"
                )
            self._kernels[width] = _kernel(rows, self._held[width], rule, self.row_dtype, device, cached=self.cached)
            on_huge_pages((self.stack(width), *self.stack_states(width).values()))
        row_wise = isinstance(rule, RowWiseAdagrad)
        self._factor = {w: _gradient_factor(w, held) if row_wise else 1.0 for w, held in self._held.items()}
        self.set_learning_rate(self.learning_rate)

    def stack(self, width: int) -> Tensor:
        """Return the live rows of one width (a view without the padding)."""
        rows: Tensor = self._kernels[width].split_embedding_weights()[0].detach()[:, :width]
        return rows

    def stack_states(self, width: int) -> dict[str, Tensor]:
        """Return the live optimiser states of one width."""
        if self.optimizer is None or not self.optimizer.states:
            return {}
        (name,) = self.optimizer.states
        state = self._kernels[width].split_optimizer_states()[0][0]
        if not self.optimizer.states[name]:
            return {name: state.view(-1)}
        return {name: state.view(-1, self._held[width])[:, :width]}

    def set_learning_rate(self, learning_rate: float) -> None:
        """Change the step size of the row rule."""
        super().set_learning_rate(learning_rate)
        for width, kernel in self._kernels.items():
            kernel.set_learning_rate(learning_rate / self._factor[width])

    def forward(self, addresses: Tensor, width: int, offsets: Tensor | None = None) -> Tensor:
        """Look up rows, or sums of bags; see ``RowStore.forward``."""
        if offsets is None:
            offsets = torch.arange(len(addresses) + 1, device=addresses.device)
        rows: Tensor = self._kernels[width](addresses, offsets)
        if self.optimizer is None:
            rows = rows.detach()
        if self._held[width] == width:
            return rows
        narrow: Tensor = _Narrow.apply(rows, width, self._factor[width])  # type: ignore[no-untyped-call]
        return narrow


class _Kernels(dict[int, SplitTableBatchedEmbeddingBagsCodegen]):
    """The kernels by width, hidden from ``nn.Module``: their weights are rows of the store, not parameters."""


def _padded(width: int, device: torch.device) -> int:
    return 1 if width == 1 and device.type == "cpu" else -(-width // _LANES) * _LANES


def _gradient_factor(width: int, held: int) -> float:
    """Return c such that mean((c * g)**2) over the padded row is mean(g**2) over the real one."""
    return math.sqrt(held / width)


def _kernel(
    rows: int, width: int, rule: RowOptimizer, dtype: torch.dtype, device: torch.device, *, cached: bool
) -> SplitTableBatchedEmbeddingBagsCodegen:
    on_gpu = device.type == "cuda"
    place = EmbeddingLocation.DEVICE if on_gpu else EmbeddingLocation.HOST
    if cached:
        place = EmbeddingLocation.MANAGED_CACHING
    compute = ComputeDevice.CUDA if on_gpu else ComputeDevice.CPU
    shape = (1, _LANES) if width == 1 else (rows, width)
    with quiet():
        kernel = SplitTableBatchedEmbeddingBagsCodegen(
            [(*shape, place, compute)],
            optimizer=_RULES[type(rule)][0],
            learning_rate=rule.learning_rate,
            eps=getattr(rule, "eps", 1e-8),
            pooling_mode=PoolingMode.SUM,
            weights_precision=SparseType.from_dtype(dtype),
            output_dtype=SparseType.FP32,
            stochastic_rounding=dtype != torch.float32,  # on GPU; the CPU kernel ignores it
            device=device,
        )
    if width == 1:
        hold_width_one(kernel, rows)
    return kernel


class _Narrow(torch.autograd.Function):
    """Cut the padding off; backward pads with zeros and scales, so that row-wise Adagrad sees the real mean."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, width: int, factor: float) -> Tensor:
        ctx.padding, ctx.factor = rows.shape[1] - width, factor
        return rows[:, :width].contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return torch.nn.functional.pad(gradient * ctx.factor, (0, ctx.padding)), None, None
