"""Rows of one number in FBGEMM's CPU kernel, without the three beside each that its interface asks for.

First-order weights are such rows: ten million of them are 40 in place of 160 MB. The interface refuses widths that are no
multiple of four, which its GPU code needs; its CPU code takes any width, and gives and moves rows of one number bit for
bit as if they stood in four.
"""

from typing import Any

import torch
from torch import nn

__all__ = ["hold_width_one"]


def hold_width_one(kernel: Any, rows: int) -> None:
    """Make a CPU kernel of one row into one of ``rows`` rows of one number, all zero, with states of zero."""
    kernel.embedding_specs = [(rows, 1, *place) for _, _, *place in kernel.embedding_specs]
    kernel.weights_host = nn.Parameter(torch.zeros(rows))
    if "momentum1_host" in dict(kernel.named_parameters()):  # one number a row, whether the rule goes by rows or not
        kernel.momentum1_host = nn.Parameter(torch.zeros(rows))
    kernel.max_D = kernel.total_D = 1
    kernel.total_hash_size, kernel.total_hash_size_bits = rows, rows.bit_length()
    numbers = {"D_offsets": [0, 1], "feature_dims": [1], "hash_size_cumsum": [0, rows], "rows_per_table": [rows]}
    for name, values in numbers.items():
        buffer = kernel.get_buffer(name)
        buffer.copy_(buffer.new_tensor(values))
