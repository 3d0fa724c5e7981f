"""What the README shows is true: its Python runs, its config parses, its commands exist."""

import re
from pathlib import Path

import pytest
import yaml

from recembed.cli import app
from recembed.config import RunConfig
from recembed.models import MODELS
from recembed.numeric import NUMERIC
from recembed.run import RetrievalConfig
from recembed.tables import TABLES

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.usefixtures("real_data")
def test_the_ten_lines_run() -> None:
    exec(compile(blocks("python")[0], "README.md", "exec"), {})  # noqa: S102  (our own text)


def test_the_graph_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = [text for text in blocks("python") if "from recembed.graph import" in text and "load_graph" not in text]
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "README.md", "exec"), {})  # noqa: S102  (our own text)
    assert (tmp_path / "graph" / "graph.json").is_file()


def test_the_config_parses() -> None:
    config = RunConfig.parse(yaml.safe_load(blocks("yaml")[0]))
    assert config.embeddings.table.kind == "multiplexed"


def test_the_retrieval_config_parses() -> None:
    runs = [yaml.safe_load(text) for text in blocks("yaml") if "task: retrieval" in text]
    assert [RetrievalConfig.parse(run).model.kind for run in runs] == ["lightgcn"]


def test_the_commands_exist() -> None:
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    shown = set(re.findall(r"^recembed (\w+)", README, flags=re.MULTILINE))
    assert shown
    assert shown <= known


def test_every_method_encoder_and_model_is_named() -> None:
    for name in (*TABLES, *NUMERIC, *MODELS):
        assert f"`{name}`" in README, name
