"""The benchmark of a log larger than memory runs, and draws the same files again."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "benchmarks" / "large_log.py"


def test_a_small_log_goes_through(tmp_path: Path) -> None:
    options = ("--rows", "5000", "--ids", "3000", "--mlp", "8", "--dim", "4", "--batch", "512", "--threads", "1")
    command = [sys.executable, str(SCRIPT), *options, "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = (json.loads(text) for text in done.stdout.splitlines())
    assert (line["rows"], line["columns"]) == (5000, 39)
    assert 0 < line["peak_anon_mb"] <= line["peak_rss_mb"]
    assert abs(line["order"]["rank_correlation"]) < 0.1
    assert (tmp_path / "rows" / "part-0000.parquet").exists()
