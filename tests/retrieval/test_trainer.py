from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recembed.errors import CheckpointError, ConfigError, DataError, TrainingError
from recembed.evaluation import UserItems
from recembed.graph import NGCF, InteractionGraph
from recembed.retrieval import RetrievalTrainer, RetrievalTraining, encoder_vectors, hold_out
from recembed.training import MemoryTracker
from tests.retrieval.blocks import BLOCKS, interactions, light_gcn

LOSSES: list[dict[str, Any]] = [
    {"loss": "bpr"},
    {"loss": "bpr", "sampler": {"kind": "hard", "pool": 4}},
    {"loss": "bpr", "sampler": {"kind": "popularity", "negatives": 4}},
    {
        "loss": {"kind": "sampled_softmax", "temperature": 0.5},
        "sampler": {"kind": "uniform", "negatives": 16, "shared": True},
    },
    {"loss": {"kind": "in_batch_softmax", "temperature": 0.5}},
    {
        "loss": {"kind": "cosine_contrastive", "margin": 0.3, "weight": 4},
        "sampler": {"kind": "uniform", "negatives": 8},
    },
]


def config(**settings: Any) -> RetrievalTraining:
    return RetrievalTraining.model_validate(
        {"epochs": 25, "batch_size": 64, "learning_rate": 0.05, "evaluate_every": 5, **settings}
    )


@pytest.mark.parametrize(
    "settings", LOSSES, ids=lambda s: "-".join(str(v["kind"] if isinstance(v, dict) else v) for v in s.values())
)
def test_every_loss_finds_the_blocks(settings: dict[str, Any]) -> None:
    train, valid = hold_out(interactions(), 0.2, seed=0)
    trainer = RetrievalTrainer(light_gcn(train), train, config(**settings))
    before = trainer.measure(valid, [5]).metrics["recall@5"]
    result = trainer.fit(valid)
    assert result.stopped in ("finished", "early_stopping")
    # five or so of a block's ten items are seen, so the rest of the block fills the list
    assert trainer.measure(valid, [5]).metrics["recall@5"] > max(0.75, before)


def test_ngcf_trains_with_dropout_and_penalty() -> None:
    train, valid = hold_out(interactions(), 0.2, seed=0)
    graph = InteractionGraph.of(train.users, train.items, num_users=train.num_users, num_items=train.num_items)
    model = NGCF(graph, 8, [8, 8], form="paper", message_dropout=0.1)
    trainer = RetrievalTrainer(model, train, config(learning_rate=0.02, regularisation=1e-3))
    trainer.fit(valid)
    assert trainer.measure(valid, [5]).metrics["recall@5"] > 0.75


def test_the_curve_holds_every_evaluation_and_the_tracker_hears_of_it() -> None:
    train, valid = hold_out(interactions(), 0.2, seed=0)
    tracker = MemoryTracker()
    settings = config(epochs=7, evaluate_every=3, early_stopping={"metric": "ndcg@10", "patience": 9})
    result = RetrievalTrainer(light_gcn(train), train, settings, tracker=tracker).fit(valid, k=[20])
    curve = result.curve
    assert curve["epoch"].to_list() == [3, 6, 7]
    assert {"loss", "seconds", "cpu_seconds", "total_seconds", "recall@20", "ndcg@10"} <= set(curve.columns)
    assert curve["seconds"].is_sorted()
    assert result.best_value == curve["ndcg@10"].max()
    assert tracker.values("valid/ndcg_at_10") == curve["ndcg@10"].to_list()
    assert tracker.values("train/loss")


def test_it_stops_when_nothing_gets_better_and_keeps_the_best(tmp_path: Path) -> None:
    train, valid = hold_out(interactions(), 0.2, seed=0)
    settings = config(epochs=500, evaluate_every=1, early_stopping={"metric": "recall@10", "patience": 3})
    for folder in (None, tmp_path):
        trainer = RetrievalTrainer(light_gcn(train), train, settings)
        result = trainer.fit(valid, folder=folder)
        assert result.stopped == "early_stopping"
        assert result.epochs == result.best_epoch + 3
        assert trainer.measure(valid, [10]).metrics["recall@10"] == result.best_value


