"""Item content → one Parquet file of vectors by raw id: what ``recembed encode`` writes."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from recembed.errors import ConfigError, DataError
from recembed.items.encode import encode_items
from recembed.items.settings import ContentConfig
from recembed.items.towers import TowerMaker
from recembed.settings import explain_validation

__all__ = ["ENCODERS_KEY", "encode_to_file", "parse_content"]

ENCODERS_KEY = "recembed.encoders"
"""Where the Parquet file says, as JSON, which model, revision and preprocessing each column comes from."""


def parse_content(text: str, where: str = "config") -> ContentConfig:
    r"""Read the settings of item content from YAML.

    Raises:
        ConfigError: no valid YAML, an unknown key (the nearest is offered) or a value out of range.

    >>> parse_content("content: items.csv\nid: item\ntext: title").text.columns
    ('title',)
    """
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: expected keys such as content, id and text, found {type(raw).__name__}")
    try:
        return ContentConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(explain_validation(error, where, ContentConfig)) from None


def encode_to_file(
    config: ContentConfig,
    out: Path,
    *,
    towers: Mapping[str, TowerMaker] | None = None,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Write the raw id and a column of vectors per source, null where an item has none; see ``encode_items``.

    Returns:
        ``items``, ``seconds``, ``faults`` (counts by source and kind), and ``sources``: width, items with a vector, items
        encoded now, and the record of the encoder, by source.

    Raises:
        ConfigError: ``out`` is no Parquet file, or nothing but attributes is to be encoded, which needs no encoder.
        DataError: ``out`` cannot be written.
    """
    if out.suffix != ".parquet":
        raise ConfigError(f"--out {out}: expected a file that ends in .parquet")
    if not (config.text or config.image or config.vectors):
        raise ConfigError("attributes are learned with the model and need no encoding; give text, image or vectors")
    started = time.perf_counter()
    items = encode_items(config, towers=towers, progress=progress)
    sources = {
        name: {
            "width": found.matrix.shape[1],
            "items": int(found.present.sum()),
            "encoded": items.encoded.get(name, 0),
            "encoder": dict(found.record),
        }
        for name, found in items.vectors.items()
    }
    records = json.dumps({name: source["encoder"] for name, source in sources.items()})
    beside = out.with_name(out.name + ".tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        items.to_frame(config.id or "id").write_parquet(beside, metadata={ENCODERS_KEY: records})
        beside.replace(out)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}") from error
    return {
        "items": len(items.keys),
        "seconds": time.perf_counter() - started,
        "faults": dict(items.faults.counts),
        "sources": sources,
    }
