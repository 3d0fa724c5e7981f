from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from recembed.batch import Batch
from recembed.errors import TrainingError
from recembed.training import Trainer, TrainingConfig
from recembed.training.checkpoint import weights
from tests.training.planted import SCHEMA, loaders, make_model

CONFIG = TrainingConfig(batch_size=256)
STORES = ("torch", "torchrec")


class Changed:
    """Batches of a loader, the one at ``step`` changed."""

    def __init__(self, step: int, **values: float) -> None:
        self.loader, self.step, self.values = loaders(CONFIG)[0], step, values
        self.set_epoch, self.state, self.resume = self.loader.set_epoch, self.loader.state, self.loader.resume

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for step, batch in enumerate(self.loader):
            yield self.change(batch) if step == self.step else batch

    def change(self, batch: Batch) -> Batch:
        for name, value in self.values.items():
            column = getattr(batch, name).clone()
            column[5, 0] = value
            batch = replace(batch, **{name: column})
        return batch


class Numbers(nn.Module):
    """Reads the numeric columns bare, without an encoder that knows of missing ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(1, 4)
        self.last = nn.Linear(4, 1)
        self.schema: object = None

    def forward(self, batch: Batch) -> Tensor:
        return self.last(self.first(batch.numeric).square()).squeeze(1)


@pytest.mark.parametrize("row_store", STORES)
def test_a_nan_in_a_row_names_table_and_row_and_spoils_nothing_else(row_store: str) -> None:
    model = make_model(row_store)
    model.embedding.store.rows("item")[7, 2] = float("nan")
    before = {name: values.clone() for name, values in weights(model).items()}
    with pytest.raises(TrainingError, match=r"^step 1: the loss is nan; it began in table 'item': row 7; lower embedd"):
        Trainer(model, CONFIG).fit(loaders(CONFIG)[0])
    for name, values in weights(model).items():
        assert torch.equal(values, before[name]) or "item.weight" in name


def test_further_rows_are_counted() -> None:
    model = make_model("torch")
    model.embedding.store.rows("user")[20:24] = float("inf")
    with pytest.raises(TrainingError, match=r"table 'user': row 20 and 3 more"):
        Trainer(model, CONFIG).fit(loaders(CONFIG)[0])


def test_rows_that_explode_while_training_are_named() -> None:
    def steep(model: nn.Module, batch: Batch) -> Tensor:
        return model(batch).mean() + (model.embedding(batch).fields.values * 0).sqrt().sum()  # slope 0 / 0

    with pytest.raises(
        TrainingError, match=r"^step 2: the loss is nan; it began in table 'user': row \d+ and \d+ more"
    ):
        Trainer(make_model("torch"), CONFIG).fit(loaders(CONFIG)[0], objective=steep)


def test_an_exploding_layer_is_named_with_its_input() -> None:
    model = make_model()
    with torch.no_grad():
        model.deep[0].weight.fill_(3e38)
    with pytest.raises(
        TrainingError, match=r"^step 1: the loss is (nan|inf); it began in layer 'deep\.0' \(Linear, largest input \d"
    ):
        Trainer(model, CONFIG).fit(loaders(CONFIG)[0])


def test_a_spoilt_parameter_is_named() -> None:
    model = make_model()
    with torch.no_grad():
        model.deep[0].bias[1] = float("nan")
    with pytest.raises(TrainingError, match=r"parameter 'deep\.0\.bias', spoilt by an earlier step; lower training"):
        Trainer(model, CONFIG).fit(loaders(CONFIG)[0])


def test_an_infinite_number_in_the_data_is_named_by_feature_and_step() -> None:
    model = Numbers()
    model.schema = SCHEMA
    with pytest.raises(TrainingError, match=r"^step 4: .* the data: numeric feature 'age' is infinite; clean the col"):
        Trainer(model, CONFIG).fit(Changed(3, numeric=float("inf")))


def test_a_missing_number_that_the_model_cannot_bear_is_named() -> None:
    missing = r"layer 'first' \(Linear, its input is not finite already\).* \(numeric column 0 is NaN, .* in 1 rows\)"
    with pytest.raises(TrainingError, match=rf"^step 3: the loss is nan; it began in {missing}"):
        Trainer(Numbers(), CONFIG).fit(Changed(2, numeric=float("nan")))


def test_a_missing_number_is_no_fault_where_an_encoder_knows_it() -> None:
    assert Trainer(make_model(), CONFIG).fit(Changed(2, numeric=float("nan"))).stopped == "finished"


def test_a_label_that_is_not_finite_is_named() -> None:
    with pytest.raises(TrainingError, match=r"^step 1: .* the data: label column 0 is not finite"):
        Trainer(make_model(), CONFIG).fit(Changed(0, labels=float("nan")))


def test_the_objective_is_named_where_all_layers_are_sound() -> None:
    def broken(model: nn.Module, batch: Batch) -> Tensor:
        return model(batch).mean() * float("inf")

    with pytest.raises(TrainingError, match=r"it began in the loss itself: every layer gives finite numbers"):
        Trainer(make_model(), CONFIG).fit(loaders(CONFIG)[0], objective=broken)


def test_a_gradient_that_is_not_finite_is_named_when_clipping() -> None:
    config = TrainingConfig(batch_size=256, clip_norm=1.0)

    def steep(model: nn.Module, batch: Batch) -> Tensor:
        return model(batch).mean() + (model.output.bias * 0).sqrt().sum()  # finite, its slope 0 / 0

    with pytest.raises(
        TrainingError, match=r"^step 1: the gradient is not finite; its first parameter is 'output\.bias'"
    ):
        Trainer(make_model(), config).fit(loaders(config)[0], objective=steep)


def test_nan_logits_in_validation_are_named_too() -> None:
    train, _ = loaders(CONFIG)
    with pytest.raises(TrainingError, match=r"^step 20: logits of validation rows are NaN; it began in layer 'first'"):
        Trainer(Numbers(), CONFIG).fit(train, Changed(1, numeric=float("nan")))