def test_a_resumed_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    train, valid = hold_out(interactions(), 0.2, seed=0)
    graph = InteractionGraph.of(train.users, train.items, num_users=train.num_users, num_items=train.num_items)

    def trainer() -> RetrievalTrainer:
        model = NGCF(graph, 8, [8], message_dropout=0.2, node_dropout=0.2)
        return RetrievalTrainer(model, train, config(epochs=6, evaluate_every=1, schedule={"kind": "cosine"}))

    whole, first, second = trainer(), trainer(), trainer()
    expected = whole.fit(valid)
    first.fit(valid, epochs=2, folder=tmp_path)
    got = second.fit(valid, folder=tmp_path, resume=True)
    assert torch.equal(encoder_vectors(whole.encoder, 60)[0], encoder_vectors(second.encoder, 60)[0])
    columns = ["epoch", "step", "loss", "recall@20", "ndcg@20"]
    assert got.curve.select(columns).equals(expected.curve.select(columns))


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    train = interactions()
    RetrievalTrainer(light_gcn(train), train, config(epochs=1)).fit(folder=tmp_path)
    wider = light_gcn(train)
    wider.base.weight = torch.nn.Parameter(torch.zeros(110, 9))
    with pytest.raises(CheckpointError, match="is of another model or graph"):
        RetrievalTrainer(wider, train, config()).fit(folder=tmp_path, resume=True)
    (tmp_path / "last.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match="is missing or damaged"):
        RetrievalTrainer(light_gcn(train), train, config()).fit(folder=tmp_path, resume=True)


def test_users_who_have_met_all_are_left_out_and_counted() -> None:
    pairs = [(0, item) for item in range(4)] + [(1, 0), (2, 3)]
    train = UserItems(*zip(*pairs, strict=True), num_users=3, num_items=4)
    result = RetrievalTrainer(light_gcn(train), train, config(epochs=2)).fit()
    assert result.left_out == 4
    full = UserItems([0, 0, 1, 1], [0, 1, 0, 1], num_users=2, num_items=2)
    with pytest.raises(DataError, match="all 2 users have met all 2 items, so there is no negative"):
        RetrievalTrainer(light_gcn(full), full, config())


def test_another_graph_is_refused() -> None:
    train = interactions()
    other = UserItems(train.users, train.items, num_users=60, num_items=51)
    with pytest.raises(ConfigError, match="the model has 60 users and 50 items, the interactions 60 and 51"):
        RetrievalTrainer(light_gcn(train), other, config())


def test_a_loss_that_is_not_finite_is_told() -> None:
    train = interactions()
    model = light_gcn(train)
    with torch.no_grad():
        model.base.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"step 1: the loss is nan; lower training.learning_rate \(0.05\)"):
        RetrievalTrainer(model, train, config()).fit()


def test_one_of_every_users_interactions_stays() -> None:
    whole = interactions()
    for share in (0.1, 0.9):
        kept, aside = hold_out(whole, share, seed=3)
        assert (kept.counts[whole.counts > 0] > 0).all()
        assert kept.joined(aside).keys.tolist() == whole.keys.tolist()
        assert np.intersect1d(kept.keys, aside.keys).size == 0
        assert len(aside) / len(whole) == pytest.approx(share, abs=0.1)
    with pytest.raises(DataError, match="none of 2 interactions can be set aside"):
        hold_out(UserItems([0, 1], [0, 0], num_users=2, num_items=1), 0.5, seed=0)


def test_the_data_have_blocks() -> None:
    same = interactions().users % BLOCKS == interactions().items % BLOCKS
    assert same.mean() > 0.8
