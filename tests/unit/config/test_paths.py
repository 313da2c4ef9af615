"""Paths: the home directory is filled in, and what is not local is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from siftline.cli.options import checkpoint_option, path_type
from siftline.config.loading import parse_config, resolve_config
from siftline.config.paths import local_path
from siftline.errors import ConfigError
from siftline.pipelines.spec import load_pipeline

NOW = datetime(2026, 3, 9, tzinfo=UTC)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("data/x", "data/x"),
        ("./~x", "./~x"),
        ("a:b/c", "a:b/c"),
        ("~", "/home/me"),
        ("~/out", "/home/me/out"),
        ("file:///data/my%20file", "/data/my file"),
        ("file://localhost/data", "/data"),
        ("FILE:/data", "/data"),
    ],
)
def test_a_local_path_is_taken(given: str, path: str) -> None:
    assert local_path(given) == path


@pytest.mark.parametrize(
    "given",
    [
        "s3://b/x",
        "S3://b/x",
        "s3:/b/x",
        "gs://b",
        "az://b",
        "abfss://c@a.dfs.core.windows.net/x",
        "hdfs://h/x",
        "C:/data",
        "https://example.org/x.csv",
        "memory://x",
        "simplecache::s3://b/x",
        "file://host/x",
    ],
)
def test_a_remote_path_is_refused_with_a_remedy(given: str) -> None:
    with pytest.raises(
        ValueError, match="is not a local path; copy the data to a local or mounted directory"
    ):
        local_path(given)


@pytest.mark.parametrize("given", ["", "  ", "\t", "a\0b", "file:///a%00b", "~absent-user/x"])
def test_a_path_that_cannot_be_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"blank|NUL|no home directory is known for ~absent-user"):
        local_path(given)


@pytest.mark.parametrize("given", ["$HOME", "$HOME/x", "${DATA}/x"])
def test_a_variable_is_refused_where_its_value_would_lead_elsewhere(given: str) -> None:
    with pytest.raises(ValueError, match="begins with a variable, which is not filled in; write its value"):
        local_path(given)
    assert local_path(f"./{given}") == f"./{given}"


def test_a_password_in_a_url_is_not_shown() -> None:
    with pytest.raises(ValueError, match="not a local path") as caught:
        local_path("https://me:hunter2@example.org/x")
    assert "hunter2" not in str(caught.value)


def configuration(field: str, path: str) -> dict[str, Any]:
    section, _, name = field.partition(".")
    values: dict[str, Any] = {"source": {"path": "d"}, "output": {"path": "r"}}
    if section == "cluster":
        tls = {"ca": "a", "cert": "b", "key": "c", name: path}
        return {**values, "cluster": {"kind": "address", "address": "tls://here:1", "tls": tls}}
    return {**values, section: {**values.get(section, {}), name: path}}


FIELDS = ["source.path", "output.path", "checkpoint.path", "detector.model"]


@pytest.mark.parametrize("field", [*FIELDS, "cluster.ca", "cluster.cert", "cluster.key"])
def test_every_path_of_a_configuration_is_local(field: str) -> None:
    assert "/home/me/x" in str(parse_config(configuration(field, "~/x")))
    with pytest.raises(ConfigError, match=r"'s3://b/x' is not a local path"):
        parse_config(configuration(field, "s3://b/x"))
    with pytest.raises(ConfigError, match=field.rpartition(".")[2]):
        parse_config(configuration(field, " "))


@pytest.mark.parametrize("field", FIELDS)
def test_a_path_is_checked_again_when_its_template_is_filled_in(field: str) -> None:
    def resolved(template: str, **parameters: Any) -> str:
        return str(resolve_config(parse_config(configuration(field, template)), NOW, None, parameters))

    assert "/home/me/2026-03-09" in resolved("~/{{ date }}", a=1)
    assert "'/data/2026-03-09'" in resolved("file:///data/{{ date }}", a=1)
    assert "/home/me/x" in resolved("{{ parameters.root }}/x", root="~")
    with pytest.raises(ConfigError, match="not a local path"):
        resolved("{{ parameters.root }}/x", root="s3://b")
    with pytest.raises(ConfigError, match="not a local path"):
        parse_config(configuration(field, "s3://b/{{ date }}"))


def test_the_batch_of_a_pipeline_may_be_in_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "b.yaml").write_text("source: {path: d}\noutput: {path: r}\n")
    file = tmp_path / "p.yaml"
    file.write_text("name: p\nbatch: ~/b.yaml\n")
    assert load_pipeline(file).config().source.path == "d"
    file.write_text("name: p\nbatch: s3://b/b.yaml\n")
    with pytest.raises(ConfigError, match=r"batch: 's3://b/b\.yaml' is not a local path"):
        load_pipeline(file)


@click.command()
@checkpoint_option
@click.option("-o", "--output", type=path_type)
def _command(checkpoint: str, output: Path | None) -> None:
    click.echo(f"{checkpoint} {output}")


def test_options_fill_in_the_home_directory() -> None:
    assert CliRunner().invoke(_command, ["--checkpoint=~/x", "-o~/y"]).output == "/home/me/x /home/me/y\n"
    assert CliRunner().invoke(_command, []).output == ".siftline None\n"
    refused = CliRunner().invoke(_command, ["--checkpoint=s3://b"])
    assert refused.exit_code == 2
    assert "'s3://b' is not a local path" in refused.output
