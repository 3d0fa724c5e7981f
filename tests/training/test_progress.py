import io

import pytest
from rich.console import Console

from recembed.training.progress import ProgressBar


def shown(visible: bool | None) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=140)
    with ProgressBar(10, 4, shown=visible, console=console) as bar:
        bar.advance(7, epoch="2/3", loss=0.51234, samples_per_second=12345.6)
        bar.evaluated("auc", 0.71239)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_bar_shows_step_epoch_loss_speed_and_metric() -> None:
    text = shown(True)
    for part in ("7/10", "epoch 2/3", "12,346 samples/s", "loss 0.5123", "auc 0.7124", "0:00:0"):
        assert part in text


def test_a_hidden_bar_prints_nothing() -> None:
    assert shown(False) == ""


def test_without_a_terminal_it_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert not ProgressBar(1).shown
