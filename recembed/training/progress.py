"""The progress bar of a training: step, epoch, loss, samples per second, time left."""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["ProgressBar"]


class ProgressBar:
    """A bar on the standard error stream; it costs nothing where it is not shown.

    Args:
        steps: Steps of the run.
        start: Steps done before.
        shown: None shows it on a terminal only.
        console: Where to; None is standard error.
    """

    def __init__(
        self, steps: int, start: int = 0, *, shown: bool | None = None, console: Console | None = None
    ) -> None:
        self.shown = sys.stderr.isatty() if shown is None else shown
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]} samples/s  loss {task.fields[loss]}  {task.fields[metric]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
            disable=not self.shown,
        )
        self._task = self._bar.add_task("", total=steps, completed=start, epoch="1", speed="-", loss="-", metric="")

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, step: int, *, epoch: str, loss: float, samples_per_second: float) -> None:
        """Show that ``step`` steps are done."""
        if self.shown:
            self._bar.update(
                self._task, completed=step, epoch=epoch, loss=f"{loss:.4f}", speed=f"{samples_per_second:,.0f}"
            )

    def evaluated(self, name: str, value: float) -> None:
        """Show the metric of the last evaluation."""
        if self.shown:
            self._bar.update(self._task, metric=f"{name} {value:.4f}")
