import pytest
from pydantic import ValidationError

from recembed.errors import ConfigError
from recembed.training import Schedule


def factors(steps: int, **settings: object) -> list[float]:
    schedule = Schedule.model_validate(settings)
    return [round(schedule.factor(step, steps), 4) for step in range(steps)]


def test_constant_stays_at_one() -> None:
    assert factors(3) == [1.0, 1.0, 1.0]


def test_warmup_rises_to_one() -> None:
    assert factors(6, warmup_steps=4) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_linear_ends_at_the_final_factor() -> None:
    assert factors(5, kind="linear") == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert factors(5, kind="linear", final_factor=0.2) == [1.0, 0.8, 0.6, 0.4, 0.2]


def test_cosine_is_half_way_down_in_the_middle() -> None:
    assert factors(5, kind="cosine") == [1.0, 0.8536, 0.5, 0.1464, 0.0]
    assert factors(7, kind="cosine", warmup_steps=2, final_factor=0.5)[2:] == [1.0, 0.9268, 0.75, 0.5732, 0.5]


def test_a_step_beyond_the_end_keeps_the_final_factor() -> None:
    assert Schedule(kind="cosine", final_factor=0.1).factor(99, steps=10) == pytest.approx(0.1)


def test_one_step_needs_no_division_by_zero() -> None:
    assert factors(1, kind="linear") == [1.0]


def test_a_warmup_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"warmup_steps = 10: expected fewer than the 10 steps of the run; lower it"):
        Schedule(warmup_steps=10).check(10)
    Schedule(warmup_steps=9).check(10)


def test_a_negative_warmup_is_refused() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Schedule(warmup_steps=-1)
