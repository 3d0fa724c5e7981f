"""The HTML page of a comparison: one file that needs no other."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recembed.compare.chart import size_text
from recembed.compare.overrides import flat
from recembed.compare.settings import ComparisonConfig
from recembed.compare.statistics import Effect, Paired
from recembed.compare.table import Line

__all__ = ["Facts", "page", "reading_notes", "tuning_text"]

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 78rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.86rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2), td.words { text-align: left; }
td.words { white-space: normal; min-width: 16rem; } th { border-bottom-width: 2px; vertical-align: bottom; }
tr.reference { background: var(--soft); } tr.failed td { color: #b3392f; } small { opacity: 0.75; }
img { max-width: 100%; background: white; border-radius: 6px; } pre { background: var(--soft); padding: 1rem; overflow-x: auto; }
"""


@dataclass(frozen=True)
class Facts:
    """What the page says beside the numbers.

    Attributes:
        date: When it was written.
        versions: Of everything that matters, by name.
        test_rows: Rows that all methods were tested on.
        finished: Whether every cell has run.
    """

    date: str
    versions: Mapping[str, str]
    test_rows: int | None
    finished: bool


def page(config: ComparisonConfig, lines: Sequence[Line], chart: Path | None, facts: Facts) -> str:
    """Return the page; ``chart`` is put into it."""
    rows = "" if facts.test_rows is None else f" on the same {facts.test_rows:,} test rows"
    unfinished = "" if facts.finished else "<p><b>Not finished: some cells have not run yet.</b></p>"
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><meta charset="utf-8"><title>{_text(config.name)}</title><style>{_STYLE}</style>',
            f"<h1>{_text(config.name)}</h1>",
            f"<p>{len(config.methods)} methods, {len(config.seeds)} seeds{rows}; {_text(facts.date)}</p>{unfinished}",
            _image(chart),
            "<h2>Table</h2>",
            _table(lines, config),
            "<ul>" + "".join(f"<li>{_text(note)}</li>" for note in reading_notes(config)) + "</ul>",
            _failures(lines),
            "<h2>How it was tuned</h2>",
            f"<p>{_text(tuning_text(config))}</p>{_grid(config)}",
            "<h2>What was held equal</h2>",
            f"<p>{_text(_varied(config))}</p>",
            f"<details><summary>The run that was varied</summary><pre>{_yaml(config.base)}</pre></details>",
            f"<details><summary>The methods</summary><pre>{_yaml(_methods(config))}</pre></details>",
            "<h2>Made with</h2>",
            "<p>" + "<br>".join(f"{_text(name)}: {_text(value)}" for name, value in facts.versions.items()) + "</p>",
            "</html>",
        ]
    )


def reading_notes(config: ComparisonConfig) -> list[str]:
    """Return how the numbers are to be read, one sentence each."""
    many = len(config.seeds) > 1
    over = "Student's paired test over seeds" if many else "DeLong's test (AUC) and the t test of row losses"
    return [
        f"± is the sample standard deviation over {len(config.seeds)} seeds of weights, order and hashes."
        if many
        else "One seed: there is no deviation to show.",
        f"Differences are to {config.reference!r} with the same seeds on the same rows; better is a higher AUC and a "
        f"lower log loss. Interval (95 %) and p: {over}.",
        "p over rows tests the mean of the seeds against fresh test rows (rows of one user count as one observation). "
        "No p is corrected for the number of methods.",
        "Bytes in training are float32 rows and dense parameters of the embeddings, without optimiser state; served "
        "bytes are those of the form that is exported, remaps, codes and scales included.",
        "Lookup: nanoseconds per id of the serving form, test rows in batches of 4,096, one thread, median of 15 passes. "
        "Training time leaves loading out, and covers all stages of a method.",
    ]


