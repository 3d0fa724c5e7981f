"""``recembed train``: one process, or several, started here or by torchrun."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recembed.cli.answer import Answer
from recembed.cli.command import INTERRUPTED, Mode, command

if TYPE_CHECKING:
    from recembed.run import RunResult

__all__ = ["train"]


@command
def train(
    config: Annotated[Path, typer.Argument(help="YAML file of the whole run; configs/ holds some.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace one setting; may stand several times."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; by default runs/<name of the config>.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in --out.")] = False,
    nproc: Annotated[int, typer.Option(metavar="N", help="Train in N processes of this machine.")] = 1,
    plan: Annotated[
        str | None,
        typer.Option(help="Which process holds which rows: a sharding.yaml that a run wrote, 'size' or 'torchrec'."),
    ] = None,
    warm_start: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Begin with what an earlier run knows of the same ids.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Give up a process that does not answer for so long.")
    ] = 600.0,
    *,
    mode: Mode,
) -> Answer:
    """Train a model, evaluate it, and keep it as a run; by torchrun, in as many processes as it starts."""
    folder = out or Path("runs") / config.stem
    if _task(config) == "retrieval":
        from recembed.cli.retrieval import refuse_flags, train_retrieval_run

        refuse_flags({"--nproc": nproc if nproc != 1 else None, "--plan": plan, "--warm-start": warm_start})
        return train_retrieval_run(config, overrides or [], folder, resume=resume, overwrite=overwrite)
    settings = [*(overrides or []), *([f"warm_start={warm_start}"] if warm_start else [])]
    words = [str(config), *(word for setting in settings for word in ("--set", setting)), "--out", str(folder)]
    if nproc != 1:
        flags = {"--resume": resume, "--overwrite": overwrite, "--json": mode.json, "--debug": mode.debug}
        words += [flag for flag, given in flags.items() if given]
        words += ["--timeout", str(timeout), *(("--plan", plan) if plan else ())]
        _start(words, nproc)
    from recembed.config import load_config
    from recembed.run import train as train_run
    from recembed.run.device import backend_of, choose_device
    from recembed.run.launch import joined, restarted

    resume_line = " ".join(["recembed train", str(config), *(f"--set '{o}'" for o in settings)])
    resume_line += f" --out {folder} --resume"
    again = resume or restarted()
    run = load_config(config, settings)
    with joined(timeout, backend_of(choose_device(run.training.device))) as processes:
        try:
            result = train_run(
                run,
                folder,
                resume=again,
                overwrite=overwrite and not restarted(),
                say=_say,
                processes=processes,
                plan=plan,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; where a checkpoint was written, go on with: {resume_line}") from None
    return _answer(result, folder, resume_line, processes.rank)


def _task(config: Path) -> str:
    """Return the task of a run, which says who reads the rest of its file."""
    from recembed.config import read_settings

    return str(read_settings(config).get("task", "ctr"))


def _start(words: Sequence[str], count: int) -> None:
    """Run the same command in ``count`` processes and end as they do."""
    from recembed.run.launch import launch

    raise typer.Exit(launch(["train", *words], count))


def _answer(result: "RunResult", folder: Path, resume_line: str, rank: int) -> Answer:
    from recembed.cli.tables import run_tables

    interrupted = result.training.stopped == "interrupted"
    if rank:
        raise typer.Exit(INTERRUPTED if interrupted else 0)  # rank 0 answers for all
    document = {"run": folder, **result.metrics, "tracking": result.url}
    if interrupted:
        return Answer(document, [], INTERRUPTED, f"interrupted, and saved; go on with: {resume_line}")
    lines = [f"run      {folder}", *([f"tracking {result.url}"] if result.url else [])]
    return Answer(document, [*run_tables(result.metrics), *lines])


def _say(line: str) -> None:
    typer.echo(line, err=True)
