"""The house rules: rooms import only rooms before them, and each heavy package has one door."""

import ast
import importlib
import re
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

import recembed

PACKAGE = Path(recembed.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = (
    *("errors", "hashing", "versions", "settings", "sources", "schema", "batch", "data"),
    *("rows", "embedded", "pooling", "graph", "tables", "numeric", "items", "embedding"),
    *("models", "evaluation", "training", "retrieval", "config", "export", "serve", "pyfunc", "run"),
    *("doctor", "quickstart", "compare", "cli", "__main__"),
)
"""A room may import itself and the rooms before it."""

DOORS = {
    "torchrec": ("rows/torchrec_planner.py", "rows/torchrec_tables.py"),
    "fbgemm_gpu": ("rows/torchrec.py",),
    "mlflow": ("training/mlflow_tracking.py",),
    "faiss": ("export/faiss_index.py",),
    "sentence_transformers": ("items/text_tower.py",),
    "huggingface_hub": ("items/hub.py",),
    "transformers": ("items/hub.py", "items/image_tower.py"),
    "timm": ("items/image_tower.py",),
    "PIL": ("items/image_tower.py",),
    "matplotlib": ("quickstart/chart.py", "compare/chart.py", "run/retrieval_chart.py"),
}
"""The only files that may import each package."""

DISTRIBUTIONS = {
    "PIL": "pillow",
    "faiss": "faiss-cpu",
    "fbgemm_gpu": "fbgemm-gpu",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def imports(file: Path) -> list[str]:
    """Dotted names of all modules that ``file`` imports, those for type checking of other packages left out."""
    tree = ast.parse(file.read_text())
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports of the package are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [name for name in names if id(node) not in skipped or name.startswith("recembed.")]
    return found


def room(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def backward_imports(file: Path, own: str) -> list[str]:
    reached = [name.split(".")[1] for name in imports(file) if name.startswith("recembed.")]
    return [name for name in reached if name in ROOMS and ROOMS.index(name) > ROOMS.index(own)]


def door_breaches(file: Path, name: str) -> list[str]:
    return [top for top in (i.split(".")[0] for i in imports(file)) if name not in DOORS.get(top, (name,))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_file_keeps_the_order_of_rooms(file: Path) -> None:
    if file == PACKAGE / "__init__.py":
        return  # the public names come from every room
    assert room(file) in ROOMS, f"give the new room {room(file)!r} its place in ROOMS"
    assert backward_imports(file, room(file)) == []
    assert door_breaches(file, str(file.relative_to(PACKAGE))) == []
    assert file.stem not in {"utils", "helpers", "common", "misc"}


def test_every_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    lines = chain(project["dependencies"], *project["optional-dependencies"].values())
    declared = {re.split(r"[^\w-]", line)[0] for line in lines}
    used = {name.split(".")[0] for file in FILES for name in imports(file)} - {"recembed"} - sys.stdlib_module_names
    assert {DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in used} - declared == set()


def test_every_method_is_listed() -> None:
    from recembed.tables import TABLES, TableConfig

    for file in (PACKAGE / "tables").glob("[!_]*.py"):
        methods = [
            value
            for name, value in vars(importlib.import_module(f"recembed.tables.{file.stem}")).items()
            if isinstance(value, type) and issubclass(value, TableConfig) and value is not TableConfig
            if not name.startswith("_")  # what several methods have in common
        ]
        assert set(methods) <= set(TABLES.values()), f"list the method of {file.name} in TABLES"


def test_the_rules_notice_a_breach(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import torchrec\n    from recembed.models import DeepFM\n"
        "def late():\n    from recembed import training\n    import mlflow.pyfunc\n"
    )
    assert backward_imports(file, "tables") == ["models", "training"]
    assert backward_imports(file, "training") == []
    assert door_breaches(file, "tables/bad.py") == ["mlflow"]
    assert door_breaches(file, "training/mlflow_tracking.py") == []
