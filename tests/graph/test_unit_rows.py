"""Rows of length 1 against PyTorch's own."""

import torch
from torch.nn import functional as F

from recembed.graph.unit_rows import unit_rows


def test_values_and_gradients_are_those_of_normalize() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(20, 5) * torch.logspace(-6, 3, 20)[:, None]
    vectors[7] = 0
    vectors.requires_grad_()
    got, expected = unit_rows(vectors), F.normalize(vectors, dim=1)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7)
    gradient = torch.randn(20, 5)
    (mine,), (other,) = (torch.autograd.grad(unit, vectors, gradient) for unit in (got, expected))
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_a_gradient_along_the_row_is_lost() -> None:
    vectors = torch.tensor([[3.0, 4.0]], requires_grad=True)
    unit_rows(vectors).backward(torch.tensor([[0.6, 0.8]]))
    assert vectors.grad is not None and vectors.grad.abs().max() < 1e-7