def tuning_text(config: ComparisonConfig) -> str:
    """Return how settings were chosen, in one sentence or two."""
    if not config.grid:
        return "Nothing was tuned: every method ran under the settings of the base run and its own."
    points = 1
    for values in config.grid.values():
        points *= len(values)
    per = "every method and budget" if config.tune_per == "budget" else "every method, at its first budget"
    return (
        f"The same grid of {points} points was tried for {per} with seed {config.seeds[0]}; the point with the best "
        f"validation {config.metric} then served all seeds. Test rows were not looked at."
    )


def _table(lines: Sequence[Line], config: ComparisonConfig) -> str:
    columns = ["method", "budget", "seeds", "AUC", "difference", "p", "p over rows", "log loss", "difference", "p"]
    columns += ["bytes trained", "bytes served", "share", "training", "samples/s", "ns per id"]
    columns += ["chosen"] if config.grid else []
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "\n".join(_row(line, bool(config.grid)) for line in lines)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _row(line: Line, tuned: bool) -> str:
    kind = "failed" if line.status == "failed" else "reference" if line.reference else ""
    cells = [
        *(_text(line.method), _text(line.budget), str(line.seeds)),
        _spread(line.auc, line.auc_std),
        *_effect(line.auc_paired),
        _text(line.auc_paired.rows.p_text) if line.auc_paired else "",
        _spread(line.logloss, line.logloss_std),
        *_effect(line.logloss_paired),
        "" if line.trained_bytes is None else size_text(line.trained_bytes),
        "" if line.served_bytes is None else size_text(line.served_bytes),
        "" if line.share is None else f"{100 * line.share:.3g} %",
        "" if line.training_seconds is None else f"{line.training_seconds:,.0f} s",
        "" if line.samples_per_second is None else f"{line.samples_per_second:,.0f}",
        "" if line.lookup_ns is None else f"{line.lookup_ns:,.0f}",
    ]
    row = "".join(f"<td>{cell}</td>" for cell in cells)
    chosen = ", ".join(f"{key.split('.')[-1]} {value}" for key, value in line.values.items())
    words = line.status if line.auc is None else chosen
    return f'<tr class="{kind}">{row}' + (f'<td class="words">{_text(words)}</td>' if tuned else "") + "</tr>"


def _spread(value: float | None, std: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" + ("" if std is None else f" <small>± {std:.4f}</small>")


def _effect(tests: Paired | None) -> tuple[str, str]:
    if tests is None:
        return "", ""
    effect: Effect = tests.best
    interval = f"<small>[{effect.low:+.4f}, {effect.high:+.4f}]</small>"
    return f"{effect.difference:+.4f} {interval}", _text(effect.p_text)


def _failures(lines: Sequence[Line]) -> str:
    failed = [line for line in lines if line.reason]
    if not failed:
        return ""
    items = "".join(f"<li>{_text(line.method)}, {_text(line.budget)}: {_text(line.reason)}</li>" for line in failed)
    return f"<h2>What failed</h2><ul>{items}</ul>"


def _grid(config: ComparisonConfig) -> str:
    items = "".join(
        f"<li><code>{_text(key)}</code>: {_text(', '.join(map(str, values)))}</li>"
        for key, values in config.grid.items()
    )
    return f"<ul>{items}</ul>" if items else ""


def _varied(config: ComparisonConfig) -> str:
    keys = sorted({key for method in config.methods.values() for key in flat(method.set)})
    return (
        "Rows, split, model and training are those of the run below. Between lines differ: "
        + ", ".join([*keys, "the byte budget", *config.grid])
        + ". Between seeds: training.seed (fresh weights, order of rows, hash salts); never the split."
    )


def _methods(config: ComparisonConfig) -> dict[str, Any]:
    return {
        label: method.set | {"budgets": [budget.text for budget in config.budgets_of(label)]}
        for label, method in config.methods.items()
    }


def _image(chart: Path | None) -> str:
    if chart is None:
        return ""
    data = base64.b64encode(chart.read_bytes()).decode()
    return f'<p><img alt="AUC against served bytes, one line a method" src="data:image/png;base64,{data}"></p>'


def _yaml(value: Any) -> str:
    return _text(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def _text(value: str) -> str:
    return html.escape(value)
