"""The YAML file of a comparison: one run, and what is varied about it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_serializer, model_validator

from recembed.compare.overrides import merged, with_key
from recembed.config import RunConfig, apply_override, read_settings
from recembed.embedding.config import parse_bytes
from recembed.errors import ConfigError, did_you_mean
from recembed.settings import explain_validation

__all__ = ["Budget", "ComparisonConfig", "Method", "load_comparison"]

_LABEL = re.compile(r"[A-Za-z0-9][\w .+=-]*")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Budget(_Section):
    """How many bytes a method may serve.

    Attributes:
        text: As it was written, for tables and folders.
        bytes: Served bytes, first-order weights included.
        ratio: Or the share of the exact tables' bytes; with neither the method keeps the size of its settings.

    >>> Budget.parse("158 kB"), Budget.parse(0.1).ratio, Budget.parse(None).text
    (Budget(text='158 kB', bytes=158000, ratio=None), 0.1, 'full')
    """

    text: str
    bytes: int | None = None
    ratio: float | None = None

    @classmethod
    def parse(cls, raw: Any) -> "Budget":
        """Read a size (``158 kB``, ``20 MB``), a share (``0.1``) or the lack of a budget (``full`` or null).

        Raises:
            ValueError: it is none of these.
        """
        if isinstance(raw, Budget):
            return raw
        if raw is None or raw == "full":
            return cls(text="full")
        if isinstance(raw, float | int) and not isinstance(raw, bool) and 0 < raw <= 1:
            return cls(text=f"{raw:g}", ratio=float(raw))
        size = parse_bytes(raw)
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"budget {raw!r}: expected a size such as '158 kB', a share such as 0.1, or full")
        return cls(text=raw if isinstance(raw, str) else f"{size} B", bytes=size)

    @model_serializer
    def _plain(self) -> str | float:
        return self.text if self.ratio is None else self.ratio

    @property
    def overrides(self) -> dict[str, Any]:
        """The keys of a run that ask for it."""
        if self.bytes is not None:
            return {"embeddings.embedding_budget": self.bytes}
        return {} if self.ratio is None else {"embeddings.ratio": self.ratio}

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return self.text.replace(" ", "")


Budgets = Annotated[
    tuple[Annotated[Budget, BeforeValidator(Budget.parse)], ...],
    BeforeValidator(lambda raw: raw if isinstance(raw, list | tuple) else [raw]),
]


class Method(_Section):
    """What one line of the comparison changes about the run.

    Attributes:
        set: Settings laid over the base: sections as in a run, or dotted keys.
        budgets: Its own budgets; None takes the comparison's where one of its tables has a size to be solved for.
        skip_budgets: Budgets of the comparison that it does not take.
    """

    set: dict[str, Any] = {}
    budgets: Budgets | None = None
    skip_budgets: Budgets = ()

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, raw: Any) -> Any:
        """Take one word for the kind of table; keys that are not its own are settings of the run."""
        if isinstance(raw, str):
            return {"set": {"embeddings.table": raw}}
        if not isinstance(raw, dict):
            return raw
        own = {key: value for key, value in raw.items() if key in cls.model_fields}
        return own | {"set": {key: value for key, value in raw.items() if key not in own} | dict(own.get("set") or {})}


class ComparisonConfig(_Section):
    """A whole comparison.

    Attributes:
        name: Shown in tracking and on the page.
        base: The run that is varied, plain values as in its own YAML file.
        methods: By label, what each changes.
        budgets: Served bytes at which the methods are compared: sizes, shares, or ``full`` for no budget.
        seeds: Each cell is trained once with each of them; the rows and their split stay the same.
        grid: Values to try, by dotted key; the best on the validation rows with the first seed serves all seeds.
        tune_per: Choose from the grid anew for each ``budget`` of a method, or once per ``method``, at its first.
        metric: The validation metric that chooses.
        reference: The method, at its first budget, that the paired tests are against.
        keep_checkpoints: Keep the weights of every cell; without them a cell can be read, but not served.

    >>> config = ComparisonConfig.parse(
    ...     {"base": {"data": {"dataset": "ml100k"}}, "methods": {"full": "full", "hashed": "hashed"}, "budgets": [0.1]}
    ... )
    >>> [(label, [b.text for b in config.budgets_of(label)]) for label in config.methods]
    [('full', ['full']), ('hashed', ['0.1'])]
    """

    name: str = "comparison"
    base: dict[str, Any]
    methods: Annotated[dict[str, Method], Field(min_length=1)]
    budgets: Budgets = (Budget(text="full"),)
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1)] = (0, 1, 2)
    grid: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = {}
    tune_per: Literal["budget", "method"] = "budget"
    metric: Literal["auc", "logloss"] = "auc"
    reference: str = "full"
    keep_checkpoints: bool = False

    @model_validator(mode="after")
    def _check(self) -> "ComparisonConfig":
        if self.reference not in self.methods:
            raise ValueError(
                f"reference {self.reference!r} is none of the methods" + did_you_mean(self.reference, self.methods)
            )
        for label, method in self.methods.items():
            if not _LABEL.fullmatch(label):
                raise ValueError(f"method {label!r}: expected letters, digits, spaces and _ . + = -; it names a folder")
            own = method.budgets if method.budgets is not None else self.budgets
            for budget in method.skip_budgets:
                if budget not in own:
                    raise ValueError(f"method {label!r} skips budget {budget.text!r}, which is none of its budgets")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds = {list(self.seeds)}: each counts once")
        return self

    @classmethod
    def parse(cls, raw: Any) -> "ComparisonConfig":
        """Build from plain values; every method's run is read once, so that mistakes show before any training.

        Raises:
            ConfigError: the place, the value and the nearest key.
        """
        try:
            config = cls.model_validate(raw)
        except ValidationError as error:
            raise ConfigError(explain_validation(error, "comparison", cls)) from None
        _check_rows(_read("base", config.base), tunes=bool(config.grid))
        for label in config.methods:
            for values in ({}, *({key: value} for key, listed in config.grid.items() for value in listed)):
                _read(f"methods.{label}", config.settings(label, values))
            if not config.budgets_of(label):
                raise ConfigError(f"method {label!r} skips all budgets; leave it out, or skip fewer")
        return config

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, every default written out; ``parse`` reads them."""
        return self.model_dump(mode="json")

    def settings(self, label: str, overrides: dict[str, Any]) -> dict[str, Any]:
        """Return the plain run config of a method with ``overrides`` (dotted keys) laid over it."""
        raw = merged(self.base, self.methods[label].set)
        for key, value in overrides.items():
            raw = with_key(raw, key, value)
        return raw

    def budgets_of(self, label: str) -> tuple[Budget, ...]:
        """Return the budgets that a method takes."""
        method = self.methods[label]
        if method.budgets is not None:
            budgets = method.budgets
        else:
            budgets = self.budgets if self._sized(label) else (Budget(text="full"),)
        return tuple(budget for budget in budgets if budget not in method.skip_budgets)

    def _sized(self, label: str) -> bool:
        """Return whether a table of the method has a size that a budget could change."""
        embeddings = RunConfig.parse(self.settings(label, {})).embeddings
        tables = [embeddings.table, *(options.table for options in embeddings.features.values() if options.table)]
        return any(table.resized(0.5) is not table for table in tables)


