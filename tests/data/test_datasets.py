"""Named data sets: every declaration, the frames on real files, and the road from a publisher to the cache."""

import hashlib
import io
import subprocess
import zipfile
from pathlib import Path

import polars as pl
import pytest

from recembed.data import download as download_module
from recembed.data.check import check_columns
from recembed.data.datasets import DATASETS, cache_folder, load_dataset
from recembed.data.download import WHEEL_SHA256, Download, download, read_wheel
from recembed.data.recipe import NextItem, Recipe, build_frame
from recembed.data.split import split_frame
from recembed.errors import ConfigError, DataError

FOLDER = "recbole/dataset_example/ml-100k/ml-100k"
WHEEL = {
    f"{FOLDER}.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "196\t242\t3\t881250949\n22\t377\t1\t878887116\n",
    f"{FOLDER}.user": "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n196\t49\tM\twriter\t05105\n",
    f"{FOLDER}.item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    '242\tKolya "the film"\t1996\tComedy\n377\tunkonwn\tunkonwn\tunknown\n',
}
ML_100K = {
    "ml-100k/u.data": "196\t242\t3\t881250949\n",
    "ml-100k/u.user": "196|49|M|writer|05105\n",
    "ml-100k/u.item": "242|Kolya (1996)|24-Jan-1997||http://x|0|0|0|0|0|1|0|0|0|0|0|0|0|0|1|0|0|0|0\n"
    "267|unknown||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
    "11|Misérables, Les (Film) (1995)|01-Jan-1995||http://y|0|1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n",
}
ML_1M = {
    "ml-1m/ratings.dat": "1::1193::5::978300760\n",
    "ml-1m/users.dat": "1::F::1::10::48067\n",
    "ml-1m/movies.dat": "1193::Amélie: a film (2001)::Comedy|Romance\n",
}
LATEST = {
    "ml-latest-small/ratings.csv": "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n",
    "ml-latest-small/movies.csv": 'movieId,title,genres\n31,"Dangerous Minds, The (1995)",Drama|Crime\n',
    "ml-latest-small/tags.csv": "userId,movieId,tag,timestamp\n15,339,dentist,1138537770\n",
}


def zipped(members: dict[str, str], encoding: str = "utf-8") -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text.encode(encoding))
    return content.getvalue()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECEMBED_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RECEMBED_DATA", raising=False)
    return tmp_path / "cache"


def published(tmp_path: Path, content: bytes, **options: str) -> Download:
    path = tmp_path / "archive.zip"
    path.write_bytes(content)
    return Download.model_validate({"url": path.as_uri(), **options})


def test_every_declaration_has_a_schema_and_terms() -> None:
    assert len(DATASETS) == 21
    for info in DATASETS.values():
        schema = info.schema_of_frame
        assert schema.features
        assert info.terms
        assert info.where.split()[0]
    assert len(DATASETS["criteo_sample"].schema_of_frame.features) == 39
    assert DATASETS["criteo_sample"].schema_of_frame["C26"].min_count == 2
    assert DATASETS["yelp2018"].parts == {"train": "train", "test": "test"}
    assert DATASETS["ml1m_ood"].folder == "ml1m"


def test_unknown_name_and_part() -> None:
    with pytest.raises(ConfigError, match="data set 'ml100' is not known; did you mean 'ml100k'"):
        load_dataset("ml100")


