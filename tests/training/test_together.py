"""A trainer in two processes: checkpoints of both, faults of one, rows that only one has."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from recembed.batch import Batch
from recembed.data import Loader
from recembed.embedding import EmbeddingConfig, FeatureEmbedding
from recembed.embedding.asked import Ahead
from recembed.evaluation import predict_logits
from recembed.models import DeepFMConfig
from recembed.rows.process_group import ProcessGroup
from recembed.rows.sharded_stores import ShardedStores
from recembed.training import Checkpointer, Trainer, TrainingConfig, find_checkpoint, load_checkpoint, read_manifest
from recembed.training import snapshot as snapshot_module
from recembed.training.manifest import verify_files
from recembed.training.predictions import gathered_logits
from recembed.training.tensor_file import write_tensors
from tests.rows.two_processes import run as in_two
from tests.training.planted import planted

pytestmark = pytest.mark.slow
CONFIG = TrainingConfig(
    epochs=2, batch_size=500, checkpoint_every=3, threads=1, dense_optimizer={"learning_rate": 0.02}
)


def model_of(processes: ProcessGroup | None) -> nn.Module:
    config = EmbeddingConfig(embedding_dim=8, row_optimizer={"kind": "row_wise_adagrad", "learning_rate": 0.05})
    stores = ShardedStores(processes, copy_below=100) if processes else None
    torch.manual_seed(0)
    embedding = FeatureEmbedding(planted()[0], config, linear=True, make_store=stores)
    return DeepFMConfig(hidden_units=(16,), batch_norm=False).build(embedding)


def fit(
    processes: ProcessGroup, folder: Path, config: TrainingConfig = CONFIG, *, rows: int | None = None, **settings: Any
) -> nn.Module:
    model = settings.pop("model", None) or model_of(processes)
    data = planted()[1]
    size = config.batch_size if rows is None else rows
    loader = Loader(data, size, shuffle=True, seed=0, rank=processes.rank, world_size=processes.count)
    checkpoint = Checkpointer(folder, planted()[0], background=config.checkpoint_in_background)
    Trainer(model, config).fit(loader, checkpoint=checkpoint, **settings)
    return model


def said(work: Callable[[], Any]) -> str:
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was wrong"


def full_disk(processes: ProcessGroup, folder: Path) -> str:
    """Let the disk of rank 1 be full at the second checkpoint."""
    calls = 0

    def write(path: Path, pieces: Any) -> str:
        nonlocal calls
        calls += 1
        if processes.rank == 1 and calls == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_tensors(path, pieces)

    snapshot_module.write_tensors = write
    try:
        return said(lambda: fit(processes, folder))
    finally:
        snapshot_module.write_tensors = write_tensors


def spoilt(processes: ProcessGroup) -> nn.Module:
    model = model_of(processes)
    store = model.embedding.store  # type: ignore[union-attr]
    name = next(name for name, plan in store.plan.tables.items() if plan.sharding != "data_parallel")  # type: ignore[union-attr]
    if processes.rank == 1:
        for _, live in store.parts(name):  # type: ignore[operator,union-attr]
            live[-1] = float("nan")
    return model


@contextmanager
def counted_takes() -> Iterator[list[bool]]:
    """Note at each embedded batch whether its lookup had begun."""
    take, early = Ahead.take, list[bool]()

    def watched(self: Ahead, batch: Batch, *, training: bool) -> Any:
        asked = take(self, batch, training=training)
        early.append(asked is not None)
        return asked

    Ahead.take = watched  # type: ignore[method-assign]
    try:
        yield early
    finally:
        Ahead.take = take  # type: ignore[method-assign]


def every_scenario(processes: ProcessGroup, place: str) -> dict[str, Any]:
    folder = Path(place)
    found: dict[str, Any] = {}
    with counted_takes() as found["early"]:
        model = fit(processes, folder / "plain")
    behind = CONFIG.model_copy(update={"checkpoint_in_background": True})
    fit(processes, folder / "behind", behind)
    found["full"] = full_disk(processes, folder / "full")
    fit(processes, folder / "lost", CONFIG.model_copy(update={"epochs": 1}))
    if processes.rank == 0:
        (find_checkpoint(folder / "lost" / "last") / "weights-00002-of-00002.safetensors").unlink()
    processes.tell("it is gone")
    found["lost"] = said(lambda: load_checkpoint(folder / "lost" / "last", model))
    found["differ"] = said(lambda: fit(processes, folder / "differ", rows=500 + 100 * processes.rank))
    found["nan"] = said(lambda: fit(processes, folder / "nan", model=spoilt(processes)))
    three = Loader(planted()[2], 999, shuffle=False, seed=0, rank=processes.rank, world_size=2)
    labels, logits = gathered_logits(model, three, processes)
    found["rows"] = (labels, logits)
    found["sizes"] = [len(batch) for batch in three]
    return found


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    folder = tmp_path_factory.mktemp("together")
    answers = in_two(every_scenario, str(folder), wait=900)
    for answer in answers:
        assert isinstance(answer, dict), answer
    return folder, answers


def test_both_write_in_the_background_what_they_write_at_once(scenarios: tuple[Path, list[Any]]) -> None:
    folder, _ = scenarios
    for name in ("last", "best"):
        plain, behind = (read_manifest(folder / kind / name) for kind in ("plain", "behind"))
        verify_files(folder / "behind" / name, behind)
        assert len(plain.files) > 4
        assert plain.files == behind.files


def test_lookups_of_a_training_begin_early(scenarios: tuple[Path, list[Any]]) -> None:
    for answer in scenarios[1]:
        assert answer["early"] == ([False] * 2 + [True] * 8) * 2  # the first step of an epoch shows what is embedded


def test_a_full_disk_of_one_is_told_to_the_other_and_nothing_is_lost(scenarios: tuple[Path, list[Any]]) -> None:
    folder, (first, second) = scenarios
    assert second["full"].startswith("CheckpointError: cannot write checkpoint")
    assert "No space left on device; free some space" in second["full"]
    assert first["full"].startswith("TrainingError: rank 1: cannot write checkpoint")
    assert [path.name for path in (folder / "full").iterdir()] == ["last"]
    manifest = read_manifest(folder / "full" / "last")
    verify_files(folder / "full" / "last", manifest)
    assert manifest.step == 3


def test_a_missing_part_of_a_checkpoint_is_named(scenarios: tuple[Path, list[Any]]) -> None:
    told = " ".join(answer["lost"] for answer in scenarios[1])
    assert "CheckpointError: " in told
    assert told.count("weights-00002-of-00002.safetensors is missing; restore it, or use another checkpoint") == 2


def test_other_numbers_of_batches_are_refused(scenarios: tuple[Path, list[Any]]) -> None:
    for answer in scenarios[1]:
        assert answer["differ"].startswith(
            "TrainingError: the processes differ in the number of batches (rank 0: 10, rank 1: 9)"
        )


def test_a_nan_is_found_on_the_rank_that_holds_it(scenarios: tuple[Path, list[Any]]) -> None:
    for answer in scenarios[1]:
        assert "the loss is nan; it began in table " in answer["nan"], answer["nan"]
        assert "(on rank 1)" in answer["nan"]


def test_predictions_stand_in_the_order_of_the_rows_though_one_has_none(scenarios: tuple[Path, list[Any]]) -> None:
    folder, answers = scenarios
    assert [answer["sizes"] for answer in answers] == [[499, 0], [500, 1]]
    model = model_of(None)
    load_checkpoint(folder / "plain" / "last", model)
    labels, logits = predict_logits(model, Loader(planted()[2], 1000, shuffle=False, seed=0))
    for answer in answers:
        assert np.array_equal(answer["rows"][0], labels)
        assert np.allclose(answer["rows"][1], logits, atol=1e-6)
