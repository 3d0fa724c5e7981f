"""``recembed encode``: item content to vectors by raw id."""

from pathlib import Path
from typing import Annotated

import typer

from recembed.cli.answer import Answer
from recembed.cli.command import command

__all__ = ["encode"]


@command
def encode(
    config: Annotated[Path, typer.Argument(help="YAML file: content, id, and text, image or vectors.")],
    out: Annotated[Path, typer.Option(help="The .parquet file to write.")],
    stop: Annotated[bool, typer.Option("--stop", help="Stop at the first broken item, not mask it.")] = False,
) -> Answer:
    """Encode texts and images of items; what the cache knows is not encoded again."""
    from recembed.errors import ConfigError
    from recembed.items.file import encode_to_file, parse_content

    try:
        settings = parse_content(config.read_text(encoding="utf-8"), f"config {config}")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {config} cannot be read: {error}") from None
    if stop:
        settings = settings.model_copy(update={"on_error": "stop"})
    document = encode_to_file(settings, out)
    lines = [
        f"{name}: {source['items']:,} of {document['items']:,} items, width {source['width']}, "
        f"{source['encoded']:,} encoded now"
        for name, source in document["sources"].items()
    ]
    return Answer({"out": out, **document}, [*lines, f"{document['seconds']:.1f} s, written to {out}"])
