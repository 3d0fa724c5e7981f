"""NGCF's layer in blocks: against PyTorch's own operators, and finite differences."""

import pytest
import torch
from torch.nn import functional as F

from recembed.graph import message_layer as blocks
from recembed.graph.message_layer import SLOPE, dropout_mask, message_layer


@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_BLOCK", 4)  # 10 rows: two whole blocks and a part
    torch.manual_seed(0)
    shapes = [(10, 3), (10, 3), (5, 3), (5, 3), *([(5,), (5,)] if bias else [])]
    m, e, w1, w2, *rest = inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    b1, b2 = rest or (None, None)
    if bias:
        expected = F.leaky_relu(F.linear(m, w1, b1), SLOPE) + F.leaky_relu(F.linear(m * e, w2, b2), SLOPE)
    else:
        expected = F.leaky_relu(F.linear(m + e, w1) + F.linear(m * e, w2), SLOPE)
    got = message_layer(m, e, (w1, b1), (w2, b2))
    torch.testing.assert_close(got, expected)
    gradient = torch.randn(10, 5)
    for mine, other in zip(
        torch.autograd.grad(got, inputs, gradient), torch.autograd.grad(expected, inputs, gradient), strict=True
    ):
        torch.testing.assert_close(mine, other)


def test_dropout_scales_up_what_stays_and_its_gradient() -> None:
    torch.manual_seed(0)
    m, weight = torch.ones(6000, 4, requires_grad=True), torch.eye(4)
    got = message_layer(m, torch.zeros(6000, 4), (weight, None), (weight, None), 0.25)
    assert got.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert abs(got.mean().item() - 1) < 4 * (0.25 / 0.75 / 24_000) ** 0.5
    got.sum().backward()
    assert torch.equal(m.grad, got)


@pytest.mark.parametrize("bias", [True, False])
def test_dropped_numbers_have_no_gradient(bias: bool) -> None:
    torch.manual_seed(0)
    m, e, w1, w2 = inputs = [torch.randn(shape, requires_grad=True) for shape in [(50, 3), (50, 3), (5, 3), (5, 3)]]
    b1, b2 = (torch.randn(5), torch.randn(5)) if bias else (None, None)
    got = message_layer(m, e, (w1, b1), (w2, b2), 0.25)
    whole = message_layer(m, e, (w1, b1), (w2, b2))
    kept = (got != 0).float() / 0.75
    assert 0.6 < (got != 0).float().mean() < 0.9
    torch.testing.assert_close(got, whole * kept)
    gradient = torch.randn(50, 5)
    found, expected = (torch.autograd.grad(o, inputs, g) for o, g in ((got, gradient), (whole, gradient * kept)))
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other)


def test_the_mask_is_even_over_all_bytes() -> None:
    """Every eighth number is the top byte of a word, which a signed generator might treat apart."""
    torch.manual_seed(0)
    mask, factor = dropout_mask(8000, 8, 0.5, torch.device("cpu"))
    assert mask is not None and factor == 2.0
    assert set(mask.unique().tolist()) == {0, 1}
    assert (mask.float().mean(0) - 0.5).abs().max() < 4 * 0.5 / 8000**0.5
    assert dropout_mask(3, 5, 0.5, torch.device("cpu"))[0].shape == (3, 5)  # type: ignore[union-attr]
    assert dropout_mask(3, 5, 0.0, torch.device("cpu")) == (None, 1.0)


@pytest.mark.parametrize("bias", [True, False])
def test_a_graph_for_export_has_the_same_values(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    m, e, w1, w2 = (torch.randn(shape) for shape in [(10, 3), (10, 3), (5, 3), (5, 3)])
    b1, b2 = (torch.randn(5), torch.randn(5)) if bias else (None, None)
    usual = message_layer(m, e, (w1, b1), (w2, b2))
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(message_layer(m, e, (w1, b1), (w2, b2)), usual)
