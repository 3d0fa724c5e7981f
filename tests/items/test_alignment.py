"""Alignment: who teaches whom, who has no part, and what the vectors are then good for."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recembed.errors import ConfigError, DataError
from recembed.items.alignment import Aligner, AlignmentConfig, Teacher, train_alignment
from recembed.items.alignment_data import Histories, co_consumed, neighbour_recall
from recembed.items.faults import Faults
from recembed.items.given import read_vectors
from recembed.items.settings import VectorsConfig
from recembed.items.vector_file import write_vectors
from recembed.run import train
from tests.items import shop
from tests.items.test_run import settings


def aligner(items: int = 6, id_width: int = 3, **changes: object) -> tuple[Tensor, Aligner]:
    torch.manual_seed(0)
    content = torch.randn(items, 4)
    model = Aligner(content, AlignmentConfig.model_validate({"hidden": 5} | changes), id_width)
    with torch.no_grad():
        model.output.weight.normal_()
    return content, model


def gradient(loss: Tensor, of: Tensor) -> float:
    (found,) = torch.autograd.grad(loss, of, allow_unused=True)
    return 0.0 if found is None else found.abs().sum().item()


def test_the_teachers_get_no_gradient() -> None:
    content, model = aligner()
    vectors = torch.randn(6, 3, requires_grad=True)
    loss = model.id_loss(content, vectors, torch.ones(6).bool())
    assert gradient(loss, vectors) == 0 and loss > 0
    interests, nexts = torch.randn(6, 4, requires_grad=True), content.clone().requires_grad_()
    loss = model.sequence_loss(interests, nexts, torch.arange(6), torch.zeros(6))
    loss.backward()  # type: ignore[no-untyped-call]
    assert interests.grad is None and nexts.grad is not None and nexts.grad.any()
    assert not model.interests(nexts, torch.tensor([[0, 1]])).requires_grad


def test_an_unknown_id_has_no_part_in_the_loss_of_ids() -> None:
    content, model = aligner()
    teacher, known = F.normalize(torch.randn(6, 3), dim=1), torch.tensor([True, False, True, True, False, True])
    watched = content.clone().requires_grad_()
    loss = model.id_loss(watched, teacher, known)
    loss.backward()  # type: ignore[no-untyped-call]
    assert watched.grad is not None and (watched.grad.abs().sum(1) > 0).tolist() == known.tolist()
    assert torch.allclose(loss, model.id_loss(content[known], teacher[known], known[known]), atol=1e-6)
    nothing = model.id_loss(content, teacher, torch.zeros(6).bool())
    nothing.backward()  # type: ignore[no-untyped-call]
    assert nothing.item() == 0 and all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_loss_of_sequences_by_hand() -> None:
    content = torch.eye(2)
    model = Aligner(content, AlignmentConfig(sequence_temperature=0.5, popularity_power=0.5))  # starts at the content
    interests = model.interests(content, torch.tensor([[-1, 0], [1, 1]]))
    assert interests.tolist() == content.tolist()
    share = torch.tensor([0.25, 0.75])
    found = model.sequence_loss(interests, content, torch.arange(2), share.log())
    scores = np.array([[2 - 0.5 * np.log(0.25), -0.5 * np.log(0.75)], [-0.5 * np.log(0.25), 2 - 0.5 * np.log(0.75)]])
    wanted = np.mean([np.log(np.exp(row).sum()) - row[place] for place, row in enumerate(scores)])
    assert found.item() == pytest.approx(wanted, abs=1e-6)


def test_an_item_is_no_negative_of_itself() -> None:
    content, model = aligner()
    places = torch.tensor([0, 1, 0])
    teacher = model(content[[3, 4, 5]])
    found = model.sequence_loss(teacher, content[places], places, torch.zeros(3))
    scores = teacher @ model(content[places]).T / 0.1
    rows = [scores[0, :2], scores[1], scores[2, 1:]]
    wanted = torch.stack([row.logsumexp(0) - own for row, own in zip(rows, scores.diagonal(), strict=True)]).mean()
    assert torch.allclose(found, wanted, atol=1e-5)


def test_temperatures_are_of_one_loss_each() -> None:
    content, _ = aligner()
    steps = torch.randn(6, 4), content, torch.arange(6), torch.zeros(6)
    teacher = F.normalize(torch.randn(6, 3), dim=1), torch.ones(6).bool()

    def losses(**changes: object) -> tuple[float, float]:
        model = aligner(**changes)[1]  # type: ignore[arg-type]
        return model.sequence_loss(*steps).item(), model.id_loss(content, *teacher).item()

    usual, one, other = losses(), losses(sequence_temperature=1.0), losses(id_temperature=1.0)
    assert one[0] != usual[0] and one[1] == usual[1] and other[0] == usual[0] and other[1] != usual[1]


def test_vectors_start_where_the_content_is() -> None:
    content = torch.randn(50, 8)
    model = Aligner(content, AlignmentConfig())
    assert torch.allclose(model(content), F.normalize(content, dim=1), atol=1e-6)
    narrow = Aligner(torch.cat([content[:, :3], torch.zeros(50, 5)], 1), AlignmentConfig(embedding_dim=3))
    flat = torch.cat([content[:, :3], torch.zeros(50, 5)], 1)
    unit = F.normalize(flat, dim=1)
    assert torch.allclose(narrow(flat) @ narrow(flat).T, unit @ unit.T, atol=1e-5)  # three directions hold everything
    with pytest.raises(ConfigError, match=r"embedding_dim = 9: the content is 8 wide; expected 1\.\.8"):
        Aligner(content, AlignmentConfig(embedding_dim=9))


ITEMS = 240


def catalogue() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Content of 12 styles, of great weight, and of 8 uses, of little; items of one use are consumed together."""
    draw = np.random.default_rng(0)
    style, use = np.arange(ITEMS) % 12, draw.integers(0, 8, ITEMS)
    content = np.concatenate([np.eye(12)[style] * 3, np.eye(8)[use] * 0.7, draw.normal(0, 0.5, (ITEMS, 12))], axis=1)
    return content.astype(np.float32), style, use


