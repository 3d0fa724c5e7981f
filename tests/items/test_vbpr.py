"""VBPR: by its equation, and as matrix factorisation where content says nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recembed.errors import ConfigError
from recembed.evaluation import UserItems
from recembed.graph import InteractionGraph, LightGCN
from recembed.items.vbpr import VBPR
from recembed.retrieval import RetrievalTrainer, RetrievalTraining, encoder_vectors
from tests.items.graphs import ITEMS, USERS, content, graph


def all_met() -> tuple[InteractionGraph, UserItems]:
    """The graph with an edge to the last item too."""
    edges = graph().edges
    pairs = [*edges.rows, 0], [*edges.neighbours, ITEMS - 1]
    sizes = {"num_users": USERS, "num_items": ITEMS}
    return InteractionGraph.of(*pairs, **sizes), UserItems(*pairs, **sizes)


def test_by_hand() -> None:
    """The user is (γ, θ) = (1, 3), γ_i = 5 and the matrix is all 2: 1 · 5 + 3 · 2 · (sum of the content)."""
    found = {"image": content()["image"]}
    encoder = VBPR(graph(), found, 1)
    with torch.no_grad():
        encoder.get_parameter("users.weight").fill_(1.0)[:, 1] = 3.0
        encoder.get_parameter("items.weight").fill_(5.0)
        encoder.matrix.fill_(2.0)
    users, items = encoder()
    read = encoder.sources["image"]().sum(1) * 2
    expected = (1 * 5 * (graph().edges.column_degrees > 0) + 3 * read.detach().numpy()).tolist()
    assert (users @ items.T)[0].tolist() == pytest.approx(expected, rel=1e-5)
    assert items[ITEMS - 1, 0] == 0.0  # nobody has met it
    assert (users.shape[1], encoder.embedding_dim) == (2, 2)


@pytest.mark.parametrize("loss", [{"kind": "bpr"}, {"kind": "in_batch_softmax", "temperature": 0.5}])
def test_with_zero_features_it_is_matrix_factorisation_while_training(loss: dict[str, object]) -> None:
    whole, train = all_met()
    zero = {name: replace(one, matrix=np.zeros_like(one.matrix)) for name, one in content().items()}
    encoder, plain = VBPR(whole, zero, 4), LightGCN(whole, 4, 0)
    with torch.no_grad():
        plain.get_parameter("base.weight").copy_(
            torch.cat([encoder.get_parameter("users.weight")[:, :4], encoder.get_parameter("items.weight")])
        )
    config = RetrievalTraining.model_validate({"epochs": 3, "batch_size": 8, "loss": loss, "learning_rate": 0.05})
    config = config.model_copy(update={"regularisation": 0.0})
    scores = []
    for model in (encoder, plain):
        RetrievalTrainer(model, train, config).fit()
        users, items = encoder_vectors(model, USERS)
        scores.append(users @ items.T)
    torch.testing.assert_close(scores[0], scores[1], atol=1e-5, rtol=1e-4)


def test_rows_are_those_of_the_whole_and_content_gets_a_gradient() -> None:
    encoder = VBPR(graph(), content(absent=(2, 8)), 4)
    nodes = torch.tensor([0, 3, USERS + 2, USERS + 8])
    vectors, _ = encoder.rows(nodes)
    torch.testing.assert_close(vectors, torch.cat(encoder())[nodes])
    weight = torch.linspace(-1, 1, vectors.numel()).view(vectors.shape)
    (vectors * weight).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in encoder.parameters())
    assert len(list(encoder.parameters())) == 4  # users, items, the matrix and the stand-in of text


def test_other_content_scores_otherwise() -> None:
    encoder, found = VBPR(graph(), content(), 4), content()
    shuffled = {name: replace(one, matrix=one.matrix[::-1].copy()) for name, one in found.items()}
    other = VBPR(graph(), shuffled, 4)
    assert torch.equal(encoder()[0], other()[0])
    assert not torch.allclose(encoder()[1][:, 4:], other()[1][:, 4:])
    assert torch.equal(encoder()[1][:, :4], other()[1][:, :4])


def test_a_width_below_1_is_refused() -> None:
    with pytest.raises(ConfigError, match="embedding_dim = 0: expected at least 1"):
        VBPR(graph(), content(), 0)
