"""How the learning rates move over a run: one factor for dense parameters and rows alike."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from recembed.errors import ConfigError

__all__ = ["Schedule"]


class Schedule(BaseModel):
    """A factor on every learning rate of the run.

    Attributes:
        kind: ``constant`` at 1, or falling from 1 to ``final_factor`` on a line (``linear``) or half a ``cosine``.
        warmup_steps: Steps of a linear rise to 1 at the start.
        final_factor: Factor at the last step of ``linear`` and ``cosine``.

    >>> falling = Schedule(kind="linear", warmup_steps=2, final_factor=0.2)
    >>> [round(falling.factor(step, steps=6), 3) for step in range(6)]
    [0.5, 1.0, 1.0, 0.733, 0.467, 0.2]
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    final_factor: Annotated[float, Field(ge=0, le=1)] = 0.0

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of ``step``, counted from 0, in a run of ``steps``."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.kind == "constant":
            return 1.0
        done = min((step - self.warmup_steps) / max(steps - 1 - self.warmup_steps, 1), 1.0)
        left = 1 - done if self.kind == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.final_factor + (1 - self.final_factor) * left

    def check(self, steps: int) -> None:
        """Refuse a run of ``steps`` that ends before the warm-up does.

        Raises:
            ConfigError: ``warmup_steps`` is ``steps`` or more.
        """
        if self.warmup_steps and self.warmup_steps >= steps:
            raise ConfigError(
                f"training.schedule.warmup_steps = {self.warmup_steps}: expected fewer than the {steps} steps of the "
                "run; lower it, or train for more epochs or with a smaller batch_size"
            )