def log(use: np.ndarray, users: int, items: int, seed: int) -> pl.DataFrame:
    """Users consume ten items of one use each, among the first ``items``; the first of each use much more often."""
    draw = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        own = np.flatnonzero((use == draw.integers(8)) & (np.arange(ITEMS) < items))
        law = 1 / np.arange(1, len(own) + 1) ** 0.5
        rows += [(user, int(item), time) for time, item in enumerate(draw.choice(own, 10, p=law / law.sum()))]
    return pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")


def pairs_of(group: np.ndarray, items: np.ndarray) -> np.ndarray:
    one, other = np.meshgrid(items, items)
    kept = (group[one] == group[other]) & (one != other)
    return np.stack([one[kept], other[kept]], axis=1)


@pytest.mark.parametrize("teaches", ["sequences", "ids"])
def test_co_consumed_items_come_nearer_and_content_stays(teaches: str) -> None:
    content, style, use = catalogue()
    ids, cold = pl.Series("item", range(ITEMS)), np.arange(200, ITEMS)
    histories = Histories.of(log(use, 300, 200, 1), ids, user="user", item="item", time="time")
    later = co_consumed(Histories.of(log(use, 100, 200, 2), ids, user="user", item="item", time="time"), window=9)
    vectors = np.eye(8, dtype=np.float32)[use] + np.random.default_rng(3).normal(0, 0.2, (ITEMS, 8))
    teacher = Teacher(F.normalize(torch.from_numpy(vectors).float(), dim=1), torch.arange(ITEMS) < 200)
    only = {"id_weight": 0.0} if teaches == "sequences" else {"sequence_weight": 0.0}
    config = AlignmentConfig.model_validate({"epochs": 8, "batch_size": 128, "learning_rate": 3e-3} | only)
    aligned = train_alignment(content, histories, teacher, config).vectors(content)

    def recall(pairs: np.ndarray) -> tuple[float, float]:
        return neighbour_recall(content, pairs, 40), neighbour_recall(aligned, pairs, 40)

    (before, after), (cold_before, cold_after) = recall(later), recall(pairs_of(use, cold))
    assert after > before + 0.15  # users that training did not see
    assert cold_after > cold_before + 0.1  # items that nobody consumed and no id vector taught
    content_before, content_after = recall(pairs_of(style, np.arange(ITEMS)))
    content_before, content_after = recall(pairs_of(style, np.arange(ITEMS)))
    assert content_before == 1 and content_after > 0.9


def test_the_content_term_keeps_vectors_near_their_content() -> None:
    content, _, use = catalogue()
    ids = pl.Series("item", range(ITEMS))
    histories = Histories.of(log(use, 60, 200, 1), ids, user="user", item="item", time="time")

    def nearness(weight: float) -> float:
        config = AlignmentConfig(epochs=6, batch_size=64, learning_rate=3e-3, content_weight=weight)
        found = train_alignment(content, histories, None, config).vectors(content)
        return float((found * content).sum(1).mean() / np.linalg.norm(content, axis=1).mean())

    assert nearness(20.0) > nearness(0.0) + 0.05


