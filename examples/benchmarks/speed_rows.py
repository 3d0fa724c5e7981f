"""What the speed table holds: the cells, one command each, and the rows, which compare them.

A cell whose name ends in a part after ``/`` reads only those of its command's lines whose task holds that part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

__all__ = ["CELLS", "FILES", "Peer", "Row", "fill", "rows_for"]

SPEED = ("win_median", "samples_per_s", "samples_per_second", "rows_per_s")
MEMORY = ("peak_train_mb", "peak_rss_mb", "peak_mb")

_TRAIN = "ctr_throughput.py --no-eval --data {data} --samples {samples} --seed {seed} {ours}"
_BARE = "bare_loop.py --no-eval --data {data} --samples {samples} --seed {seed} --precision {precision}"
_AUC = "ctr_throughput.py --vocab 1m --data {data} --samples {long} --seed {seed} {ours}"
_MODELS = {"deepfm": "--model deepfm", "dcnv2": "--model dcnv2", "deepfm-small": "--model deepfm --mlp 256,128,64"}
TRAINING = {f"{model}-{vocab}": (words, vocab) for model, words in _MODELS.items() for vocab in ("1m", "10m")}
"""The cells that peers may have too."""

CELLS: dict[str, str] = {
    **{cell: f"{_TRAIN} {words} --vocab {vocab}" for cell, (words, vocab) in TRAINING.items()},
    **{f"bare-{cell}": f"{_BARE} {words} --vocab {vocab}" for cell, (words, vocab) in TRAINING.items()},
    **{f"multiplexed-{v}": f"{_TRAIN} --model deepfm --table multiplexed --vocab {v}" for v in ("1m", "10m")},
    **{f"step-{v}": f"{_TRAIN} --model deepfm --vocab {v}" for v in ("100k", "10m")},
    "csv": "ingest.py csv --data {data}",
    "cache": "ingest.py cache --data {data}",
    "polars": "ingest.py polars --data {data}",
    "row-adam": "row_adam.py",
    "auc-deepfm": f"{_AUC} --model deepfm",
    "auc-dcnv2": f"{_AUC} --model dcnv2 --lr 0.0005 --row-lr 0.01",
}
"""Words after ``python examples/benchmarks/``; what stands in braces is filled in by the driver."""

FILES = {name: next((v for v in ("100k", "10m") if name.endswith(v)), "1m") for name in CELLS}
"""Which data set each cell reads."""


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: For ``--only``.
        what: For the reader.
        cell: The cell whose value is shown.
        against: The cell it is compared with; None shows the value alone.
        aim: Such as ``>= 1.5`` or ``<= 0.4``: of the ratio, or of the value where there is none.
        keys: Which number of a line counts: the first that both cells have.
        of_times: Compare the times, not the speeds: the ratio is turned over.
    """

    name: str
    what: str
    cell: str
    against: str | None = None
    aim: str = ""
    keys: Sequence[str] = SPEED
    of_times: bool = False


@dataclass(frozen=True)
class Peer:
    """A command of somebody else's that prints such lines: ``NAME[@PATTERN]=COMMAND``.

    Attributes:
        name: For the reader; one that holds ``torchrec`` has the aims of a fused loop.
        pattern: The cells it is compared with, such as ``*-1m``, ``dcnv2-*`` or ``csv``.
        command: Words may hold ``{model}``, ``{vocab}``, ``{mlp}``, ``{samples}``, ``{seed}`` and ``{data}``.

    >>> Peer.of("FuxiCTR@*-1m=python bench.py --model {model}").pattern
    '*-1m'
    """

    name: str
    pattern: str
    command: str

    @classmethod
    def of(cls, text: str) -> "Peer":
        """Read the command line's form of a peer."""
        name, _, command = text.partition("=")
        name, _, pattern = name.partition("@")
        if not name or not command or "/" in name:
            raise ValueError(f"peer {text!r}: expected NAME=COMMAND or NAME@PATTERN=COMMAND, no / in the name")
        return cls(name.strip(), pattern or "*", command)

    def cells(self) -> list[str]:
        """Return the cells it is measured beside: those that train and fit the pattern, or ``csv`` where that is named."""
        return ["csv"] if self.pattern == "csv" else [cell for cell in TRAINING if fnmatch(cell, self.pattern)]

    @property
    def fused(self) -> bool:
        """Whether its aims are those of a loop on fused kernels."""
        return "torchrec" in self.name.lower()

    def words(self, cell: str) -> str:
        """Return its command for a cell, ``{model}``, ``{vocab}`` and ``{mlp}`` filled in."""
        model, _, vocab = cell.rpartition("-")
        mlp = "256,128,64" if "small" in model else "400,400,400"
        given = {"model": model.removesuffix("-small") or "deepfm", "vocab": vocab if model else "1m", "mlp": mlp}
        return fill(self.command, given)

    def aim(self, cell: str) -> str:
        """Return what is aimed at beside it."""
        if cell == "csv":
            return ">= 25"
        if self.fused:
            return ">= 1.3" if "small" in cell else ">= 1.5"
        return ">= 20" if cell.endswith("10m") else ">= 3"


