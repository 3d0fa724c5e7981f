"""The benchmark of retrieval steps runs on a fresh machine, without data."""

import json
import os
import subprocess
import sys
from pathlib import Path

FILE = Path(__file__).parents[2] / "examples" / "benchmarks" / "retrieval_step.py"


def test_every_model_and_setting_has_its_lines() -> None:
    words = ["--scale", "0.01", "--repeat", "2", "--threads", "1", "--setting", "softmax"]
    done = subprocess.run(
        [sys.executable, str(FILE), *words],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "RECEMBED_DATA"},
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["model"], line["what"]) for line in lines] == [
        (model, what) for model in ("lightgcn", "ngcf") for what in ("step, softmax", "ranking")
    ]
    for line in lines:
        assert line["data"] == "drawn" and line["cpu_ms"] > 0 and line["wall_ms"] > 0 and line["peak_rss_mb"] > 0
