from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recembed.errors import ConfigError
from recembed.run.evolution import Genome, WidthSearch
from recembed.training.stages import WidthsStage

CHOICES = {f"field {i}": (1, 2, 4, 8) for i in range(5)}
TARGET = (8, 1, 4, 2, 1)


def closeness(genome: Genome) -> float:
    return -float(sum(abs(width - wanted) for width, wanted in zip(genome, TARGET, strict=True)))


def search(file: Path, score: Callable[[Genome], float] = closeness, **settings: Any) -> WidthSearch:
    return WidthSearch(WidthsStage(name="widths", **settings), CHOICES, score, file, seed=3)


def test_the_best_widths_are_found_and_nothing_is_scored_twice(tmp_path: Path) -> None:
    asked, told = [], []

    def score(genome: Genome) -> float:
        asked.append(genome)
        return closeness(genome)

    found = search(tmp_path / "state.json", score, generations=40)
    assert found.run(lambda generation, best: told.append(best), resume=False) == TARGET
    assert asked[0] == (8, 8, 8, 8, 8)
    assert len(set(asked)) == len(asked) < 4**5
    assert told == sorted(told)  # the best one is never lost
    assert found.scores[TARGET] == told[-1] == 0.0


@pytest.mark.parametrize("cut", [1, 4, 31, 77])
def test_a_cut_search_goes_on_as_if_it_was_not(tmp_path: Path, cut: int) -> None:
    whole = search(tmp_path / "whole.json", generations=6)
    best = whole.run(lambda *_: None, resume=False)
    calls = 0

    def killed(genome: Genome) -> float:
        nonlocal calls
        calls += 1
        if calls == cut:
            raise SystemExit
        return closeness(genome)

    with pytest.raises(SystemExit):
        search(tmp_path / "cut.json", killed, generations=6).run(lambda *_: None, resume=False)
    resumed = search(tmp_path / "cut.json", generations=6)
    assert resumed.run(lambda *_: None, resume=True) == best
    assert list(resumed.scores.items()) == list(whole.scores.items())


def test_a_search_ends_where_all_is_known(tmp_path: Path) -> None:
    found = WidthSearch(WidthsStage(name="w"), {"a": (1, 2), "b": (1,)}, lambda genome: 0.5, tmp_path / "s", seed=0)
    assert found.run(lambda *_: None, resume=False) == (1, 1)  # of equal ones the narrower
    assert set(found.scores) == {(1, 1), (2, 1)}
    assert found.generation < 31


def test_children_take_from_both_parents_and_every_width_may_be_drawn(tmp_path: Path) -> None:
    found, random = search(tmp_path / "s", mutation=0.01), np.random.default_rng(0)
    parents = [(1, 1, 1, 1, 1), (8, 8, 8, 8, 8)]
    crossed = {found._crossed(parents, random) for _ in range(200)}
    assert crossed == {(a,) * point + (b,) * (5 - point) for a in (1, 8) for b in (1, 8) for point in range(1, 5)}
    mutated = [found._mutated(parents[:1], random) for _ in range(300)]
    assert {width for genome in mutated for width in genome} == {1, 2, 4, 8}
    assert sum(np.count_nonzero(np.array(genome) != 1) > 1 for genome in mutated) < 30
    assert parents == [(1, 1, 1, 1, 1), (8, 8, 8, 8, 8)]


def test_a_damaged_state_is_told(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"generation": 1}')
    with pytest.raises(ConfigError, match=r"state\.json is damaged \('scores'\); delete it to search again"):
        search(tmp_path / "state.json").run(lambda *_: None, resume=True)
