"""The chart of a comparison that has only begun."""

from pathlib import Path

import pytest

from recembed.compare.chart import draw_pareto
from recembed.compare.table import Line

pytest.importorskip("matplotlib")


def line(method: str, auc: float | None) -> Line:
    return Line(method, "full", "not run" if auc is None else "done", 1, auc=auc, served_bytes=34_200)


@pytest.mark.parametrize("methods", [["full"], ["full", "int8"]])
def test_points_of_one_size_have_a_chart_without_complaints(methods: list[str], tmp_path: Path) -> None:
    lines = [line(method, 0.7) for method in methods]  # a warning would be an error here
    assert draw_pareto([*lines, line("hashed", None)], tmp_path / "pareto.png", "one size")
    assert (tmp_path / "pareto.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_without_results_there_is_no_chart(tmp_path: Path) -> None:
    assert not draw_pareto([line("full", None)], tmp_path / "pareto.png", "nothing yet")
    assert not list(tmp_path.iterdir())
