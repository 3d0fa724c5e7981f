"""The integer hash: the same bits from NumPy, torch and big-integer arithmetic; and the string hash's vectors."""

import numpy as np
import polars as pl
import polars_hash  # noqa: F401  (registers .nchash)
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recembed.hashing import MISSING_KEY, hash_rows, mix64, salt

KEYS = st.integers(-(2**63), 2**63 - 1)
MASK = 2**64 - 1


def signed(x: int) -> int:
    return x - 2**64 if x >= 2**63 else x


def reference_mix(key: int) -> int:
    """SplitMix64's finaliser on unsigned big integers."""
    x = key & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return signed(x ^ (x >> 31))


def reference_unmix(key: int) -> int:
    """The finaliser run backwards: each xor-shift undone, each multiplier inverted modulo 2**64."""
    x = key & MASK
    x ^= (x >> 31) ^ (x >> 62)
    x = (x * pow(0x94D049BB133111EB, -1, 2**64)) & MASK
    x ^= (x >> 27) ^ (x >> 54)
    x = (x * pow(0xBF58476D1CE4E5B9, -1, 2**64)) & MASK
    return signed(x ^ (x >> 30) ^ (x >> 60))


def reference_row(key: int, salted: int, rows: int) -> int:
    return (((reference_mix(key ^ salted) & MASK) >> 32) * rows) >> 32


@pytest.mark.parametrize(
    ("key", "mixed"),
    [
        (0, 0),
        (1, 6238072747940578789),
        (-1, -5417735806833148549),
        (2**63 - 1, 6514504133438201533),
        (-(2**63), 2720858781877447050),
        (881250949, 6003670519502399669),
    ],
)
def test_mix_vectors(key: int, mixed: int) -> None:
    assert reference_mix(key) == mixed
    assert mix64(torch.tensor([key])).tolist() == [mixed]
    assert mix64(np.array([key], dtype=np.int64)).tolist() == [mixed]


def test_mix_is_the_second_output_of_splitmix64() -> None:
    # SplitMix64 seeded with 0 mixes the multiples of the golden gamma; its first outputs are published widely.
    gamma = 0x9E3779B97F4A7C15
    outputs = [mix64(torch.tensor([signed(n * gamma & MASK)])).item() & MASK for n in (1, 2, 3)]
    assert outputs == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


@given(keys=st.lists(KEYS, min_size=1, max_size=20))
def test_numpy_torch_and_big_integers_agree(keys: list[int]) -> None:
    expected = [reference_mix(key) for key in keys]
    assert mix64(torch.tensor(keys)).tolist() == expected
    assert mix64(np.array(keys, dtype=np.int64)).tolist() == expected


@given(key=KEYS)
def test_mix_is_a_bijection(key: int) -> None:
    assert reference_unmix(int(mix64(torch.tensor([key])).item())) == key


@given(keys=st.lists(KEYS, min_size=1, max_size=20), salted=KEYS, rows=st.integers(1, 2**31))
def test_rows_agree_and_stay_in_range(keys: list[int], salted: int, rows: int) -> None:
    expected = [reference_row(key, salted, rows) for key in keys]
    assert all(0 <= row < rows for row in expected)
    assert hash_rows(torch.tensor(keys), salted, rows).tolist() == expected
    assert hash_rows(np.array(keys, dtype=np.int64), salted, rows).tolist() == expected


def test_salts_and_rows_broadcast() -> None:
    keys, salts, rows = (
        torch.tensor([[7], [8], [9]]),
        torch.tensor([salt("a", 0), salt("a", 1)]),
        torch.tensor([10, 1000]),
    )
    expected = [
        [reference_row(key, s, r) for s, r in zip(salts.tolist(), (10, 1000), strict=True)] for key in (7, 8, 9)
    ]
    assert hash_rows(keys, salts, rows).tolist() == expected


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (40_000,), (9_000, 3), (2, 3, 5_000)])
def test_every_shape_comes_back_with_its_hashes(shape: tuple[int, ...]) -> None:
    keys = torch.randint(-(2**63), 2**63 - 1, shape, generator=torch.Generator().manual_seed(0))
    mixed, rows = mix64(keys), hash_rows(keys, salt("a", 0), 1000)
    assert mixed.shape == rows.shape == shape
    assert mixed.flatten().tolist() == [reference_mix(key) for key in keys.flatten().tolist()]
    assert rows.flatten().tolist() == [reference_row(key, salt("a", 0), 1000) for key in keys.flatten().tolist()]


