"""Tables in object stores (a real S3 client, a small S3 on this machine) and wherever fsspec reaches."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import s3

from fedgen.data.sources import open_source
from fedgen.data.store import Store, open_store
from fedgen.errors import ConfigError, DataError, FedgenError, MissingExtra

CANARY = "CANARY-4711"
HERE = Path()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for year in (2025, 2026):
        path = tmp_path / "visits" / f"year={year}" / "part-00000-x.snappy.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table({"age": [year, year + 1], "note": [CANARY, "x"]}), path)
    (tmp_path / "visits" / "_SUCCESS").touch()
    (tmp_path / "visits.csv").write_text("a,b\n1,2\n")
    (tmp_path / "visits.tsv").write_text("a\tb\n1\t2\n")
    return tmp_path


@pytest.fixture
def bucket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3.Bucket]:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with s3.serving(folder) as server:
        yield server


@pytest.fixture
def memory(folder: Path) -> Iterator[str]:
    """The same files in fsspec's memory."""
    files = fsspec.filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file():
            files.pipe_file(f"/clinic/{path.relative_to(folder).as_posix()}", path.read_bytes())
    yield "fsspec+memory://clinic"
    files.rm("/clinic", recursive=True)


def read(source: Any, columns: Any = None) -> Any:
    return pa.Table.from_batches(list(source.batches(columns))).to_pydict()


def refused(kind: type[FedgenError], url: str) -> str:
    with pytest.raises(kind) as caught:
        read(open_source(url, base=HERE))
    error = caught.value
    assert CANARY not in str(error)
    assert "\n" not in str(error)
    assert error.__cause__ is None
    if kind is not MissingExtra:
        assert error.__context__ is None, "the library's exception may hold a key"
    return str(error)


WANT = {"age": [2025, 2026, 2026, 2027], "year": ["2025", "2025", "2026", "2026"]}


def test_a_folder_in_s3_is_a_table(bucket: s3.Bucket) -> None:
    source = open_source(bucket.url("visits"), base=HERE)
    assert source.columns == ["age", "note", "year"]
    assert source.describe == "s3://bucket/visits"
    assert read(source, ["age", "year"]) == WANT


def test_only_parts_of_a_file_are_fetched(bucket: s3.Bucket, folder: Path) -> None:
    """A column that nobody asks for does not cross the network."""
    wide = folder / "wide.parquet"
    columns = {f"c{i}": pa.array([f"{i}-{j}" * 9 for j in range(20_000)]) for i in range(8)}
    pq.write_table(pa.table({"a": list(range(20_000)), **columns}), wide, compression="none")
    said: list[int] = []
    original = s3._Request._say

    def counted(self: Any, code: int, body: bytes, **rest: Any) -> None:
        said.append(len(body) if self.command == "GET" else 0)
        original(self, code, body, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3._Request, "_say", counted)
        assert len(read(open_source(bucket.url("wide.parquet"), base=HERE), ["a"])["a"]) == 20_000
    assert sum(said) < wide.stat().st_size / 4


@pytest.mark.parametrize("name", ["visits.csv", "visits.tsv"])
def test_a_csv_in_s3_is_known_by_its_suffix(bucket: s3.Bucket, name: str) -> None:
    assert read(open_source(bucket.url(name), base=HERE)) == {"a": ["1"], "b": ["2"]}


@pytest.mark.parametrize("name", ["absent", "absent.csv", "absent.parquet"])
def test_what_is_not_in_the_bucket(bucket: s3.Bucket, name: str) -> None:
    assert f"s3://bucket/{name}: no such file" in refused(DataError, bucket.url(name))


def test_what_the_store_says_is_not_repeated(bucket: s3.Bucket) -> None:
    bucket.refusal = (403, CANARY)
    assert "the store cannot be read" in refused(DataError, bucket.url("visits"))
    assert "the store cannot be read" in refused(DataError, bucket.url("visits.csv"))


def test_a_refusal_while_rows_are_read(bucket: s3.Bucket) -> None:
    source = open_source(bucket.url("visits"), base=HERE)
    bucket.refusal = (403, CANARY)
    with pytest.raises(DataError) as caught:
        read(source)
    assert CANARY not in str(caught.value)
    assert caught.value.__context__ is None


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedgen.data.store._ATTEMPTS", 1)
    url = "s3://bucket/visits?endpoint=https://127.0.0.1:1&anonymous=yes&region=eu-west-1"
    assert "s3://bucket/visits: the store cannot be read" in refused(DataError, url)


