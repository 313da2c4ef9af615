"""A starter configuration is valid, and fits the data that it was made for."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from siftline.cli import commands
from siftline.cli.starter import Asked, plain_name, starter_config
from siftline.config.batch import BatchConfig
from siftline.config.loading import load_config, resolve_config
from siftline.errors import FeatureError, InputError, OutputConflict, SourceError
from siftline.stages.inspection import inspect_batch
from tests.support import make_table

ROWS = 200
X = np.random.default_rng(0).normal(size=ROWS)


def started(data: Path, monkeypatch: pytest.MonkeyPatch, **asked: Any) -> BatchConfig:
    """The configuration, after the checks that `siftline validate` makes."""
    file = data.parent / "started.yaml"
    file.write_text(starter_config(data, Asked(**asked)), encoding="utf-8")
    monkeypatch.chdir(data.parent)
    config = resolve_config(load_config(file), datetime.now(UTC))
    inspect_batch(config)
    return config


def comments(data: Path, **asked: Any) -> str:
    """Return the comments of a starter, joined to one line."""
    lines = starter_config(data, Asked(**asked)).splitlines()
    return " ".join(line.partition("#")[2].strip() for line in lines if "#" in line)


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_columns_get_the_roles_that_their_names_and_types_suggest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(20).append_column("hour", pa.array(np.arange(20.0)))
    table = table.append_column("is_anomaly", pa.array([0, 1] * 10))
    pq.write_table(table, tmp_path / "my flights.2013.parquet")
    config = started(tmp_path / "my flights.2013.parquet", monkeypatch)
    assert config.name == "my-flights"
    assert config.source.path == str(tmp_path / "my flights.2013.parquet")
    assert (config.source.key, config.source.timestamp, config.source.label) == (("id",), "at", "is_anomaly")
    assert config.source.features == ("x", "y", "n", "hour")
    assert config.preprocess.cyclic == {"hour": 24}
    assert config.output.columns == ("at", "color")
    assert config.output.path == "results/my-flights"


def test_a_starter_is_the_defaults_where_the_data_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(make_table(20).select(["x"]), tmp_path / "d.parquet")
    config = started(tmp_path / "d.parquet", monkeypatch)
    assert config.model_dump(include={"preprocess", "detector"}) == BatchConfig(
        source={"path": "a"}, output={"path": "b"}, detector={"params": {"n_estimators": 100}}
    ).model_dump(include={"preprocess", "detector"})
    assert config.source.key == ()


def test_a_starter_explains_itself(tmp_path: Path) -> None:
    pq.write_table(make_table(20), tmp_path / "d.parquet")
    text = starter_config(tmp_path / "d.parquet")
    assert "siftline validate" in text
    assert "Left out: color" in text
    assert set(yaml.safe_load(text)) >= {"name", "source", "detector", "threshold", "cluster", "output"}


@pytest.mark.parametrize("path", ["data", "data/*.parquet", "x.csv"])
def test_directories_globs_and_csv_have_starters_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(make_table(20), tmp_path / "data" / "a.parquet")
    (tmp_path / "x.csv").write_text("id,x,t\n1,2.5,a\n2,3.5,b\n")
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "started.yaml"
    file.write_text(starter_config(Path(path)))
    config = load_config(file)
    inspect_batch(config)
    assert config.source.path == path
    assert "x" in (config.source.features or ())


@pytest.mark.parametrize("name", ["yes", "1", "a: b", "null", "ä 'quoted\" #", "- x", "{{", "x,y", "{% x %}"])
def test_awkward_column_names_are_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pq.write_table(pa.table({name: [1.0, 2.0], "other": [1, 2]}), tmp_path / "d.parquet")
    assert started(tmp_path / "d.parquet", monkeypatch).source.features == (name, "other")


def test_data_without_numbers_has_a_starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = started(write(tmp_path / "d.parquet", t=["a", "b"] * ROWS), monkeypatch)
    assert (config.source.features, config.preprocess.categorical) == (("t",), "onehot")
    times = pa.array(np.arange(ROWS) * 3_600_000_000, pa.timestamp("us"))
    config = started(write(tmp_path / "d.parquet", at=times), monkeypatch)
    assert config.source.features == ()
    assert (config.source.timestamp, config.preprocess.time_parts) == (
        "at",
        ("hour", "day_of_week", "minute")[:2],
    )


def test_missing_data_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no parquet or csv files there"):
        starter_config(tmp_path / "none.parquet")


@pytest.mark.parametrize("name", ["score", "rank", "row"])
def test_columns_that_the_results_add_are_not_proposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pq.write_table(pa.table({name: [1.0, 2.0], "x": [1.0, 2.0]}), tmp_path / "d.parquet")
    assert started(tmp_path / "d.parquet", monkeypatch).source.features == ("x",)


def test_a_key_is_unique_in_what_was_read_or_there_is_none_and_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "d.parquet", customer_id=np.arange(ROWS) % 50, order_id=np.arange(ROWS) + 7, x=X)
    assert started(data, monkeypatch).source.key == ("order_id",)
    assert "customer_id (an identifier, 50 values in 200 rows)" in comments(data)
    data = write(tmp_path / "d.parquet", customer_id=np.arange(ROWS) % 50, x=X)
    assert started(data, monkeypatch).source.key == ()
    assert "customer_id has 50 distinct values in all 200 rows" in comments(data)
    data = write(tmp_path / "d.parquet", id=[None, *range(ROWS - 1)], x=X)
    assert started(data, monkeypatch).source.key == ()
    assert "id has no value in 1 of all 200 rows" in comments(data)
    data = write(tmp_path / "d.parquet", serial=[f"a{number}" for number in range(ROWS)], x=X)
    assert started(data, monkeypatch).source.key == ("serial",)


def test_a_key_of_csv_is_compared_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "d.csv"
    path.write_text("id,x\n" + "".join(f"{2**60 + number},{value}\n" for number, value in enumerate(X)))
    assert started(path, monkeypatch).source.key == ("id",)
    path.write_text("id,x\n1,2.5\n01,3.5\n,4\n")
    assert started(path, monkeypatch).source.key == ()


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("user_id", np.arange(ROWS) % 7, "an identifier, 7 values in 200 rows"),
        ("sessionId", np.arange(ROWS) % 7, "an identifier, 7 values in 200 rows"),
        ("zip", np.arange(ROWS) * 37 % 1000 + 10_000, "codes by its name"),
        ("Postal Code", np.arange(ROWS) * 37 % 1000 + 10_000, "codes by its name"),
        ("phone_number", np.arange(ROWS) * 37 % 1000 + 10_000, "codes by its name"),
        ("plz", [f"{number * 7 % 99:05d}" for number in range(ROWS)], "codes such as 00000"),
        ("n", np.arange(ROWS), "counts the rows"),
        ("n", np.arange(ROWS)[::-1] * 5.0, "counts the rows"),
        ("n", np.arange(ROWS) ** 2, "rises with every row"),
        ("Unnamed: 0", np.arange(ROWS), "index of a data frame"),
        ("__index_level_0__", np.arange(ROWS), "index of a data frame"),
        ("", np.arange(ROWS), "a column without a name"),
        ("c", [3.5] * ROWS, "constant"),
        ("c", [None] * ROWS, "no value"),
        ("class", np.arange(ROWS) % 3, "a label by its name, 3 values"),
        ("timestamp", 1_700_000_000 + np.arange(ROWS) * 61 % 977, "a time by its name"),
        ("x2", [np.inf, *X[1:]], "infinite values"),
        ("x2", X * 1e300, "beyond 32-bit"),
        ("note", [f"sentence number {number}" for number in range(ROWS)], "text, 200 values in 200 rows"),
        ("amount", [str(number) for number in X], "numbers as text"),
        ("list", [[1]] * ROWS, "list"),
        ("score", X, "the name of a result column"),
    ],
)
def test_what_is_no_measurement_is_left_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, values: Any, reason: str
) -> None:
    data = write(tmp_path / "d.parquet", **{name: values, "x": X})
    assert started(data, monkeypatch).source.features == ("x",)
    assert reason in comments(data)


@pytest.mark.parametrize(
    "name", ["humid", "paid", "rooms", "number_of_rooms", "y", "time_of_flight", "key_figure", "zip_count"]
)
def test_names_that_only_resemble_identifiers_are_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    data = write(tmp_path / "d.parquet", **{name: np.random.default_rng(1).integers(0, 90, ROWS)})
    assert started(data, monkeypatch).source.features == (name,)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("is_anomaly", [0, 1]),
        ("y", [False, True]),
        ("target", ["no", "yes"]),
        ("Class", [0.0, 1.0]),
        ("label", [0, 1]),
    ],
)
def test_a_label_is_proposed_if_its_values_are_those_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, values: list[Any]
) -> None:
    data = write(tmp_path / "d.parquet", **{name: values * (ROWS // 2), "x": X})
    config = started(data, monkeypatch)
    assert (config.source.label, config.source.features) == (name, ("x",))


def test_the_user_chooses_key_label_and_what_to_leave_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "d.parquet", id=np.arange(ROWS), shop=["a"] * ROWS, x=X, y1=X, y2=X, odd=X > 0)
    config = started(data, monkeypatch, key=("shop", "id"), label="odd", exclude=("y*",))
    assert (config.source.key, config.source.label) == (("shop", "id"), "odd")
    assert config.source.features == ("x",)
    assert "y1, y2 (excluded)" in comments(data, exclude=("y*",))
    for asked in ({"key": ("z",)}, {"label": "z"}, {"exclude": ("z*",)}, {"key": ("x",), "label": "x"}):
        with pytest.raises(FeatureError):
            starter_config(data, Asked(**asked))


def test_missing_values_do_not_fail_the_run_and_fine_integers_are_scaled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "d.parquet", n=2**40 + np.arange(ROWS) * 7 % 97, x=[None, *X[1:]])
    config = started(data, monkeypatch)
    assert config.source.features == ("n", "x")
    assert (config.preprocess.missing, config.preprocess.scale) == ("keep", "standard")


def test_a_name_in_a_comment_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        "a\nthreshold: {score: 0}",
        "b\r\noutput: {path: /}",
        "c\x85x: 1",
        "\u2028y: 1",
        "\x1b[2J",
        "\x00",
        " ",
    ]
    data = write(tmp_path / "d.parquet", **dict.fromkeys(names, X), x=X)
    text = starter_config(data)
    assert all(line.isprintable() for line in text.split("\n"))
    assert started(data, monkeypatch).model_dump(exclude={"source"}) == started(
        write(tmp_path / "d.parquet", x=X), monkeypatch
    ).model_dump(exclude={"source"})
    assert r"'a\nthreshold: {score: 0}'" in " ".join(text.split()).replace("# ", "")


def test_the_comment_on_thousands_of_columns_is_short_and_wrapped(tmp_path: Path) -> None:
    columns = {f"c{number}": [number % 2 * 1.5] * ROWS for number in range(2_000)}
    columns |= {f"t{number}": [f"{one % (number + 2)}x" for one in range(ROWS)] for number in range(150)}
    text = starter_config(write(tmp_path / "d.parquet", **columns, x=X))
    assert len(text.splitlines()) < 80
    assert max(map(len, text.splitlines())) <= 120
    assert "c0, c1, c2, c3, c4, and 1,995 others (constant)" in " ".join(text.replace("#", "").split())
    assert "others" in text


def test_more_features_than_a_configuration_can_list_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siftline.cli.starter.configuration._MOST_BYTES", 180_000)
    data = write(tmp_path / "d.parquet", **{f"{'x' * 190}{one}": X[:20] * one for one in range(1, 1_500)})
    config = started(data, monkeypatch)
    assert 500 <= len(config.source.features or ()) <= 1_000
    assert "others, too many for a configuration" in comments(data)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("2024-01-31.parquet", "2024-01-31"),
        ("null.csv", "null"),
        ("on.csv", "on"),
        ("-x.csv", "x"),
        (" a b.csv", "a-b"),
        ("Überblick für März.csv", "Uberblick-fur-Marz"),
        ("数据.csv", "batch"),
        ("x" * 200 + ".csv", "x" * 100),
        (".hidden.csv", "batch"),
        ("DATA.CSV.GZ", "DATA"),
        ("data/*.csv", "data"),
        ("data/2024-*/x*.csv", "x"),
        ("data/**/*.parquet", "data"),
        ("data/", "data"),
    ],
)
def test_pipelines_have_plain_names(data: str, name: str) -> None:
    assert plain_name(Path(data)) == name


@pytest.mark.parametrize(
    "name",
    [
        *("2024-01-31.parquet", "null.parquet", "on.parquet", "-x.parquet", " a b.parquet", "~x.parquet"),
        *(
            "数据.parquet",
            "a: b #c.parquet",
            "{{ x }}.parquet",
            "{{.parquet",
            "{% x.parquet",
            'it\'s "x".parquet',
        ),
        *("a[1].parquet", "s3:.parquet", "X.PARQUET", "n" * 200 + ".parquet", "a\nb.parquet", "*.parquet"),
    ],
)
def test_any_name_of_a_file_is_a_path_that_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write(tmp_path / name, x=X)
    monkeypatch.chdir(tmp_path)
    config = started(Path(name), monkeypatch)
    assert [file.name for file in inspect_batch(config).files] == [name]
    assert Path(config.output.path).parent == Path("results")


@pytest.mark.parametrize("name", ["s3://bucket/x.parquet", "https://x/y.csv", "nothing*.csv"])
def test_data_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        starter_config(Path(name))


def test_results_lie_outside_the_data_and_apart_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.parquet", x=X)
    (tmp_path / "results" / "a").mkdir(parents=True)
    (tmp_path / "results" / "a" / "mine.txt").touch()
    assert started(tmp_path / "a.parquet", monkeypatch).output.path == "results/a-2"
    shutil.rmtree(tmp_path / "results")
    assert started(Path(), monkeypatch).output.path.startswith("_results/")


def test_the_current_directory_gives_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sales 2024").mkdir()
    monkeypatch.chdir(tmp_path / "sales 2024")
    assert plain_name(Path()) == plain_name(Path("../sales 2024")) == "sales-2024"


def test_wide_data_has_more_rows_per_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for width, rows, expected in ((5, 20_000, None), (45, 20_000, 4096), (45, 3_000, 1.0), (45, 200, None)):
        values = np.random.default_rng(0).normal(size=(rows, width))
        data = write(tmp_path / "d.parquet", **{f"s{one}": values[:, one] for one in range(width)})
        assert started(data, monkeypatch).detector.params.get("max_samples") == expected


def test_rows_that_are_alike_do_not_fail_the_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = np.random.default_rng(0).random((2_000, 3)) < 0.3
    data = write(tmp_path / "d.parquet", **{f"f{one}": flags[:, one] for one in range(3)})
    validation = started(data, monkeypatch).validation
    assert (validation.ties, validation.anomaly_rate.max > 0.3) == ("warn", True)
    data = write(tmp_path / "d.parquet", x=np.random.default_rng(0).normal(size=2_000))
    validation = started(data, monkeypatch).validation
    assert (validation.ties, validation.anomaly_rate.max) == ("fail", 0.05)


def test_the_form_of_a_csv_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes("Größe;x\n".encode("cp1252") + b"1,5;2\n2,5;?\n" * 50)
    form = started(path, monkeypatch).source.csv
    assert form.model_dump(exclude_defaults=True) == {
        "delimiter": ";",
        "decimal": ",",
        "encoding": "cp1252",
        "null_values": ("?",),
    }
    path.write_text("a,x\n1,2\n")
    assert "csv:" not in starter_config(path)


def test_the_command_writes_a_file_whose_name_needs_no_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "-my data.parquet", id=np.arange(ROWS), x=X, y=X)
    monkeypatch.chdir(tmp_path)
    commands.main(["init", "--exclude", "y", "--", "-my data.parquet"], standalone_mode=False)
    assert capsys.readouterr().out == "wrote my-data.yaml; next: siftline run my-data.yaml\n"
    assert load_config(Path("my-data.yaml")).source.features == ("x",)
    with pytest.raises(OutputConflict, match="already exists"):
        commands.main(["init", "--", "-my data.parquet"], standalone_mode=False)
