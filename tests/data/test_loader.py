"""Loader: every row once, the same global batches for every number of processes, exact resume, id dropout."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recembed.batch import Batch
from recembed.data.encode import encode, encode_to
from recembed.data.encoded import EncodedData
from recembed.data.fit import fit
from recembed.data.loader import Loader
from recembed.errors import CheckpointError, ConfigError
from recembed.schema.feature import Schema
from tests.data.rows import SCHEMA, frame

ROWS = 103


def wide(rows: int = ROWS) -> pl.DataFrame:
    """Rows of every kind; ``item`` of row n is n."""
    return pl.concat([frame()] * (rows // 4 + 1))[:rows].with_columns(item=pl.int_range(rows))


@pytest.fixture(scope="module")
def data() -> EncodedData:
    return encode(wide(), fit(wide(), SCHEMA), key_features=frozenset({"city"}))


def equal(one: Batch, other: Batch) -> bool:
    pairs = [(one.ids, other.ids), (one.labels, other.labels), (one.rows, other.rows)]
    pairs += [(one.numeric.nan_to_num(-1), other.numeric.nan_to_num(-1))]
    for name, jagged in one.jagged.items():
        pairs += [(jagged.values, other.jagged[name].values), (jagged.offsets, other.jagged[name].offsets)]
        if jagged.weights is not None:
            pairs.append((jagged.weights, other.jagged[name].weights))
    return all(mine is not None and theirs is not None and torch.equal(mine, theirs) for mine, theirs in pairs)


def join(parts: list[Batch]) -> Batch:
    """Join the slices of the processes to the global batch they came from."""
    jagged = {}
    for name in parts[0].jagged:
        mine = [part.jagged[name] for part in parts]
        lengths = torch.cat([jagged.offsets.diff() for jagged in mine])
        weights = [jagged.weights for jagged in mine if jagged.weights is not None]
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        values = torch.cat([jagged.values for jagged in mine])
        jagged[name] = type(mine[0])(values, offsets, torch.cat(weights) if weights else None)
    whole = {name: torch.cat([getattr(part, name) for part in parts]) for name in ("ids", "numeric", "labels", "rows")}
    return Batch(jagged=jagged, **whole)


def rows_of(loader: Loader) -> list[list[int]]:
    return [batch.rows.tolist() for batch in loader if batch.rows is not None]


ARGUMENTS = {
    "batch_size": st.integers(3, 120),
    "window": st.sampled_from([1, 10, 64, 1 << 20]),
    "shuffle": st.booleans(),
    "seed": st.integers(0, 9),
}


@settings(deadline=None, max_examples=30)
@given(**ARGUMENTS)
def test_an_epoch_holds_each_row_exactly_once(
    data: EncodedData, batch_size: int, window: int, shuffle: bool, seed: int
) -> None:
    loader = Loader(data, batch_size, shuffle=shuffle, seed=seed, window=window, prefetch=0)
    for _ in range(2):
        batches = rows_of(loader)
        assert sorted(row for batch in batches for row in batch) == list(range(ROWS))
        assert [len(batch) for batch in batches] == [loader.global_rows(step) for step in range(len(loader))]


@settings(deadline=None, max_examples=30)
@given(**ARGUMENTS, world_size=st.integers(2, 3), epoch=st.integers(0, 3))
def test_slices_of_several_processes_make_up_the_same_global_batches(
    data: EncodedData, batch_size: int, window: int, shuffle: bool, seed: int, world_size: int, epoch: int
) -> None:
    def loader(rank: int, world_size: int) -> Loader:
        made = Loader(
            data, batch_size, shuffle=shuffle, seed=seed, rank=rank, world_size=world_size,
            id_dropout=True, window=window, prefetch=0,
        )  # fmt: skip
        made.set_epoch(epoch)
        return made

    slices = [list(loader(rank, world_size)) for rank in range(world_size)]
    assert len({len(batches) for batches in slices}) == 1
    whole = list(loader(0, 1))[: len(slices[0])]
    assert all(equal(join(list(parts)), one) for *parts, one in zip(*slices, whole, strict=True))
    sizes = [[len(batch) for batch in batches] for batches in slices]
    assert all(max(step) - min(step) <= 1 for step in zip(*sizes, strict=True))


def test_a_last_batch_smaller_than_the_processes_is_left_out_in_training_only(data: EncodedData) -> None:
    def sizes(rank: int, shuffle: bool) -> list[int]:
        return [len(batch) for batch in Loader(data, 34, shuffle=shuffle, seed=0, rank=rank, world_size=2)]

    assert sizes(0, True) == sizes(1, True) == [17, 17, 17]  # 103 = 3 * 34 + 1
    assert sizes(0, False) == [17, 17, 17, 0]
    assert sizes(1, False) == [17, 17, 17, 1]


@settings(deadline=None, max_examples=30)
@given(**ARGUMENTS, cut=st.integers(0, 40), prefetch=st.sampled_from([0, 2]))
def test_resuming_at_any_step_gives_the_rest_bit_for_bit(
    data: EncodedData, batch_size: int, window: int, shuffle: bool, seed: int, cut: int, prefetch: int
) -> None:
    def loader() -> Loader:
        return Loader(data, batch_size, shuffle=shuffle, seed=seed, id_dropout=True, window=window, prefetch=prefetch)

    first = loader()
    everything = [batch for _ in range(2) for batch in first]
    broken = loader()
    seen = 0
    while seen < min(cut, len(everything)):
        for _ in broken:
            seen += 1
            if seen == min(cut, len(everything)):
                break
    later = loader()
    later.resume(broken.state())
    rest = []
    while len(rest) < len(everything) - seen:
        rest.extend(later)
    assert all(equal(one, other) for one, other in zip(everything[seen:], rest, strict=False))


def test_a_resumed_epoch_survives_set_epoch(data: EncodedData) -> None:
    loader = Loader(data, 10, shuffle=True, seed=3)
    whole = rows_of(loader)
    again = Loader(data, 10, shuffle=True, seed=3)
    again.resume({**again.state(), "epoch": 0, "step": 7})
    again.set_epoch(0)
    assert rows_of(again) == whole[7:]
    assert again.epoch == 1
    again.set_epoch(0)
    assert rows_of(again) == whole


@pytest.mark.parametrize(("name", "value"), [("seed", 4), ("batch_size", 11), ("rows", 5), ("window", 7)])
def test_a_position_in_another_order_is_refused(data: EncodedData, name: str, value: int) -> None:
    loader = Loader(data, 10, shuffle=True, seed=3)
    with pytest.raises(CheckpointError, match=rf"cannot resume the data position: {name} was {value}, now it is"):
        loader.resume({**loader.state(), name: value})


def test_seed_and_epoch_make_the_order(data: EncodedData) -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        loader = Loader(data, 50, shuffle=True, seed=seed)
        loader.set_epoch(epoch)
        return rows_of(loader)

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)
    assert rows_of(Loader(data, 50, shuffle=False, seed=1))[0] == list(range(50))


def test_a_window_shuffles_beyond_its_blocks() -> None:
    rows = 20_000
    data = encode(wide(rows), fit(wide(rows), SCHEMA))
    order = np.concatenate(rows_of(Loader(data, 500, shuffle=True, seed=0, window=2560)))
    assert sorted(order.tolist()) == list(range(rows))
    assert abs(np.corrcoef(order, np.arange(rows))[0, 1]) < 0.1
    assert (np.diff(order) == 1).mean() < 0.01


def test_mapped_files_give_the_same_batches_as_memory(tmp_path: Path) -> None:
    fitted = fit(wide(), SCHEMA)
    kinds = [encode(wide(), fitted), encode_to(wide(), fitted, tmp_path / "train")]
    for window in (10, 1 << 20):
        memory, mapped = (list(Loader(one, 16, shuffle=True, seed=5, window=window, id_dropout=True)) for one in kinds)
        assert all(equal(one, other) for one, other in zip(memory, mapped, strict=True))


def resident(folder: Path) -> int:
    """KiB of files in ``folder`` that are mapped and in this process's memory."""
    total, here = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if not first.endswith(":"):
            here = str(folder) in line
        elif here and first == "Rss:":
            total += int(line.split()[1])
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="Linux only")
def test_mapped_rows_leave_memory_with_their_window(tmp_path: Path) -> None:
    rows = wide(40_000)
    mapped = encode_to(rows, fit(wide(), SCHEMA), tmp_path / "train")
    held = [resident(tmp_path) > 0 for _ in Loader(mapped, 1000, shuffle=True, seed=0, window=4000, prefetch=0)]
    assert held == [True, True, True, False] * 10  # the fourth batch of 1,000 rows ends a window
    list(Loader(mapped, 1000, shuffle=True, seed=0, window=4000, prefetch=2))
    assert resident(tmp_path) == 0