def test_no_row_lands_in_a_log(bucket: s3.Bucket, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert CANARY in read(open_source(bucket.url("visits"), base=HERE))["note"]
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    ("url", "what"),
    [
        (f"s3://KEY:{CANARY}@bucket/visits", "holds no credentials"),
        (f"s3://{CANARY}@bucket/visits", "holds no credentials"),
        (f"gs://{CANARY}@bucket/visits", "holds no credentials"),
        (f"s3://bucket/visits?secret_key={CANARY}", "secret_key: an option that s3:// does not have"),
        (f"s3://bucket/visits?access_key={CANARY}", "AWS_ACCESS_KEY_ID"),
        (f"gs://bucket/visits?token={CANARY}", "GOOGLE_APPLICATION_CREDENTIALS"),
        (f"abfs://c@a.dfs.core.windows.net/v?sig={CANARY}", "AZURE_CLIENT_SECRET"),
        (f"abfs://c:{CANARY}@a.dfs.core.windows.net/v", "not an address of Azure's"),
        (f"abfs://{CANARY}/v", "not an address of Azure's"),
        ("s3://bucket/visits?region=", "region: an option needs one value"),
        ("s3://bucket/visits?region=a&region=b", "region: an option needs one value"),
        ("s3://bucket/visits?anonymous=maybe", "anonymous: is yes or no"),
        (
            "s3://bucket/visits?endpoint=http://minio.example.org",
            "endpoint: rows would cross the network in clear",
        ),
        ("s3://bucket/visits?endpoint=http://localhost.example.org", "in clear"),
        ("s3://bucket/visits?endpoint=minio:9000", "endpoint: is not the address of a host"),
        (f"s3://bucket/visits?endpoint=https://me:{CANARY}@host", "endpoint: is not the address of a host"),
        ("s3://bucket/visits?endpoint=https://host:port", "endpoint: is not the address of a host"),
        ("s3://?region=a", "names no bucket"),
        ("s3:bucket", "begins with s3://"),
        ("s3://", "nothing stands behind s3:"),
        (f"fsspec+sftp://me:{CANARY}@host/v", "holds no credentials"),
        (f"fsspec+sftp://me:0/{CANARY}@host/v", "holds no credentials"),
        (f"fsspec+memory://v?token={CANARY}", "not an address for fsspec"),
        ("fsspec+simplecache::memory://v", "begins with fsspec+simplecache://"),
        ("fsspec+memory://v::file://w", "not an address for fsspec"),
        ("fsspec+nonsense://v", "fsspec cannot open this"),
        ("fsspec+://v", "not an address for fsspec"),
    ],
)
def test_addresses_that_are_refused(url: str, what: str) -> None:
    assert what in refused(ConfigError, url)


def test_an_address_of_azure_names_container_account_and_path() -> None:
    store = open_store("abfs://box@account.dfs.core.windows.net/a/b")
    assert (store.root, store.shown) == ("box/a/b", "abfs://box@account.dfs.core.windows.net/a/b")


def test_a_bucket_of_google() -> None:
    store = open_store("gs://box/a/b?anonymous=yes&endpoint=http://127.0.0.1:1")
    assert (store.root, store.shown) == ("box/a/b", "gs://box/a/b")


def test_credentials_of_the_environment_are_in_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", CANARY)
    store = open_store("s3://bucket/visits?region=eu-west-1")
    assert CANARY not in f"{store!r} {store}"


def test_what_fsspec_reaches_is_read_alike(memory: str, folder: Path) -> None:
    for start in (memory, f"fsspec+file://{folder}"):
        assert read(open_source(f"{start}/visits", base=HERE), ["age", "year"]) == WANT
        assert read(open_source(f"{start}/visits.csv", base=HERE)) == {"a": ["1"], "b": ["2"]}


def test_an_unfinished_job_is_noticed_wherever_it_is(memory: str) -> None:
    fsspec.filesystem("memory").pipe_file("/clinic/visits/_temporary/0/x.parquet", b"")
    assert "a job that has not finished" in refused(DataError, f"{memory}/visits")


def test_a_filesystem_that_fails_is_not_repeated(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(f"{memory}/visits", base=HERE)
    table = open_source(f"{memory}/visits.csv", base=HERE)

    def deny(*_args: Any, **_options: Any) -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "_open", deny)
    for it in (source, table):
        with pytest.raises(DataError) as caught:
            read(it)
        assert CANARY not in str(caught.value)
        assert caught.value.__context__ is None


def test_a_package_that_fsspec_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "paramiko", None)
    assert "fsspec needs a package" in refused(ConfigError, "fsspec+sftp://host/v")


def test_without_fsspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert "pip install 'fedgen[objects]'" in refused(MissingExtra, "fsspec+memory://v")


def test_a_path_of_this_machine_is_shown_as_it_was_written() -> None:
    store = Store.local(Path("some") / "where")
    assert store.shown == "some/where"
    assert store.root == str((Path("some") / "where").absolute())
