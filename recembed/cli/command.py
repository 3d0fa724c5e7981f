"""How every command behaves: its two shared flags, its exit codes, and where its words go.

stdout holds the answer and nothing else; progress, warnings and errors go to stderr. Exit codes: 0 fine, 1 a bug,
2 bad input (or a "no" from ``doctor``), 130 interrupted.
"""

import contextlib
import errno
import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer

from recembed.cli.answer import Answer, to_json
from recembed.errors import RecembedError

__all__ = ["BAD_INPUT", "BUG", "INTERRUPTED", "DebugFlag", "JsonFlag", "Mode", "command"]

BUG, BAD_INPUT, INTERRUPTED = 1, 2, 130
_FAULTS_OF_THE_PLACE = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT}
_WIDTH_OF_A_PIPE = 120
"""Columns of the tables where stdout is no terminal."""


@dataclass
class Mode:
    """What the shared flags ask for.

    Attributes:
        json: Print one JSON document.
        debug: Show tracebacks.
    """

    json: bool = False
    debug: bool = False


JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
DebugFlag = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def command(body: Callable[..., Answer]) -> Callable[..., None]:
    """Turn a function that returns an ``Answer`` into a command with ``--json`` and ``--debug``.

    Both flags also stand before the command's name; either place counts. A ``body`` that has an argument ``mode`` is
    told what they ask for.
    """
    own = [parameter for name, parameter in inspect.signature(body).parameters.items() if name != "mode"]
    told = len(own) < len(inspect.signature(body).parameters)

    @functools.wraps(body)
    def run(context: typer.Context, json: bool, debug: bool, **arguments: object) -> None:
        mode: Mode = context.ensure_object(Mode)
        mode.json |= json
        mode.debug |= debug
        if told:
            arguments["mode"] = mode
        _print(_answer(functools.partial(body, **arguments), mode), mode)

    shared = {"context": typer.Context, "json": JsonFlag, "debug": DebugFlag}
    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for (name, annotation), default in zip(shared.items(), (inspect.Parameter.empty, False, False), strict=True)
    ]
    signature = inspect.signature(body)
    run.__signature__ = signature.replace(parameters=[*own, *extra])  # type: ignore[attr-defined]
    run.__annotations__ = {name: kind for name, kind in body.__annotations__.items() if name != "mode"} | shared
    return run


def _answer(body: Callable[[], Answer], mode: Mode) -> Answer:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # libraries talk; stdout is for the answer
            return body()
    except typer.Exit:
        raise
    except RecembedError as error:
        raise _stop(BAD_INPUT, f"error: {error}", mode) from None
    except KeyboardInterrupt as stop:
        raise _stop(INTERRUPTED, str(stop) or "interrupted", mode) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FAULTS_OF_THE_PLACE:
            place = f"{error.filename}: " if error.filename else ""
            fix = "free some space or choose another folder"
            raise _stop(BAD_INPUT, f"error: {place}{error.strerror}; {fix}", mode) from None
        said = f"bug: {type(error).__name__}: {error}"
        raise _stop(BUG, f"{said} (--debug shows the traceback; please report it)", mode) from None


def _stop(code: int, line: str, mode: Mode) -> typer.Exit:
    if mode.debug and code != INTERRUPTED:
        traceback.print_exc()
    rank = os.environ.get("RANK", "0")
    _say(line if rank == "0" else f"rank {rank}: {line}")
    return typer.Exit(code)


def _print(answer: Answer, mode: Mode) -> None:
    if mode.json:
        sys.stdout.write(to_json(answer.document) + "\n")
    else:
        from rich.console import Console

        console = Console(highlight=False, markup=False)
        if not console.is_terminal:
            console.width = max(console.width, _WIDTH_OF_A_PIPE)
        for item in answer.shown:
            console.print(item, soft_wrap=isinstance(item, str))
    if answer.last_words:
        _say(answer.last_words)
    if answer.exit_code:
        raise typer.Exit(answer.exit_code)


def _say(line: str) -> None:
    """Write one line to stderr, whatever breaks stand in it."""
    sys.stderr.write(" ".join(line.split()) + "\n")
    sys.stderr.flush()
