"""LIRDRec: the transform, the weights users give to streams, and items that come later."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from recembed.errors import ConfigError
from recembed.evaluation import UserItems
from recembed.graph import InteractionGraph
from recembed.items.cosine_transform import cosine_transform
from recembed.items.lirdrec import LIRDRec, copying_weight
from recembed.retrieval import RetrievalTrainer, RetrievalTraining, encoder_vectors
from tests.items.graphs import ITEMS, USERS, content, graph


def lirdrec(of: InteractionGraph | None = None, **options: object) -> LIRDRec:
    settings = {"hidden": 8, "neighbours": 3, **options}
    return LIRDRec(of or graph(), content(), settings.pop("width", 4), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [1, 2, 7, 64])
def test_the_transform_is_orthonormal_and_that_of_the_definition(width: int) -> None:
    matrix = cosine_transform(width)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(width), atol=1e-5, rtol=0)
    vector = torch.randn(width)
    torch.testing.assert_close(matrix.T @ (matrix @ vector), vector, atol=1e-5, rtol=0)
    assert (matrix @ vector).norm().item() == pytest.approx(vector.norm().item(), rel=1e-5)
    wave, place = width - 1, width // 2
    scale = math.sqrt((1 if wave == 0 else 2) / width)
    assert matrix[wave, place].item() == pytest.approx(
        scale * math.cos(math.pi / width * (place + 0.5) * wave), abs=1e-6
    )


def test_the_weight_of_the_scorers_is_that_of_the_steps() -> None:
    for start in (0.9, 0.95, 0.99):
        first, second = start, 1 - start
        for epoch in range(1, 15):
            first *= 0.9**epoch
            first, second = first / (first + second), second / (first + second)
            assert copying_weight(start, epoch) == pytest.approx(first, rel=1e-9)
    assert [round(copying_weight(0.99, epochs), 3) for epochs in (5, 10, 14)] == [0.953, 0.232, 0.002]
    assert (copying_weight(1.0, 9), copying_weight(0.0, 3)) == (1.0, 0.0)


def test_weights_sum_up_to_1_and_listen_to_what_they_should() -> None:
    theta = torch.randn(USERS, 3)
    for start, of_theta, of_scorers in ((1.0, False, True), (0.0, True, False), (0.5, True, True)):
        encoder = lirdrec(scorer_weight=start)
        before = encoder.user_weights()
        torch.testing.assert_close(before.sum(1), torch.ones(USERS))
        encoder.get_buffer("copied").copy_(theta)
        copied = encoder.user_weights()
        assert torch.equal(before, copied) is not of_theta
        with torch.no_grad():
            encoder.scorers[0].outer.add_(1.0)
        assert torch.equal(copied, encoder.user_weights()) is not of_scorers


def test_an_epoch_copies_the_weights_once() -> None:
    encoder = lirdrec(scorer_weight=0.9)
    encoder.start_epoch(0)
    before = encoder.user_weights()
    assert torch.equal(encoder.get_buffer("copied"), torch.full((USERS, 3), 1 / 3))
    encoder.start_epoch(1)
    assert torch.equal(encoder.get_buffer("copied"), before)
    after = encoder.user_weights()
    encoder.start_epoch(1)  # a resumed training asks again
    assert torch.equal(encoder.get_buffer("copied"), before)
    assert torch.equal(encoder.user_weights(), after)
    assert not encoder.get_buffer("copied").requires_grad
    assert "copied" not in dict(encoder.named_parameters())


def test_vectors_by_their_definition() -> None:
    encoder = lirdrec(layers=2)
    with torch.no_grad():
        found = [encoder.sources[name]() for name in ("image", "text")]
        turned = torch.cat([vectors @ cosine_transform(vectors.shape[1]).T for vectors in found], dim=1)
        blocks = []
        for network, inputs in zip(encoder.networks, [*found, turned], strict=True):
            hidden = inputs @ network.inner.T + network.bias
            block = torch.where(hidden > 0, hidden, 0.01 * hidden) @ network.outer.T
            blocks.append(block / block.norm(dim=1, keepdim=True))
        items = torch.cat(blocks, dim=1)
        users = encoder.get_parameter("users.weight").view(USERS, 3, 4)
        users = (users / users.norm(dim=2, keepdim=True)).flatten(1)
        a, start = encoder.adjacency.dense(), torch.cat([users, items])
        summed = start + a @ start + a @ a @ start
        weights = encoder.user_weights()
        expected = (summed[:USERS].view(USERS, 3, 4) * weights[:, :, None]).flatten(1)
        own, neighbours = encoder()
    torch.testing.assert_close(own, expected)
    torch.testing.assert_close(neighbours, summed[USERS:] + encoder.item_graph(items))


def test_its_width_is_192_and_parameters_belong_to_users_and_streams_alone() -> None:
    encoder = LIRDRec(graph(), content(), 64, neighbours=3)
    assert encoder.embedding_dim == 192 and encoder()[1].shape == (ITEMS, 192)
    streams = sum(256 * width + 256 + 64 * 256 for width in (5, 3, 8))
    scorers = 3 * (16 * 64 + 16 + 16)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 3 * 64 * USERS + streams + scorers


def test_a_new_item_gets_a_finite_score_from_the_same_weights() -> None:
    edges = graph().edges
    encoder = lirdrec()
    more = InteractionGraph.of(edges.rows, edges.neighbours, num_users=USERS, num_items=ITEMS + 2)
    found = content(items=ITEMS + 2)
    later = LIRDRec(more, found, 4, hidden=8, neighbours=3, seed=9)
    later.load_state_dict(encoder.state_dict())
    users, items = later.eval()()
    assert torch.equal(users, encoder.eval()()[0]) or users.isfinite().all()
    new = items[ITEMS:]
    assert new.isfinite().all() and (users @ new.T).isfinite().all() and new.norm(dim=1).min() > 0.1
    assert not torch.allclose(new[0], new[1])


def test_content_is_used() -> None:
    shuffled = {name: replace(one, matrix=np.roll(one.matrix, 1, axis=0)) for name, one in content().items()}
    other = LIRDRec(graph(), shuffled, 4, hidden=8, neighbours=3)
    scores = [users @ items.T for users, items in (lirdrec()(), other())]
    assert not torch.allclose(scores[0], scores[1])


def test_an_item_without_a_vector_has_a_finite_one_all_the_same() -> None:
    encoder = LIRDRec(graph(), content(absent=(0, 8)), 4, hidden=8, neighbours=3)
    users, items = encoder()
    assert items.isfinite().all() and users.isfinite().all()
    (users @ items.T).square().sum().backward()
    stand_in = encoder.get_parameter("sources.text.stand_in").grad
    assert stand_in is not None and stand_in.any()


def test_evaluation_reads_the_weights_as_they_are(tmp_path: object) -> None:
    """Vectors are computed at evaluation, not kept from the last step; the best epoch comes with its own ``w1``."""
    edges = graph().edges
    train = UserItems(edges.rows, edges.neighbours, num_users=USERS, num_items=ITEMS)
    encoder = lirdrec()
    config = RetrievalTraining.model_validate({"epochs": 4, "batch_size": 8, "learning_rate": 0.01})
    RetrievalTrainer(encoder, train, config).fit()
    assert int(encoder.get_buffer("epochs")) == 3
    before = encoder_vectors(encoder, USERS)[1]
    with torch.no_grad():
        encoder.networks[0].outer.add_(1.0)
    assert not torch.allclose(encoder_vectors(encoder, USERS)[1], before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 0}, "layers = 0: expected at least 1"),
        ({"hidden": 0}, "hidden = 0: expected at least 1"),
        ({"width": 0}, "embedding_dim = 0: expected at least 1"),
        ({"scorer_weight": 1.5}, r"scorer_weight = 1.5: expected 0..1"),
        ({"neighbours": 9}, r"neighbours = 9: expected 1..8"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lirdrec(**options)
