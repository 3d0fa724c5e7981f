"""Stages as they stand in a config: what a stage changes, and what is refused."""

from typing import Any

import pytest

from recembed.config import RunConfig
from recembed.errors import ConfigError
from recembed.training import TrainingConfig
from recembed.training.stages import TrainStage


def stages(*raw: Any) -> RunConfig:
    return RunConfig.parse({"data": {"dataset": "ml100k"}, "stages": list(raw)})


TRAIN = {"name": "search", "do": "train"}


def test_a_stage_changes_the_keys_it_names() -> None:
    base = TrainingConfig(batch_size=64, dense_optimizer={"kind": "sgd", "momentum": 0.9}, early_stopping={})
    changes = {"epochs": 2, "dense_optimizer": {"learning_rate": 0.5}, "early_stopping": None}
    changed = TrainStage(name="tune", training=changes).settings(base)
    expected = {"kind": "sgd", "momentum": 0.9, "learning_rate": 0.5}
    assert changed == TrainingConfig(batch_size=64, epochs=2, dense_optimizer=expected)


@pytest.mark.parametrize("other", ["adam", {"kind": "adam"}])
def test_settings_of_another_kind_are_not_mixed_with_the_old_ones(other: Any) -> None:
    base = TrainingConfig(dense_optimizer={"kind": "sgd", "momentum": 0.9})
    changed = TrainStage(name="tune", training={"dense_optimizer": other}).settings(base)
    assert changed == TrainingConfig(dense_optimizer={"kind": "adam"})


def test_stages_survive_a_round_trip() -> None:
    config = stages(TRAIN | {"training": {"epochs": 3}}, {"name": "w", "do": "widths"}, {"name": "p", "do": "settle"})
    assert RunConfig.parse(config.to_dict()) == config
    assert [stage.do for stage in config.stages or ()] == ["train", "widths", "settle"]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ([TRAIN | {"star": "keep"}], r"stage 'search': star: unknown key 'star'; did you mean 'start'"),
        ([{"name": "search", "do": "trian"}], r"stage 'search': do = 'trian' is not known; did you mean 'train'"),
        ([{"do": "train"}], r"stage '1': name: required, but not given"),
        (
            [TRAIN | {"start": "again"}],
            r"stage 'search': start = 'again': Input should be 'keep', 'initial' or 'fresh'",
        ),
        ([TRAIN, {"name": "w", "do": "widths", "mutation": 2}], r"stage 'w': mutation = 2: .*less than or equal to 1"),
        ([TRAIN | {"training": {"epoch": 3}}], r"stage 'search': training: epoch: unknown key .* mean 'epochs'"),
        ([{"name": "p", "do": "settle"}], r"stage 'p': do = 'settle' comes first, but needs a trained model"),
        (["train"], r"stage 1 = 'train': expected a mapping such as \{name: prune, do: settle\}"),
        ({"do": "train"}, r"stages = \{'do': 'train'\}: expected a list"),
    ],
)
def test_bad_stages_are_refused_with_the_fix(raw: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        RunConfig.parse({"data": {"dataset": "ml100k"}, "stages": raw})