def fill(command: str, words: Mapping[str, object]) -> str:
    """Replace ``{name}`` by its word; other braces stay.

    >>> fill("run {model} {x}", {"model": "deepfm"})
    'run deepfm {x}'
    """
    for name, word in words.items():
        command = command.replace(f"{{{name}}}", str(word))
    return command


def describe(cell: str) -> str:
    """Return a training cell's name in words.

    >>> describe("deepfm-small-10m")
    'DeepFM, MLP 256-128-64, 10m rows'
    """
    model, vocab = cell.rsplit("-", 1)
    name = "DCNv2" if model == "dcnv2" else "DeepFM"
    return f"{name}, MLP {'256-128-64' if 'small' in model else '400-400-400'}, {vocab} rows"


def peer_rows(peers: Sequence[Peer]) -> list[Row]:
    """Return the rows that compare with ``peers``; their cells are named ``peer:cell``."""
    rows = []
    for peer in peers:
        for cell in peer.cells():
            what = "CSV to vocabularies and arrays" if cell == "csv" else describe(cell)
            rows.append(Row(f"{cell}:{peer.name}", f"{what}, beside {peer.name}", *_sides(peer, cell), peer.aim(cell)))
            if cell.endswith("10m") and "small" not in cell and not peer.fused:
                what = f"peak memory, MB: {what}, beside {peer.name}"
                rows.append(Row(f"memory-{cell}:{peer.name}", what, *_sides(peer, cell), "<= 0.4", MEMORY))
    return rows


def _sides(peer: Peer, cell: str) -> tuple[str, str]:
    return cell, f"{peer.name}:{cell}"


_CACHE, _POLARS, _MATRICES = (
    "reading from the encoded cache",
    "beside polars: Parquet to two matrices",
    "polars/matrices",
)
ROWS = [
    *(Row(f"bare-{c}", f"step: {describe(c)}, beside bare torch and FBGEMM", c, f"bare-{c}", "<= 1.15", of_times=True)
      for c in TRAINING),
    Row("step", "step with 10m rows beside 100k", "step-10m", "step-100k", "<= 1.10", of_times=True),
    *(Row(f"multiplexed-{v}", f"multiplexed beside full, DeepFM, {v} rows", f"multiplexed-{v}", f"deepfm-{v}", ">= 0.9")
      for v in ("1m", "10m")),
    Row("csv", "CSV to vocabularies and arrays, 39 columns: rows/s", "csv"),
    Row("csv-memory", "the same: peak memory, MB", "csv", aim="< 1000", keys=MEMORY),
    *(Row(f"cache-{n}", f"{_CACHE}, prefetch {n}, {_POLARS}", f"cache/prefetch {n}", _MATRICES, ">= 0.5") for n in (0, 2)),
    Row("row-adam", "Adam on rows beside torch's SparseAdam: rows/s", "row-adam/recembed", "row-adam/SparseAdam", ">= 5"),
]  # fmt: skip
LONG = [
    Row("auc-deepfm", "AUC after one epoch, DeepFM, 1m rows", "auc-deepfm", aim=">= 0.766", keys=("auc",)),
    Row("auc-dcnv2", "AUC after one epoch, DCNv2, 1m rows", "auc-dcnv2", aim=">= 0.767", keys=("auc",)),
]


def rows_for(peers: Sequence[Peer], only: Sequence[str], *, long: bool) -> list[Row]:
    """Return the rows whose names fit one of the patterns ``only``; all where there are none.

    >>> [row.name for row in rows_for([], ["multi*"], long=False)]
    ['multiplexed-1m', 'multiplexed-10m']
    """
    rows = [*peer_rows(peers), *ROWS, *(LONG if long else [])]
    return [row for row in rows if not only or any(fnmatch(row.name, pattern) for pattern in only)]