def test_set_without_a_direct_download_says_where_to_get_it(cache: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset("criteo_sample")
    message = str(caught.value)
    assert f"data set 'criteo_sample' is not in {cache / 'criteo_sample'}" in message
    assert "get it from https://ailab.criteo.com" in message
    assert f"put criteo_137k.parquet into {cache / 'criteo_sample'}" in message


def test_named_folder_comes_before_the_cache(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, rows in ((tmp_path / "named", 1), (cache, 2)):
        (place / "tiktok").mkdir(parents=True)
        for part in ("train", "validation", "test"):
            frame = pl.DataFrame({"user_id": [0] * rows, "item_id": [0] * rows})
            frame.write_parquet(place / "tiktok" / f"{part}.parquet")
    assert load_dataset("tiktok").frame.collect().height == 6
    monkeypatch.setenv("RECEMBED_DATA", str(tmp_path / "named"))
    dataset = load_dataset("tiktok", part="valid")
    assert dataset.frame.collect().rows() == [(0, 0, "valid")]
    assert sorted(dataset.tables) == ["test", "train", "validation"]
    (tmp_path / "named" / "tiktok" / "test.parquet").unlink()  # incomplete: the cache has it whole
    assert load_dataset("tiktok").folder == cache / "tiktok"
    with pytest.raises(ConfigError, match="part = 'vlid' is no part of data set 'tiktok'; did you mean 'valid'"):
        load_dataset("tiktok", part="vlid")


def test_cache_is_in_the_home_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RECEMBED_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "recembed"


def test_wheel_is_read_as_a_zip() -> None:
    tables = read_wheel(zipfile.ZipFile(io.BytesIO(zipped(WHEEL))))
    assert tables["ratings"].rows() == [(196, 242, 3, 881250949), (22, 377, 1, 878887116)]
    assert tables["users"].rows() == [(196, 49, "M", "writer", "05105")]
    assert tables["items"].rows() == [(242, 'Kolya "the film"', 1996, "Comedy"), (377, "unkonwn", None, "unknown")]
    assert tables["items"].schema == {"item_id": pl.Int32, "title": pl.String, "year": pl.Int16, "genres": pl.String}
    with pytest.raises(DataError, match=r"the archive lacks .*ml-100k\.item; the publisher has changed its layout"):
        read_wheel(zipfile.ZipFile(io.BytesIO(zipped({"other": ""}))))


def test_ml_100k_archive_gives_the_same_columns_as_the_wheel(tmp_path: Path, cache: Path) -> None:
    content = zipped(ML_100K, "latin-1")
    source = published(tmp_path, content, reader="ml_100k", md5=hashlib.md5(content).hexdigest())
    folder = download("ml100k", source, cache / "ml100k")
    tables = {name: pl.read_parquet(folder / f"{name}.parquet") for name in ("ratings", "users", "items")}
    wheel = read_wheel(zipfile.ZipFile(io.BytesIO(zipped(WHEEL))))
    assert {name: table.schema for name, table in tables.items()} == {
        name: table.schema for name, table in wheel.items()
    }
    assert tables["items"].rows() == [
        (242, "Kolya", 1996, "Comedy Romance"),
        (267, "unknown", None, "unknown"),
        (11, "Misérables, Les (Film)", 1995, "Action"),
    ]
    dataset = load_dataset("ml100k")
    assert dataset.frame.collect().rows() == [
        (196, 242, 3, 881250949, 49, "M", "writer", "05105", "Kolya", 1996, "Comedy Romance")
    ]
    with pytest.raises(ConfigError, match="data set 'ml100k' comes in one part; leave part out and split it"):
        load_dataset("ml100k", part="train")


def test_ml_1m_archive(tmp_path: Path, cache: Path) -> None:
    download("ml1m", published(tmp_path, zipped(ML_1M, "latin-1"), reader="ml_1m"), cache / "ml1m")
    dataset = load_dataset("ml1m")
    row = (1, 1193, 5, 978300760, "F", 1, 10, "48067", "Amélie: a film", 2001, "Comedy|Romance")
    assert dataset.frame.collect().rows() == [row]
    assert dataset.schema.timestamp == "timestamp"  # this edition has times, but not the column of the fixed split
    assert dataset.split.by == "time"


def test_latest_small_archive_is_checked_against_the_published_file(tmp_path: Path, cache: Path) -> None:
    content = zipped(LATEST)
    sums = tmp_path / "archive.zip.md5"
    sums.write_text(f"MD5 (ml-latest-small.zip) = {hashlib.md5(content).hexdigest()}\n")
    source = published(tmp_path, content, reader="ml_latest_small", md5_url=sums.as_uri())
    folder = download("ml_latest_small", source, cache / "ml_latest_small")
    assert pl.read_parquet(folder / "movies.parquet").rows() == [(31, "Dangerous Minds, The (1995)", "Drama|Crime")]
    assert load_dataset("ml_latest_small").frame.collect().height == 1
    sums.write_text("MD5 (ml-latest-small.zip) = " + "0" * 32)
    with pytest.raises(DataError, match=r"published is 0{32}; the download is damaged, try again"):
        download("ml_latest_small", source, cache / "again")


def test_adjacency_lists_become_pairs(tmp_path: Path, cache: Path) -> None:
    urls = {}
    for part, text in (("train", "0 5 6\n1 7 \n"), ("test", "0 9\n1\n")):
        (tmp_path / f"{part}.txt").write_text(text)
        urls[part] = (tmp_path / f"{part}.txt").as_uri()
    download("gowalla", Download(reader="adjacency", url=urls), cache / "gowalla")
    assert load_dataset("gowalla").frame.collect().rows() == [
        (0, 5, "train"),
        (0, 6, "train"),
        (1, 7, "train"),
        (0, 9, "test"),
    ]


def test_damaged_download_leaves_nothing_behind(tmp_path: Path, cache: Path) -> None:
    wrong = published(tmp_path, zipped(ML_100K), reader="ml_100k", md5="0" * 32)
    with pytest.raises(DataError, match=r"published is 0{32}; the download is damaged, try again"):
        download("ml100k", wrong, cache / "ml100k")
    with pytest.raises(DataError, match="not a zip archive"):
        download("ml100k", published(tmp_path, b"<html>", reader="ml_100k"), cache / "ml100k")
    assert not cache.exists()


def test_no_network_names_every_source_tried(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr="ERROR: No matching distribution found")
    monkeypatch.setattr(download_module.subprocess, "run", lambda *_, **__: failed)
    source = Download(reader="ml_100k", url=(tmp_path / "absent.zip").as_uri())
    with pytest.raises(DataError) as caught:
        download("ml100k", source, cache / "ml100k")
    message = str(caught.value)
    assert "absent.zip" in message
    assert "recbole==1.2.1 from the package index (ERROR: No matching distribution found)" in message
    assert f"put its files into {cache / 'ml100k'}" in message


def test_changed_layout_and_dead_address(tmp_path: Path, cache: Path) -> None:
    changed = LATEST | {"ml-latest-small/ratings.csv": "userId,movieId,rating\n1,x,2.5\n"}
    source = published(tmp_path, zipped(changed), reader="ml_latest_small")
    with pytest.raises(DataError, match=r"archive\.zip holds other columns than expected"):
        download("ml_latest_small", source, cache / "ml_latest_small")
    absent = Download(reader="adjacency", url={"train": (tmp_path / "train.txt").as_uri()})
    with pytest.raises(
        DataError, match=r"data set 'gowalla' cannot be fetched from file:.*train\.txt \(.*check the network"
    ):
        download("gowalla", absent, cache / "gowalla")


def test_unwritable_cache_is_named(tmp_path: Path) -> None:
    source = published(tmp_path, zipped(ML_100K), reader="ml_100k")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write data set 'ml100k' to .*set RECEMBED_CACHE"):
        download("ml100k", source, tmp_path / "file" / "ml100k")


def test_lists_are_joined_before_they_are_cut() -> None:
    recipe = Recipe(
        parts="s", lists=["history", "valid_item", "test_item"], next_item=NextItem(column="items", holdout=2)
    )
    frame = pl.LazyFrame({"user_id": [7], "history": [[1, 2]], "valid_item": [3], "test_item": [4]})
    assert build_frame(recipe, {"s": frame}).select("user_id", "history", "item_id", "split").collect().rows() == [
        (7, [1], 2, "train"),
        (7, [1, 2], 3, "valid"),
        (7, [1, 2, 3], 4, "test"),
    ]


def test_join_keeps_every_row_and_takes_no_column_twice() -> None:
    recipe = Recipe(parts="log", join={"items": ["item"]}, combine={"both": ["user", "item"]})
    log = pl.LazyFrame({"user": [1, 2], "item": [5, 6], "name": ["log", "log"]})
    items = pl.LazyFrame({"item": [5], "name": ["items"], "size": [3]})
    assert build_frame(recipe, {"log": log, "items": items}).collect().rows() == [
        (1, 5, "log", "1-5", 3),
        (2, 6, "log", "2-6", None),
    ]


SIZES = {  # rows of the train, valid and test parts of the customary split, as published or checked by hand
    "ml1m": (791_718, 99_692, 108_799),
    "ml1m_ood": (33_891, 10_401, 7_331),
    "criteo_sample": (97_955, 19_592, 19_592),
    "frappe": (202_027, 57_722, 28_860),
    "gowalla": (810_128, 0, 217_242),
    "yelp2018": (1_237_259, 0, 324_147),
    "amazon_book_kgat": (652_514, 0, 193_920),
    "amazon_baby": (118_551, 21_682, 20_559),
    "tiktok": (59_541, 3_051, 6_130),
    "amazon_games": (288_626, 50_546, 50_546),
    "amazon_beauty_sid": (131_413, 22_363, 22_363),
    "diginetica": (719_470, 0, 60_858),
    "yoochoose_1_64": (369_859, 0, 55_898),
    "hm_week": (175_315, 32_130, 32_866),
}


@pytest.mark.parametrize("name", list(DATASETS))
def test_real_files_fit_their_schema(name: str, real_data: Path) -> None:
    if not (real_data / DATASETS[name].folder).is_dir():
        pytest.skip(f"{name} is not in RECEMBED_DATA")
    dataset = load_dataset(name)
    check_columns(dataset.frame, dataset.schema)
    splits = split_frame(dataset.frame, dataset.split, dataset.schema)
    sizes = tuple(int(part.select(pl.len()).collect().item()) for _, part in splits.items())
    assert sizes == SIZES.get(name, sizes)
    assert sizes[0] > sizes[2] > 0
    head = dataset.frame.head(20).collect()
    assert not head.is_empty()


@pytest.mark.slow
def test_wheel_from_the_package_index(cache: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Needs a package index; without one the test fails, for that is what it tests."""
    source = Download(reader="ml_100k", url=(tmp_path / "no-such.zip").as_uri())
    folder = download("ml100k", source, cache / "ml100k")
    dataset = load_dataset("ml100k")
    assert dataset.frame.select(pl.len()).collect().item() == 100_000
    assert len(WHEEL_SHA256) == 64
    real = request.getfixturevalue("real_data")
    for table in ("ratings", "users", "items"):
        assert pl.read_parquet(folder / f"{table}.parquet").equals(
            pl.read_parquet(real / "ml100k" / f"{table}.parquet")
        )
