import math

import pytest
import torch
from torch.nn import functional as F

from recembed.retrieval import BPR, CosineContrastive, InBatchSoftmax, Negatives, RetrievalTraining, SampledSoftmax


def batch(pairs: int = 5, width: int = 4, shared: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randn(n, width, generator=generator) for n in (pairs, pairs, shared))  # type: ignore[return-value]


def test_bpr_by_hand() -> None:
    # positive 2, negatives 1 and 4: softplus(-1) = 0.3133, softplus(2) = 2.1269
    users, positives = torch.tensor([[2.0]]), torch.tensor([[1.0]])
    loss = BPR()(users, positives, Negatives(torch.tensor([[[0.5], [2.0]]])))
    assert loss.item() == pytest.approx((0.3133 + 2.1269) / 2, abs=1e-4)


def test_shared_negatives_are_those_of_every_pair() -> None:
    users, positives, shared = batch()
    by_pair = shared.expand(5, 7, 4)
    for loss in (BPR(), CosineContrastive(margin=-0.2, weight=3.0), SampledSoftmax(correction=False, cosine=True)):
        first, second = loss(users, positives, Negatives(shared)), loss(users, positives, Negatives(by_pair))
        assert first.item() == pytest.approx(second.item(), rel=1e-5)


@pytest.mark.parametrize(
    "loss", [BPR(), SampledSoftmax(temperature=0.3), CosineContrastive(margin=0.0)], ids=lambda x: x.kind
)
def test_a_banned_negative_has_no_part(loss: BPR) -> None:
    users, positives, shared = batch(pairs=1)
    shared.requires_grad_()
    log_expected = torch.zeros(7)
    found = loss(users, positives, Negatives(shared, log_expected, (torch.tensor([0]), torch.tensor([2]))))
    found.backward()
    assert shared.grad is not None
    assert shared.grad[2].abs().sum() == 0
    assert shared.grad.abs().sum() > 0


def test_the_correction_estimates_the_softmax_over_all_items() -> None:
    generator = torch.Generator().manual_seed(0)
    users, items = torch.randn(3, 8, generator=generator), torch.randn(50, 8, generator=generator)
    chances = torch.softmax(torch.randn(50, generator=generator), 0)
    drawn = torch.multinomial(chances, 200_000, replacement=True, generator=generator)
    log_expected = (chances[drawn] * 200_000).log()
    positives = items[[4, 8, 15]]
    got = SampledSoftmax(temperature=2.0)(users, positives, Negatives(items[drawn], log_expected))
    scores = users @ items.T / 2.0
    won = (users * positives).sum(1) / 2.0
    # the sample stands for all 50 items, and the positive is added once more
    exact = (torch.log(won.exp() + scores.exp().sum(1)) - won).mean()
    assert got.item() == pytest.approx(exact.item(), abs=0.02)


def test_softmax_within_the_batch_is_cross_entropy() -> None:
    users, positives, _ = batch()
    itself = (torch.arange(5), torch.arange(5))  # its own positive is no negative
    log_expected = torch.tensor([0.1, 0.4, 0.2, 0.8, 0.3]).log()
    got = InBatchSoftmax(temperature=0.5)(users, positives, Negatives(positives, log_expected, itself))
    logits = users @ positives.T / 0.5 - log_expected * (1 - torch.eye(5))
    assert got.item() == pytest.approx(F.cross_entropy(logits, torch.arange(5)).item(), rel=1e-5)


def test_cosines_do_not_see_lengths() -> None:
    users, positives, shared = batch()
    for loss in (SampledSoftmax(cosine=True, correction=False), CosineContrastive(margin=0.1)):
        first = loss(users, positives, Negatives(shared))
        assert loss(3 * users, 0.2 * positives, Negatives(5 * shared)).item() == pytest.approx(first.item(), rel=1e-5)


def test_a_hundred_thousand_times_the_score_is_no_overflow() -> None:
    users, positives, shared = batch()
    loss = SampledSoftmax(correction=False)(1e5 * users, positives, Negatives(shared))
    assert math.isfinite(loss.item())


def test_the_prior_ranks_by_probability() -> None:
    # two users, three items: what an uncorrected softmax converges to is log P(item | user) - log P(drawn), times 0.5
    wanted = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    drawn = torch.tensor([0.8, 0.15, 0.05])
    learned = 0.5 * (wanted / drawn).log()  # [U, I]: users are unit vectors, so items hold the scores
    users, items = SampledSoftmax(temperature=0.5, correction=False, prior=1.0).served(
        torch.eye(2), learned.T, drawn.log()
    )
    assert users.shape == (2, 3) and items.shape == (3, 3)
    torch.testing.assert_close((2 * users @ items.T).softmax(dim=1), wanted)
    assert learned.argsort(dim=1).tolist() != wanted.argsort(dim=1).tolist()


def test_under_cosine_the_prior_is_beside_unit_vectors() -> None:
    loss = SampledSoftmax(temperature=0.1, cosine=True, correction=False, prior=0.5)
    users, items = loss.served(
        torch.tensor([[0.0, 2.0]]), torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([0.0, -4.0])
    )
    torch.testing.assert_close(users, torch.tensor([[0.0, 1.0, 1.0]]))
    torch.testing.assert_close(items, torch.tensor([[0.6, 0.8, 0.0], [1.0, 0.0, -0.2]]))


def test_without_a_prior_the_trained_vectors_are_served() -> None:
    users, items = torch.ones(1, 2), torch.full((3, 2), 2.0)
    for loss in (BPR(), SampledSoftmax(cosine=True, correction=False), CosineContrastive()):
        assert loss.served(users, items, torch.zeros(3)) == (users, items)
    with pytest.raises(ValueError, match=r"prior = 1\.0 beside correction, which leaves nothing to put back"):
        SampledSoftmax(prior=1.0)


def test_losses_are_named_in_the_config() -> None:
    config = RetrievalTraining.model_validate({"loss": {"kind": "sampled_softmax", "temperature": 0.2}})
    assert config.loss == SampledSoftmax(temperature=0.2)
    assert RetrievalTraining.model_validate(config.model_dump()) == config
    with pytest.raises(ValueError, match="loss kind 'bprr' is not known; did you mean 'bpr'"):
        RetrievalTraining.model_validate({"loss": "bprr"})
    with pytest.raises(ValueError, match="unknown key 'temperatur'; did you mean 'temperature'"):
        RetrievalTraining.model_validate({"loss": {"kind": "sampled_softmax", "temperatur": 0.2}})
    with pytest.raises(ValueError, match="a loss within the batch needs at least 2"):
        RetrievalTraining.model_validate({"loss": "in_batch_softmax", "batch_size": 1})
