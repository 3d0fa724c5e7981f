"""Distance in the ball, steps that stay in it, and hierarchies that come out."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from recembed.errors import ConfigError, DataError
from recembed.graph import Poincare, nearest_in_ball, poincare_distance
from recembed.graph.poincare import step


def points(count: int = 40, width: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(count, width, generator=generator).double(), dim=1)
    return directions * torch.rand(count, 1, generator=generator).double() * 0.99


def test_distances_by_hand() -> None:
    a, origin = torch.tensor([0.5, 0.0]), torch.zeros(2)
    assert poincare_distance(a, origin).item() == pytest.approx(math.log(3))
    assert poincare_distance(a, -a).item() == pytest.approx(2 * math.log(3))


def test_it_is_a_metric() -> None:
    p = points()
    between = poincare_distance(p[:, None], p)
    assert (between.diagonal() == 0).all() and torch.equal(between, between.T)
    assert (between[:, None, :] <= between[:, :, None] + between[None] + 1e-9).all()
    near = poincare_distance(p[0], p[0] + 1e-9)
    assert 0 < near.item() == pytest.approx(2e-9 * 3**0.5 / (1 - p[0].square().sum().item()), rel=1e-3)


def test_rotation_changes_nothing() -> None:
    p = points()
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    torch.testing.assert_close(poincare_distance(p[:, None] @ turn, p @ turn), poincare_distance(p[:, None], p))


def test_the_gradient_is_that_of_finite_differences() -> None:
    p = points(6)
    assert torch.autograd.gradcheck(poincare_distance, (p[:3].requires_grad_(), p[3:].clone().requires_grad_()))
    same = p[:1].detach().clone().requires_grad_()
    poincare_distance(same, p[:1].detach()).sum().backward()
    assert same.grad is not None and same.grad.isfinite().all()


def test_neighbours_are_ranked_by_the_distance() -> None:
    p = points()
    distances, order = nearest_in_ball(p[:5], p, 7)
    every = poincare_distance(p[:5, None], p)
    expected, places = every.sort(dim=1)
    assert torch.equal(order, places[:, :7])
    torch.testing.assert_close(distances, expected[:, :7])
    assert order[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_one_step_is_the_gradient_by_the_conformal_factor() -> None:
    p = torch.tensor([[0.5, 0.0], [0.0, 0.0], [0.0, 0.6]], dtype=torch.float64)
    moved = p.clone().requires_grad_()
    own, above, other = moved
    loss = poincare_distance(own, above) + torch.logsumexp(
        -torch.stack([poincare_distance(own, above), poincare_distance(own, other)]), 0
    )
    (gradient,) = torch.autograd.grad(loss, moved)
    expected = p - 0.1 * ((1 - p.square().sum(1, keepdim=True)) ** 2 / 4) * gradient
    got = step(p, torch.tensor([0]), torch.tensor([[1, 2]]), np.array([[False]]), 0.1)
    assert got.item() == pytest.approx(loss.item())
    torch.testing.assert_close(p, expected)


@pytest.mark.parametrize("rate", [0.1, 1e3])
def test_points_stay_in_the_ball(rate: float) -> None:
    p = points(10)
    for start in range(9):
        step(p, torch.tensor([start]), torch.tensor([[start + 1, (start + 5) % 10]]), np.array([[False]]), rate)
    assert p.isfinite().all() and (p.norm(dim=1) <= 1 - 1e-5 + 1e-12).all()


def tree(depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Return every pair of a node of a binary tree and one above it, and the depth of each node."""
    nodes = np.arange(1, 2**depth)
    pairs = [(node - 1, (node >> up) - 1) for node in nodes for up in range(1, int(node).bit_length())]
    return np.array(pairs), np.floor(np.log2(nodes))


def test_a_tree_comes_out_with_its_root_inside() -> None:
    pairs, depths = tree(4)
    found = Poincare(embedding_dim=2, epochs=60, burn_in=5, learning_rate=0.1, negatives=8)(pairs, 15)
    assert spearmanr(found.norm(dim=1), depths).statistic > 0.6
    between = poincare_distance(found[:, None], found)
    related = torch.zeros(15, 15, dtype=torch.bool)
    related[pairs[:, 0], pairs[:, 1]] = True
    unrelated = ~(related | related.T | torch.eye(15, dtype=torch.bool))
    assert between[related].mean() < 0.7 * between[unrelated].mean()
    first, again, other = (Poincare(epochs=1, seed=seed)(pairs, 15) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match=r"expected pairs of concepts 0\.\.1"):
        Poincare()(np.array([[0, 2]]), 2)
    with pytest.raises(DataError, match="at least one of them"):
        Poincare()(np.zeros((0, 2), np.int64), 2)
    with pytest.raises(ConfigError, match="expected above 0"):
        Poincare(epochs=0)(np.array([[0, 1]]), 2)
