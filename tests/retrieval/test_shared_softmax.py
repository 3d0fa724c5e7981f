"""The softmax in blocks against PyTorch's own operators on the whole table."""

import pytest
import torch
from torch import Tensor

from recembed.retrieval import shared_softmax as module
from recembed.retrieval.shared_softmax import shared_softmax


def by_definition(
    users: Tensor, positives: Tensor, negatives: Tensor, shift: Tensor | None, banned: tuple[Tensor, Tensor] | None
) -> Tensor:
    scores = users @ negatives.T - (0 if shift is None else shift)
    if banned is not None:
        scores = scores.index_put(banned, torch.tensor(float("-inf")))
    won = (users * positives).sum(1, keepdim=True)
    return (torch.cat([won, scores], 1).logsumexp(1) - won[:, 0]).mean()


@pytest.mark.parametrize("block", [4, 7, 256])
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("barred", [False, True])
def test_values_and_gradients(block: int, corrected: bool, barred: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(rows, 5, generator=generator).requires_grad_() for rows in (21, 21, 9)]
    shift = torch.randn(9, generator=generator) if corrected else None
    banned = (torch.rand(21, 9, generator=generator) < 0.3).nonzero(as_tuple=True) if barred else None
    loss, expected = shared_softmax(*parts, shift, banned), by_definition(*parts, shift, banned)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    found, wanted = torch.autograd.grad(3 * loss, parts), torch.autograd.grad(3 * expected, parts)
    for got, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, right, atol=1e-6, rtol=1e-5)


def test_a_pair_whose_negatives_are_all_banned_costs_nothing() -> None:
    users = torch.ones(2, 3, requires_grad=True)
    banned = torch.tensor([0, 0]), torch.tensor([0, 1])
    loss = shared_softmax(users, torch.ones(2, 3), torch.ones(2, 3), None, banned)
    assert loss.item() == pytest.approx(torch.tensor(3.0).log().item() / 2)  # the other one is among three equals
    loss.backward()
    assert users.grad is not None and users.grad[0].abs().max() == 0


def test_scores_that_are_no_numbers_of_float32_after_the_exponential() -> None:
    users = torch.tensor([[300.0], [-300.0]])
    loss = shared_softmax(users, torch.ones(2, 1), torch.tensor([[2.0], [0.5]]))
    assert loss.item() == pytest.approx(((600 - 300) + (-150 + 300)) / 2)  # the best score less the positive's
