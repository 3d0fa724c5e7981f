"""What is searched follows the other batches alone; all else follows the training batches alone."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from recembed.batch import Batch
from recembed.embedding import EmbeddingConfig, FeatureEmbedding
from recembed.rows import SGD, PlainStore, RowTable
from recembed.training import BilevelSearch, Trainer, TrainingConfig
from tests.embedding.fixtures import batch, fitted


class OneId:
    """Batches of one id, two an epoch, that count how often they were read."""

    def __init__(self, item: int) -> None:
        self.batch = Batch(torch.tensor([[item]]), {}, torch.zeros(1, 0), torch.zeros(1, 1))
        self.read = 0

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(2):
            self.read += 1
            yield self.batch

    def set_epoch(self, epoch: int) -> None:
        pass

    def state(self) -> dict[str, int]:
        return {"read": self.read}

    def resume(self, state: dict[str, int]) -> None:
        self.read = state["read"]


class Scaled(nn.Module):
    """``scale * row + shift``."""

    def __init__(self) -> None:
        super().__init__()
        self.store = PlainStore([RowTable("item", 2, 1)], optimizer=SGD(learning_rate=0.1))
        self.store.rows("item").copy_(torch.tensor([[2.0], [3.0]]))
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.shift = nn.Parameter(torch.tensor(0.0))

    def forward(self, batch: Batch) -> Tensor:
        return self.scale * self.store(batch.ids[:, 0], 1).sum() + self.shift

    def take_auxiliary_loss(self) -> Tensor:
        return 0.5 * self.scale  # a penalty on what is searched


def test_two_steps_by_hand() -> None:
    model, other = Scaled(), OneId(1)
    config = TrainingConfig(epochs=1, dense_optimizer={"kind": "sgd", "learning_rate": 0.5})
    search = BilevelSearch([model.scale], other)
    Trainer(model, config).fit(OneId(0), objective=lambda model, batch: model(batch), search=search)
    # the gradient of the scale is row 1 and the penalty, 3.5: 1 - 0.5 * 3.5 = -0.75, then -2.5
    assert model.scale.item() == pytest.approx(-2.5)
    # row 0 follows the scale: 2 + 0.1 * 0.75 + 0.1 * 2.5; row 1 is read by the other batches and stays
    assert model.store.rows("item").tolist() == [[pytest.approx(2.325)], [3.0]]
    assert model.shift.item() == pytest.approx(-1.0)  # moved twice, not four times
    assert other.read == 2
    assert model.scale.requires_grad
    assert model.scale.grad is None


def test_the_schedule_and_own_learning_rates_hold_for_the_search() -> None:
    model = Scaled()
    model.scale.learning_rate_factor = 0.1
    schedule = {"kind": "linear", "final_factor": 0.0}
    config = TrainingConfig(dense_optimizer={"kind": "sgd", "learning_rate": 0.5}, schedule=schedule)
    search = BilevelSearch([model.scale], OneId(1))
    Trainer(model, config).fit(OneId(0), objective=lambda model, batch: model(batch), search=search)
    assert model.scale.item() == pytest.approx(1 - 0.05 * 3.5)  # the second step has factor 0


class OneBatch(OneId):
    def __init__(self, given: Batch) -> None:
        super().__init__(0)
        self.batch = given


class Summed(nn.Module):
    def __init__(self, table: dict[str, object]) -> None:
        super().__init__()
        features = {"item": {"table": table}}
        settings = {"embedding_dim": 8, "table": "autosrh", "features": features, "row_store": "torch"}
        self.embedding = FeatureEmbedding(fitted(), EmbeddingConfig.model_validate(settings))

    def forward(self, rows: Batch) -> Tensor:
        return self.embedding(rows).concat().sin().sum()


@pytest.mark.parametrize(
    "table",
    [{"kind": "zero_collision", "eviction_interval": 2}, {"kind": "cafe", "score": "frequency", "threshold": 2}],
)
def test_methods_do_not_count_what_the_search_reads(table: dict[str, object]) -> None:
    counted = []
    for searching in (True, False):
        model = Summed(table)
        keys = model.embedding.key_features
        parameters = [p for t in model.embedding.all_tables().values() for p in t.search_parameters()]
        search = BilevelSearch(parameters, OneBatch(batch(64, keys, seed=1))) if searching else None
        before = parameters[0].clone()
        Trainer(model, TrainingConfig(epochs=2)).fit(
            OneBatch(batch(64, keys)), objective=lambda model, rows: model(rows), search=search
        )
        assert not torch.equal(parameters[0], before)
        counted.append(dict(model.embedding.tables["item"].named_buffers()))
    assert counted[0].keys() == counted[1].keys()
    assert all(torch.equal(values, counted[1][name]) for name, values in counted[0].items())