def _read(where: str, raw: dict[str, Any]) -> RunConfig:
    try:
        return RunConfig.parse(raw)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _check_rows(run: RunConfig, *, tunes: bool) -> None:
    """Raise ``ConfigError`` where the split leaves no rows to compare on, or none to choose from the grid by."""
    split = run.split
    if split is None or split.by == "column":
        return
    if not split.test and not split.cold_items:
        raise ConfigError("base: split.test = 0: a comparison is of test rows; set split.test, for example to 0.1")
    if tunes and not split.valid:
        raise ConfigError(
            "base: split.valid = 0: the best of the grid is chosen by validation rows; set split.valid, for example to "
            "0.1, or leave the grid out"
        )


def load_comparison(path: Path | str, overrides: Sequence[str] = ()) -> ComparisonConfig:
    """Read a comparison from a YAML file, then apply ``key=value`` overrides (dotted keys, values in YAML).

    ``base`` may be the path of a run's YAML file, counted from the comparison's folder.

    Raises:
        ConfigError: no such file, broken YAML, an unknown key (the nearest is offered) or a value out of range.
    """
    path = Path(path)
    raw = read_settings(path)
    if isinstance(raw.get("base"), str):
        raw["base"] = read_settings(path.parent / raw["base"])
    for override in overrides:
        apply_override(raw, override)
    return ComparisonConfig.parse({"name": path.stem} | raw)
