"""Parquet files that cannot be read are refused in one line, before anything can go wrong."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from siftline.config.batch import SourceConfig
from siftline.errors import SourceError
from siftline.source.files import find_files, open_parquet


class Keys(pe.KmsClient):  # type: ignore[misc]
    """A key service that wraps nothing."""

    def __init__(self, _: Any) -> None:
        super().__init__()

    def wrap_key(self, key: bytes, _: str) -> bytes:
        return base64.b64encode(key)

    def unwrap_key(self, wrapped: bytes, _: str) -> bytes:
        return base64.b64decode(wrapped)


def encrypted(path: Path, **options: Any) -> Path:
    factory = pe.CryptoFactory(Keys)
    asked = pe.EncryptionConfiguration(footer_key="footer", **options)
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), asked)
    table = pa.table({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        open_parquet(path)
    text = str(caught.value)
    assert text.isprintable()
    return text


@pytest.mark.parametrize("algorithm", ["AES_GCM_V1", "AES_GCM_CTR_V1"])
def test_an_encrypted_column_is_refused_before_it_aborts_the_process(tmp_path: Path, algorithm: str) -> None:
    keys = {"column_keys": {"key": ["a"]}, "encryption_algorithm": algorithm}
    path = encrypted(tmp_path / "x.parquet", plaintext_footer=True, **keys)
    text = "write its rows to a file without encryption"
    assert refusal(path) == f"{path}: has encrypted columns; {text}"
    path = encrypted(tmp_path / "y.parquet", **keys)
    assert refusal(path) == f"{path}: is encrypted; {text}"


def test_an_encrypted_file_is_refused(tmp_path: Path) -> None:
    path = encrypted(tmp_path / "x.parquet", uniform_encryption=True)
    assert refusal(path).startswith(f"{path}: is encrypted; ")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "an empty file"),
        (b"PK\x03\x04\0\0\x1b[31m", "a ZIP archive or a workbook"),
        (b"\x1f\x8b\0\0", "gzip"),
        (b"ORC\0", "ORC"),
        (b"Obj\x01\0", "Avro"),
        (b"ARROW1\0\0", "Arrow (Feather)"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"a,b\n1,2\n", "other content"),
    ],
)
def test_another_format_is_named(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(content)
    assert (
        refusal(path) == f"{path}: cannot be read: {kind}, not Parquet; replace the file with an intact one"
    )


def test_a_file_cut_anywhere_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x\n\x1b[31m.parquet"
    pq.write_table(pa.table({"a": [1.0, 2.0], "b": ["x", "y"]}), path)
    content = path.read_bytes()
    for size in range(0, len(content), 7):
        path.write_bytes(content[:size])
        assert "cannot be read: " in refusal(path)


def test_a_damaged_footer_is_a_source_error_or_none(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1.0, 2.0], "b": ["x", "y"]}), path, store_schema=False)
    content = path.read_bytes()
    for place in range(len(content) - 60, len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            open_parquet(path)
        except SourceError as error:
            assert str(error).isprintable()  # noqa: PT017


def test_a_parquet_file_of_another_name_is_read_where_the_format_is_given(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    pq.write_table(pa.table({"a": [1.0]}), path)
    assert find_files(SourceConfig(path=str(path), format="parquet")) == ([path], "parquet")
    assert open_parquet(path).rows == 1
