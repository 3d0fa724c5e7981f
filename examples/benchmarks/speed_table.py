"""The whole speed table: every cell in a process of its own, in rounds, and ratios formed within a round.

    python examples/benchmarks/speed_table.py --rounds 3
    python examples/benchmarks/speed_table.py --only "bare-*" --only step --rows 100000

A round runs every cell once, all that are compared with one of ours next to it, every second round backwards; so load and heat
that come and go meet both sides. Lines as they were printed go to ``--lines`` as they come, ``--report FILE`` prints the table of such
a file again. README.md beside this file says what the rows are and how ``--peer`` adds others.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from speed_data import place_of
from speed_report import read_lines, table
from speed_rows import CELLS, FILES, Peer, Row, fill, rows_for

HERE = Path(__file__).parent


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=200_000, help="training rows of a cell")
    parser.add_argument("--only", action="append", default=[], help="rows of the table by name, * allowed; repeatable")
    parser.add_argument("--long", action="store_true", help="also the AUC after an epoch of --long-rows")
    parser.add_argument("--long-rows", type=int, default=1_000_000, help="rows of the CSV that is drawn, too")
    parser.add_argument("--peer", type=Peer.of, action="append", default=[], help="NAME[@PATTERN]=COMMAND; repeatable")
    parser.add_argument("--precision", default="float32", choices=["float32", "bf16"], help="of ours and the bare loop")
    parser.add_argument("--ours", default="", help="further words for ctr_throughput.py")
    parser.add_argument("--threads", type=int, help="of every process; left out, torch and polars choose")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds that a cell may take")
    parser.add_argument("--folder", type=Path, default=Path("runs/speed"), help="where drawn data and lines go")
    parser.add_argument("--lines", type=Path, help="file of the lines; left out, a new one in --folder")
    parser.add_argument("--report", type=Path, help="run nothing, print the table of this file")
    parser.add_argument("--list", action="store_true", help="run nothing, print the names of the rows")
    default = os.environ.get("PEERS_DATA", Path.home() / ".cache/peers/data")
    parser.add_argument("--data", type=Path, default=Path(default), help="v1m and v10m, as criteo_shaped.py has them")
    return parser.parse_args()


def cells_of(rows: Sequence[Row]) -> list[str]:
    """Return the cells that rows need, each once; those that are compared, by however many rows, stand together."""
    groups: list[dict[str, None]] = []
    for row in rows:
        named = dict.fromkeys(side.partition("/")[0] for side in (row.cell, row.against) if side)
        joined = [group for group in groups if group.keys() & named.keys()]
        groups = [group for group in groups if group not in joined]
        groups.append({cell: None for group in (*joined, named) for cell in group})
    return [cell for group in groups for cell in group]


def commands(cells: Sequence[str], options: argparse.Namespace) -> dict[str, str]:
    """Return the command of each cell; ``{seed}`` stays, since it differs by round."""
    peers = {f"{peer.name}:{cell}": peer.words(cell) for peer in options.peer for cell in peer.cells()}
    words = {"samples": options.rows, "long": options.long_rows, "precision": options.precision}
    words["ours"] = f"--precision {options.precision} {options.ours}"
    found = {}
    for cell in cells:
        base = cell.rpartition(":")[2]
        needed = ("train.csv",) if base == "csv" else ("meta.json", "train.parquet", "test.parquet")
        vocab, always = FILES[base], base.startswith("step-")
        most = max(options.rows, options.long_rows) if vocab == "1m" else options.rows
        words["data"] = place_of(vocab, needed, options.data, options.folder.absolute(), most, always=always)
        own = f"{shlex.quote(sys.executable)} {shlex.quote(str(HERE))}/"
        found[cell] = fill(peers.get(cell) or own + CELLS[cell], words | {"data": shlex.quote(str(words["data"]))})
    return found


def measure(cell: str, number: int, command: str, timeout: float, environment: Mapping[str, str]) -> list[str]:
    """Run a cell and return its lines as JSON, each with cell and round; one that says why where it failed."""
    started = time.perf_counter()
    done = None
    try:
        words = shlex.split(fill(command, {"seed": 6 + number}))
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, env=dict(environment))
        found, failed = read_lines(done.stdout), done.stderr[-500:] if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        found, failed = [], str(error)
    if failed or not found:
        found = [{"failed": failed or "it printed no JSON line"}]
    about = {"cell": cell, "round": number, "cell_s": round(time.perf_counter() - started, 1)}
    return [json.dumps(about | line) for line in found]


def run(rows: Sequence[Row], options: argparse.Namespace, file: Path) -> bool:
    """Run all rounds into ``file``; return whether every cell ran."""
    cells, good = cells_of(rows), True
    prepared = commands(cells, options)
    threads = (
        {} if options.threads is None else dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS"), options.threads)
    )
    environment = os.environ | {name: str(count) for name, count in threads.items()}
    with file.open("w") as written:
        for number in range(1, options.rounds + 1):
            for cell in cells if number % 2 else reversed(cells):
                lines = measure(cell, number, prepared[cell], options.timeout, environment)
                written.write("\n".join(lines) + "\n")
                written.flush()
                first = json.loads(lines[0])
                good = good and "failed" not in first
                print(
                    f"round {number}, {cell}: {first['cell_s']} s {first.get('failed', '')}",
                    file=sys.stderr,
                    flush=True,
                )
    return good


def main() -> None:
    """Run, then print the table; fail where a cell failed."""
    options = arguments()
    rows = rows_for(options.peer, options.only, long=options.long)
    if options.list or not rows:
        print("\n".join(f"{row.name:<28} {row.what}" for row in rows or rows_for(options.peer, [], long=True)))
        sys.exit(not options.list)
    if options.report:
        print(table(read_lines(options.report.read_text()), rows))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    file = options.lines or options.folder / f"lines-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
    good = run(rows, options, file)
    print(table(read_lines(file.read_text()), rows))
    print(f"\n{options.rounds} rounds, {options.rows:,} rows a cell, {options.precision}; lines: {file}")
    sys.exit(not good)


if __name__ == "__main__":
    main()