def test_histories_are_ordered_by_time_and_read_from_their_end() -> None:
    frame = pl.DataFrame({"user": ["b", "a", "b", "b"], "item": [30, 10, 20, 10], "time": [3, 1, 1, 2]})
    histories = Histories.of(frame, pl.Series([10, 20, 30]), user="user", item="item", time="time")
    assert histories.items.tolist() == [0, 1, 0, 2] and histories.counts(3).tolist() == [2, 1, 1]
    before, nexts = histories.steps(2)
    assert before.tolist() == [[-1, 1], [1, 0]] and nexts.tolist() == [0, 2]


def test_a_teacher_knows_the_items_that_were_trained(tmp_path: Path) -> None:
    write_vectors(tmp_path / "vectors.parquet", pl.Series("item", [9, 3]), np.array([[0.0, 2], [3, 0]]))
    given = read_vectors("ids", VectorsConfig(path=tmp_path / "vectors.parquet"), Faults(), "item")
    teacher = Teacher.of(given, np.array([3, 5, 9]))
    assert teacher.known.tolist() == [True, False, True]
    assert teacher.vectors.tolist() == [[1, 0], [0, 0], [0, 1]]
    with pytest.raises(DataError, match="not one of the 2 items has a vector of its id"):
        Teacher.of(given, np.array([4, 5]))


def test_aligned_vectors_match_items_with_histories_in_a_ranker(tmp_path: Path) -> None:
    encoder = shop.content(tmp_path)
    given = read_vectors("clip", VectorsConfig(path=tmp_path / "clip.npz"), Faults(), "item")
    seen = shop.rows().select("user", item="history").explode("item").drop_nulls()
    content = np.asarray(given.vectors[given.rows])
    model = train_alignment(content, Histories.of(seen, given.ids, user="user", item="item"))
    write_vectors(tmp_path / "aligned.parquet", given.ids.alias("item"), model.vectors(content))
    shop.rows().write_parquet(tmp_path / "clicks.parquet")
    encoder = {"vectors": {"aligned": str(tmp_path / "aligned.parquet")}, "id": "item", "cache": encoder["cache"]}
    run = train(settings(tmp_path / "clicks.parquet", encoder), tmp_path / "run")
    assert 0 <= run.metrics["test"]["auc"] <= 1


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pl.DataFrame({"usr": [1], "item": [1]}), "interactions have no column 'user'; did you mean 'usr'"),
        (
            pl.DataFrame({"user": [1], "item": ["1"]}),
            "hold ids of type String in 'item', the content Int64; write them",
        ),
        (pl.DataFrame({"user": [1], "item": [7]}), "not one item of 'item' is in the content"),
    ],
)
def test_interactions_that_do_not_fit(frame: pl.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Histories.of(frame, pl.Series([1, 2]), user="user", item="item")


def test_content_and_histories_that_cannot_be_learned_from() -> None:
    single = Histories.of(pl.DataFrame({"user": [1, 2], "item": [1, 2]}), pl.Series([1, 2]), user="user", item="item")
    with pytest.raises(DataError, match="no user consumed two items, so there is no next item to learn from"):
        train_alignment(np.eye(2, dtype=np.float32), single)
    with pytest.raises(DataError, match="1 content vectors hold NaN or infinity; leave these items out"):
        train_alignment(np.array([[1.0, np.nan], [0, 1]]), single)


@pytest.mark.slow
def test_films_that_are_liked_by_the_same_users_come_nearer(real_data: Path) -> None:
    """MovieLens-1M: genres, years and words of plots, aligned on a twentieth of the users, tested on another."""
    films = pl.read_parquet(real_data / "ml1m" / "items.parquet")
    told = pl.concat_str("genres", pl.col("year") // 5, "plot", separator=" ", ignore_nulls=True)
    words = films.select(film=pl.int_range(films.height), word=told.str.to_lowercase().str.extract_all("[a-z0-9]+"))
    words = words.explode("word").drop_nulls()
    content = np.full((films.height, 128), 1e-3, np.float32)
    np.add.at(content, (words["film"].to_numpy(), (words["word"].hash(0) % 128).to_numpy()), 1)
    content *= np.log(films.height / (content > 0.5).sum(axis=0)).astype(np.float32)
    liked = pl.read_parquet(real_data / "ml1m" / "ratings.parquet").filter(pl.col("rating") >= 4).drop_nulls("seq_pos")

    def histories(part: int) -> Histories:
        own = liked.filter(pl.col("user_id") % 20 == part)
        return Histories.of(own, films["item_id"], user="user_id", item="item_id", time="seq_pos")

    config = AlignmentConfig(epochs=3, hidden=128, batch_size=256, learning_rate=3e-3, content_weight=1.0)
    aligned = train_alignment(content, histories(0), None, config).vectors(content)
    pairs = co_consumed(histories(1))
    assert neighbour_recall(aligned, pairs, 40) > 1.1 * neighbour_recall(content, pairs, 40)