def test_rows_of_a_slice_are_those_of_its_copy() -> None:
    keys = torch.arange(60_000).view(-1, 6)[:, ::2]
    salts = torch.tensor([salt("a", probe) for probe in range(3)])
    assert torch.equal(hash_rows(keys, salts, 97), hash_rows(keys.contiguous(), salts, 97))


def test_an_exported_graph_hashes_as_eager_code_does() -> None:
    class Rows(torch.nn.Module):
        def forward(self, keys: torch.Tensor) -> torch.Tensor:
            return hash_rows(keys, salt("a", 0), 1000)

    keys = torch.tensor([0, 1, -1, 2**63 - 1, -(2**63)])
    assert torch.export.export(Rows(), (keys,)).module()(keys).tolist() == Rows()(keys).tolist()


@pytest.mark.parametrize("first", [0, 10**6, -(2**40)])
@pytest.mark.parametrize("rows", [97, 128, 1000])
def test_consecutive_ids_fill_the_rows_evenly(first: int, rows: int) -> None:
    count = 200_000
    keys = torch.arange(first, first + count)
    seen = torch.bincount(hash_rows(keys, salt("city", 0), rows), minlength=rows).double()
    chi_square = (((seen - count / rows) ** 2) / (count / rows)).sum().item()
    freedom = rows - 1
    assert abs(chi_square - freedom) < 5 * (2 * freedom) ** 0.5  # a chi-square has variance 2 * freedom


def test_two_probes_are_independent() -> None:
    # Of the pairs that one probe throws together, the other keeps together about 1 in `rows`.
    keys, rows = torch.arange(100_000), 100
    one, other = (hash_rows(keys, salt("city", probe), rows) for probe in (0, 1))
    cells = torch.bincount(one * rows + other, minlength=rows * rows).double()
    chi_square = ((cells - 10) ** 2 / 10).sum().item()
    assert abs(chi_square - (rows**2 - 1)) < 5 * (2 * rows**2) ** 0.5


def test_every_input_bit_flips_about_half_of_the_output() -> None:
    keys = torch.arange(2000)
    for bit in range(63):
        changed = (mix64(keys) ^ mix64(keys ^ (1 << bit))).numpy()
        flipped = np.unpackbits(changed.view(np.uint8)).sum() / len(keys)
        assert abs(flipped - 32) < 1.0  # the mean of 2000 numbers whose standard deviation is 4


def test_salt_depends_on_its_words_only() -> None:
    assert salt("city", 0) == 5820062006416367331  # frozen: rows of saved tables depend on it
    assert len({salt("city", 0), salt("city", 1), salt("ci", "ty", 0), salt("city0"), salt(0, "city")}) == 5
    assert all(-(2**63) <= salt("x", number) < 2**63 for number in range(100))


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("", 0xEF46DB3751D8E999),
        ("a", 0xD24EC4F1A98C6E5B),
        ("abc", 0x44BC2CF5AD770999),
        ("Nobody inspects the spammish repetition", 0xFBCEA83C8A378BF1),
    ],
)
def test_strings_hash_to_the_published_xxhash64(text: str, published: int) -> None:
    hashed = pl.select(pl.lit(text).nchash.xxhash64()).item()  # type: ignore[attr-defined]
    assert hashed == published


def test_missing_key_is_the_least_integer() -> None:
    assert np.iinfo(np.int64).min == MISSING_KEY
