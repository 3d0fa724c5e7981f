"""The commands, one function each: arguments in, an answer out; heavy imports wait for the command that needs them."""

import logging
import signal
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from recembed.cli.answer import Answer
from recembed.cli.command import BAD_INPUT, DebugFlag, JsonFlag, Mode, command
from recembed.cli.compare import compare
from recembed.cli.encode import encode
from recembed.cli.train import train
from recembed.errors import ConfigError

__all__ = ["app", "main"]

app = typer.Typer(
    name="recembed",
    help="Feature embeddings for recommender systems: compact tables, trained, exported, proved.",
    epilog="--json and --debug stand before or after the command. Exit codes: 0 fine, 1 a bug, 2 bad input, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Run = Annotated[Path, typer.Argument(help="Folder of a run, as 'train' made it.")]


def main() -> None:
    """Run the command line.

    SIGTERM unwinds like an error, so that a tracked run is closed and files in the making are removed; during
    training the trainer answers it, saves and stops.
    """
    signal.signal(signal.SIGTERM, _terminate)
    words = logging.StreamHandler()
    words.setFormatter(logging.Formatter("%(message)s"))
    own = logging.getLogger("recembed")
    own.addHandler(words)
    own.propagate = False
    app()


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _terminate(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"recembed {metadata.version('recembed')}")
        raise typer.Exit()


@app.callback()
def shared(
    context: typer.Context,
    json: JsonFlag = False,
    debug: DebugFlag = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Keep the flags that stand before the command."""
    context.obj = Mode(json, debug)


app.command()(train)


@app.command()
@command
def evaluate(
    run: Run,
    data: Annotated[
        str | None, typer.Option(help="Other rows: a file, a folder or a glob; by default the run's test rows.")
    ] = None,
    against: Annotated[Path | None, typer.Option(help="Another run, for a paired test on the same rows.")] = None,
) -> Answer:
    """Measure a run on its test rows or on other rows, or test it against another run."""
    from recembed.cli.tables import evaluation_tables
    from recembed.run import evaluate_run, is_retrieval_run

    if is_retrieval_run(run):
        from recembed.cli.retrieval import evaluate_retrieval_run

        return evaluate_retrieval_run(run, data=data, against=against)
    document = evaluate_run(run, data=data, against=against)
    return Answer(document, evaluation_tables(document))


@app.command()
@command
def predict(
    run: Run,
    data: Annotated[str, typer.Argument(help="Rows to score: a file, a folder or a glob.")],
    out: Annotated[Path, typer.Option(help="Where to write the scores; .parquet or .csv.")],
) -> Answer:
    """Score rows with a run; unseen ids work, and are counted."""
    from recembed.run import is_retrieval_run, predict_run

    if is_retrieval_run(run):
        raise ConfigError(f"run {run} is of task 'retrieval', which scores no rows; export it and compare vectors")
    document = predict_run(run, data, out)
    unseen = [f"unseen ids of {name}: {count:,}" for name, count in document.get("unseen", {}).items() if count]
    return Answer({"out": out, **document}, [f"{document['rows']:,} rows scored in {out}", *unseen])


@app.command()
@command
def export(
    run: Run,
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    feature: Annotated[
        str | None, typer.Option(help="Whose vectors to export; by default those of the item's id.")
    ] = None,
    metric: Annotated[str, typer.Option(help="How vectors are to be compared: dot or cosine.")] = "dot",
    faiss: Annotated[bool, typer.Option("--faiss", help="Add a FAISS index.")] = False,
    new_items: Annotated[
        bool, typer.Option("--new-items", help="Index items known by their content alone too, after the others.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the bundle that is in --out.")] = False,
) -> Answer:
    """Write vectors, id map and model as one bundle, and prove it equal to the run."""
    from recembed.cli.tables import manifest_table
    from recembed.run import export_run, is_retrieval_run

    if is_retrieval_run(run):
        from recembed.cli.retrieval import export_retrieval_run

        if new_items:
            raise ConfigError(
                f"--new-items: run {run} is of task 'retrieval', whose bundles hold no items by content alone"
            )
        return export_retrieval_run(run, out, feature=feature, metric=metric, faiss=faiss, overwrite=overwrite)
    options = {"faiss": faiss, "new_items": new_items, "overwrite": overwrite}
    manifest = export_run(run, out, feature=feature, metric=metric, **options)
    return Answer({"bundle": out, "manifest": manifest}, [manifest_table(manifest), f"bundle   {out}"])


@app.command()
@command
def verify(bundle: Annotated[Path, typer.Argument(help="Folder of a bundle, as 'export' made it.")]) -> Answer:
    """Check a bundle once more: checksums, golden scores, vectors."""
    from recembed.export import verify_bundle
    from recembed.export.retrieval import is_pair

    if is_pair(bundle):
        from recembed.cli.retrieval import verify_retrieval_bundles

        return verify_retrieval_bundles(bundle)
    report = verify_bundle(bundle)
    difference = max(report.difference.values(), default=0.0)
    line = (
        f"{report.files} files whole, {report.vectors:,} vectors, "
        f"{report.golden_rows:,} golden rows scored again within {difference:.1e}"
    )
    return Answer(report, [line])


@app.command()
@command
def infer(
    path: Annotated[str, typer.Argument(help="A file, a folder or a glob.")],
    label: Annotated[str | None, typer.Option(help="The target column, where its name does not tell.")] = None,
) -> Answer:
    """Propose a schema for files, as YAML to be read and mended."""
    from recembed.schema.feature import Schema

    schema = Schema.infer(path, label=label)
    return Answer(schema.model_dump(mode="json", exclude_defaults=True), [schema.to_yaml().rstrip()])


@app.command()
@command
def datasets() -> Answer:
    """List the data sets that are known by name, and where they were found."""
    from recembed.cli.known import known_datasets
    from recembed.cli.tables import datasets_table

    known = known_datasets()
    return Answer(known, [datasets_table(known)])


@app.command()
@command
def doctor() -> Answer:
    """Show what is installed, whether it fits together, and how to mend what does not."""
    from recembed.cli.tables import checks_table
    from recembed.doctor import diagnose

    checks = diagnose()
    failed = any(check.status == "fail" for check in checks)
    return Answer(checks, [checks_table(checks)], BAD_INPUT if failed else 0)


@app.command()
@command
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for the runs, the chart and the bundle.")] = Path("quickstart"),
) -> Answer:
    """Train three ways to embed MovieLens-100K, compare them, and export the smallest."""
    from recembed.cli.tables import quickstart_tables
    from recembed.quickstart import run_quickstart

    result = run_quickstart(out, say=_say)
    return Answer(result, quickstart_tables(result))


app.command()(compare)
app.command()(encode)
