"""Items per second of `recembed encode` beside the bare encoder in a loop, and what a second run costs.

The texts and images are made here. Both sides encode the same items in turn, several times; the median counts.

    python examples/benchmarks/encode_throughput.py --texts 512 --images 64
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from recembed.items import ContentConfig, encode_items
from recembed.items.encode import make_towers
from recembed.items.towers import Tower

WORDS = (
    "night",
    "river",
    "garden",
    "return",
    "of",
    "the",
    "silent",
    "engine",
    "for",
    "two",
    "children",
    "and",
    "a",
    "dog",
)


def texts(count: int) -> list[str]:
    """Return titles and plots of 3 to 60 words."""
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(WORDS, draw.integers(3, 60))) + f" {i}" for i in range(count)]


def images(count: int) -> list[bytes]:
    """Return JPEG files of 64 x 96 pixels."""
    from PIL import Image

    draw, files = np.random.default_rng(0), []
    for _ in range(count):
        file = io.BytesIO()
        Image.fromarray(draw.integers(0, 255, (96, 64, 3), np.uint8)).save(file, "JPEG", quality=80)
        files.append(file.getvalue())
    return files


class Loaded:
    """A maker whose model is loaded already, so that loading is measured on neither side."""

    def __init__(self, maker: object, tower: Tower) -> None:
        self._maker, self._tower = maker, tower

    def __getattr__(self, name: str) -> object:
        return getattr(self._maker, name)

    def load(self) -> Tower:
        """Return the model."""
        return self._tower


def seconds(body: Callable[[], object]) -> float:
    """Return the seconds that ``body`` takes."""
    start = time.perf_counter()
    body()
    return time.perf_counter() - start


def measure(source: str, items: list, batch_size: int, rounds: int) -> None:
    """Print both speeds and the share of a second run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pl.DataFrame({"item": np.arange(len(items)), "content": items}).write_parquet(folder / "items.parquet")
        config = ContentConfig(
            content=str(folder / "items.parquet"), id="item", batch_size=batch_size, **{source: "content"}
        )
        maker = make_towers(config)[source]
        tower = maker.load()
        tower.encode([tower.prepare(item) for item in items[:batch_size]])  # warm
        bare, ours, again = [], [], []

        def loop() -> None:
            if source == "text":  # sentence-transformers' own loop: longest first, batch by batch
                tower.model.encode(items, batch_size=batch_size, show_progress_bar=False)
                return
            for start in range(0, len(items), batch_size):
                tower.encode([tower.prepare(item) for item in items[start : start + batch_size]])

        for number in range(rounds):
            here = config.model_copy(update={"cache": folder / f"cache{number}"})
            towers = {source: Loaded(maker, tower)}
            bare.append(seconds(loop))
            ours.append(seconds(lambda here=here, towers=towers: encode_items(here, towers=towers, progress=False)))
            again.append(seconds(lambda here=here, towers=towers: encode_items(here, towers=towers, progress=False)))
    loop_s, encode_s, again_s = (statistics.median(times) for times in (bare, ours, again))
    print(
        f"{source}: {len(items)} items; bare loop {len(items) / loop_s:.1f} items/s, encode {len(items) / encode_s:.1f} "
        f"items/s ({statistics.median(b / o for b, o in zip(bare, ours, strict=True)):.3f} of it); "
        f"second run {again_s:.3f} s = {again_s / encode_s:.2%}"
    )


def main() -> None:
    """Measure texts and images."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--texts", type=int, default=512)
    arguments.add_argument("--images", type=int, default=64)
    arguments.add_argument("--batch-size", type=int, default=32)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    if given.texts:
        measure("text", texts(given.texts), given.batch_size, given.rounds)
    if given.images:
        measure("image", images(given.images), given.batch_size, given.rounds)


if __name__ == "__main__":
    main()