def test_id_dropout_hits_its_rate_and_only_known_ids() -> None:
    rate, rows = 0.1, 20_000
    raw = pl.DataFrame({"x": ["a", "b", None, "c"] * (rows // 4), "bag": [[1, 2], [], [3], [1]] * (rows // 4)})
    schema = Schema.parse(
        {
            "features": [
                {"name": "x", "id_dropout": rate, "oov_buckets": 3},
                {"name": "off", "column": "x", "id_dropout": 0},
                {"name": "bag", "kind": "bag", "id_dropout": rate},
            ]
        }
    )
    fitted = fit(raw, schema)
    data = encode(raw, fitted, labels=False)
    for plain, dropped in zip(
        Loader(data, rows, shuffle=False, seed=1),
        Loader(data, rows, shuffle=False, seed=1, id_dropout=True),
        strict=True,
    ):
        before, after = plain.ids[:, 0], dropped.ids[:, 0]
        changed = before != after
        assert changed.float().mean().item() == pytest.approx(0.75 * rate, rel=0.1)
        assert before[changed].min() >= 5
        vocabulary = fitted.vocabularies["x"]
        for known in (5, 6, 7):  # the bucket of an id is the one that its key would have as an unseen id
            bucket = 2 + int(_bucket(vocabulary.keys[known - 5]))
            assert after[changed & (before == known)].unique().tolist() == [bucket]
        assert torch.equal(plain.ids[:, 1], dropped.ids[:, 1])
        bag = plain.jagged["bag"].values != dropped.jagged["bag"].values
        assert bag.float().mean().item() == pytest.approx(rate, rel=0.1)
        assert dropped.jagged["bag"].values[bag].unique().tolist() == [2]
    assert data.ids[:, 0].min() == 1
    assert (data.ids[:, 0] == 2).sum() == 0  # the data themselves are left as they were


def _bucket(key: int) -> int:
    from recembed.hashing import hash_rows, salt

    return int(hash_rows(torch.tensor([int(key)]), salt("out-of-vocabulary"), 3).item())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 2, "world_size": 2}, r"rank = 2: expected 0\.\.1"),
        ({"batch_size": 1, "world_size": 2}, r"batch_size = 1: expected at least one row for each of 2 processes"),
        ({"batch_size": 200, "drop_last": True}, r"103 rows make no batch of batch_size = 200; take a smaller"),
        ({"window": 0}, r"window = 0: expected at least 1 row"),
        ({"prefetch": -1}, r"prefetch = -1: expected 0 or more"),
    ],
)
def test_bad_settings_are_refused(data: EncodedData, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Loader(data, **{"batch_size": 10, "shuffle": True, "seed": 0, **arguments})  # type: ignore[arg-type]


def test_an_error_in_the_background_is_raised_here(data: EncodedData, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: EncodedData, rows: np.ndarray) -> Batch:
        raise OSError("disk gone")

    monkeypatch.setattr(EncodedData, "batch", fail)
    with pytest.raises(OSError, match="disk gone"):
        next(iter(Loader(data, 10, shuffle=True, seed=0, prefetch=2)))
