"""Fusions: hand-worked values, and that an absent stream says nothing, not even a gradient."""

import pytest
import torch
from torch import Tensor

from recembed.items.fusion import FUSIONS, AttentionFusion, Fuse, Fusion, GatedFusion

NAN = float("nan")


def build(fuse: Fuse, widths: tuple[int, ...] = (3, 3)) -> Fusion:
    return FUSIONS[fuse]("item", widths, 3, hidden=5, std=0.1, seed=0)


def answer(fusion: Fusion, streams: list[Tensor], mask: list[list[bool]]) -> Tensor:
    found: Tensor = fusion(streams, torch.tensor(mask), torch.zeros(len(mask), 1))
    return found


def test_gates_start_as_the_mean_of_what_is_there() -> None:
    streams = [torch.tensor([[1.0, 2, 3], [1, 2, 3]]), torch.tensor([[3.0, 4, 5], [9, 9, 9]])]
    found = answer(build("gated"), streams, [[True, True], [True, False]])
    assert found.tolist() == [[2, 3, 4], [1, 2, 3]]


def test_gates_follow_how_well_the_id_is_known() -> None:
    fusion = build("gated")
    assert isinstance(fusion, GatedFusion)
    with torch.no_grad():
        fusion.weight[:3, -1] = 50.0  # the first stream's gates rise with familiarity
    streams = [torch.full((2, 3), 1.0), torch.full((2, 3), 3.0)]
    found = fusion(streams, torch.ones(2, 2, dtype=torch.bool), torch.tensor([[0.0], [1.0]]))
    assert torch.allclose(found, torch.tensor([[2.0] * 3, [1.0] * 3]))


def test_attention_by_hand() -> None:
    fusion = build("attention")
    assert isinstance(fusion, AttentionFusion)
    with torch.no_grad():
        fusion.query.zero_()
        fusion.kind.copy_(torch.tensor([0.0, torch.tensor(3.0).log()]))  # weights 1/4 and 3/4
    found = answer(fusion, [torch.zeros(1, 3), torch.full((1, 3), 4.0)], [[True, True]])
    assert torch.allclose(found, torch.full((1, 3), 3.0))


@pytest.mark.parametrize("fuse", FUSIONS)
def test_an_absent_stream_never_reaches_the_result(fuse: Fuse) -> None:
    fusion = build(fuse)
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    here = torch.randn(2, 3)
    mask = [[True, False], [True, False]]
    low, high = (answer(fusion, [here, torch.full((2, 3), value)], mask) for value in (-5.0, 1e9))
    assert torch.equal(low, high)
    absent = torch.full((2, 3), NAN, requires_grad=True)
    found = answer(fusion, [here, absent], mask)
    found.sum().backward()
    assert found.isfinite().all() and (absent.grad is None or absent.grad.eq(0).all())
    assert all(p.grad is None or p.grad.isfinite().all() for p in fusion.parameters())


@pytest.mark.parametrize("fuse", FUSIONS)
def test_a_row_does_not_depend_on_its_batch_and_every_parameter_learns(fuse: Fuse) -> None:
    fusion = build(fuse)
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    streams = [torch.randn(4, 3, requires_grad=True) for _ in range(2)]
    mask = torch.tensor([[True, True]] * 4)
    familiarity = torch.rand(4, 1)
    whole = fusion(streams, mask, familiarity)
    alone = fusion([stream[2:3] for stream in streams], mask[2:3], familiarity[2:3])
    assert torch.allclose(whole[2:3], alone, atol=1e-6)
    whole.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in fusion.parameters())


def test_concat_takes_streams_of_unequal_widths() -> None:
    fusion = build("concat", (3, 7))
    found = answer(fusion, [torch.randn(2, 3), torch.randn(2, 7)], [[True, True], [False, True]])
    assert found.shape == (2, 3)
