"""``Manifest``: what a bundle says about itself, checksums of every file included."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from recembed.errors import ExportError

__all__ = ["FORMAT", "MANIFEST_FILE", "FileRecord", "Manifest", "Metric", "record_files", "space_id"]

FORMAT = "recembed bundle 1"
MANIFEST_FILE = "manifest.json"

Metric = Literal["dot", "cosine"]

_BLOCK = 1 << 20


class FileRecord(BaseModel):
    """Size and SHA-256 of one file."""

    model_config = ConfigDict(frozen=True)
    bytes: int
    sha256: str


class Manifest(BaseModel):
    """The head of a bundle.

    Attributes:
        format: Version of the layout; an unknown one is refused.
        space_id: Vectors of equal space id may be compared; it names run, feature, mapping and weights.
        feature: Whose vectors these are.
        metric: How they are meant to be compared.
        dtype: Type of a vector's numbers.
        dimension: Numbers per vector.
        count: Vectors.
        mapping_version: Of the fitted schema.
        run: What the run told: its id, config hash, metrics.
        created: UTC, ISO 8601.
        versions: Of the packages that wrote the bundle.
        inputs: How to call the graph.
        tolerance: Largest difference between trained and served scores that passes, by output.
        difference: Largest one found on the golden rows; ``compaction``, the one in logits between the trained model and
            its compact form, is of the method and of ``served_dtype`` and has no limit here.
        golden_rows: Their number.
        bytes: What ``ranker.pt2`` holds: ``embeddings`` (compact tables), ``id_maps``, ``dense`` (all other weights and indices), and
            ``graph``, the rest of the file.
        files: Size and checksum by path within the bundle, the manifest itself left out.
    """

    model_config = ConfigDict(frozen=True)
    format: str = FORMAT
    space_id: str
    feature: str
    metric: Metric
    dtype: str = "float32"
    dimension: int
    count: int
    mapping_version: str
    run: dict[str, Any]
    created: str
    versions: dict[str, str]
    inputs: dict[str, Any]
    tolerance: dict[str, float]
    difference: dict[str, float]
    golden_rows: int
    bytes: dict[str, int]
    files: dict[str, FileRecord]

    def write(self, folder: Path) -> None:
        """Write ``manifest.json``, its own checksum as the last entry."""
        (folder / MANIFEST_FILE).write_text(_with_checksum(self.model_dump(mode="json")))

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read the manifest of a bundle.

        Raises:
            ExportError: there is none, it was changed, or its format is not known.
        """
        path = folder / MANIFEST_FILE
        try:
            text = path.read_text()
        except FileNotFoundError:
            raise ExportError(f"{path} does not exist; a bundle is a folder written by 'recembed export'") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ExportError(f"{path} cannot be read ({error}); export again") from error
        raw = _parse(text, path)
        if raw.get("format") != FORMAT:
            raise ExportError(
                f"{path}: format = {raw.get('format')!r}: this recembed reads {FORMAT!r}; "
                "export again, or use the recembed that wrote the bundle"
            )
        if raw.pop("sha256", None) is None or _with_checksum(raw) != text:
            raise ExportError(f"{path} was changed after it was written; restore it or export again")
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise ExportError(f"{path} is damaged ({error.errors()[0]['msg']}); export again") from error

    def check_files(self, folder: Path) -> None:
        """Compare every file with its checksum.

        Raises:
            ExportError: a file is missing or was changed; the message names it.
        """
        for name, record in self.files.items():
            path = folder / name
            if not path.is_file():
                raise ExportError(f"{path} is missing from the bundle; restore it or export again")
            if path.stat().st_size != record.bytes or _sha256(path) != record.sha256:
                raise ExportError(f"{path} was changed after the export; restore it or export again")


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise ExportError(f"{path} is damaged ({error}); restore it or export again") from error
    if not isinstance(raw, dict):
        raise ExportError(f"{path} is damaged (no JSON object); restore it or export again")
    return raw


def _with_checksum(raw: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(raw, indent=1).encode()).hexdigest()
    return json.dumps({**raw, "sha256": digest}, indent=1)


def space_id(run_id: str, feature: str, mapping_version: str, digest: str) -> str:
    """Return the name of a vector space; it changes with the run, the feature, the mapping and the weights.

    Args:
        run_id: Of the run.
        feature: Whose vectors.
        mapping_version: Of the fitted schema.
        digest: Of the vectors' numbers.

    >>> space_id("run 1", "item", "v", "d"), space_id("run 2", "item", "v", "d")
    ('f039dc5c1e4ebc27', '6ea31a77ec11c81a')
    """
    return hashlib.sha256(json.dumps([run_id, feature, mapping_version, digest]).encode()).hexdigest()[:16]


def record_files(folder: Path) -> dict[str, FileRecord]:
    """Return size and checksum of every file in ``folder``, by its path within."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_FILE)
    return {
        path.relative_to(folder).as_posix(): FileRecord(bytes=path.stat().st_size, sha256=_sha256(path))
        for path in files
    }


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
