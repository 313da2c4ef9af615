"""What may be configured, and how a mistake reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from siftline.config.batch import BatchConfig
from siftline.config.clusters import LocalCluster
from siftline.config.fields import Duration, parse_bytes, parse_duration
from siftline.config.loading import parse_config
from siftline.errors import ConfigError
from siftline.pipelines.spec import Pipeline

MINIMAL: dict[str, Any] = {"source": {"path": "data"}, "output": {"path": "results"}}


def mistakes(**sections: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config({**MINIMAL, **sections}, "batch.yaml")
    first, *lines, last = str(caught.value).splitlines()
    assert first == f"batch.yaml: {len(lines)} mistake{'s' if len(lines) > 1 else ''}"
    assert last == "correct the configuration; `siftline schema` prints what is allowed"
    return [line.removeprefix("  ") for line in lines]


def test_everything_but_the_two_paths_has_a_default() -> None:
    config = parse_config(MINIMAL)
    assert config.name == "batch"
    assert config.source.features is None
    assert config.detector.kind == "isolation_forest"
    assert (config.detector.sample_rows, config.detector.seed) == (200_000, 0)
    assert config.threshold.share == 0.01
    assert config.chunking.rows == "auto"
    assert config.cluster == LocalCluster()
    assert (config.checkpoint.path, config.checkpoint.every) == (".siftline", 1)
    assert (config.source.verify, config.chunking.timeout_seconds) == ("stat", 600)
    retries = {"attempts": 3, "delay_seconds": 1, "backoff": 2, "jitter": 0.2, "max_delay_seconds": 60}
    assert config.retries.model_dump() == retries
    assert config.tolerate.model_dump() == {"rows": 0, "chunks": 0}
    assert config.notify == ()


def test_the_documented_example_is_valid() -> None:
    config = parse_config(
        {
            "name": "flights",
            "source": {
                "path": "data/flights.parquet",
                "key": ["flight_id"],
                "features": ["dep_delay", "air_time"],
                "timestamp": "time_hour",
            },
            "detector": {
                "kind": "isolation_forest",
                "params": {"n_estimators": 100},
                "sample_rows": 200000,
                "seed": 0,
            },
            "threshold": {"contamination": 0.001},
            "chunking": {"rows": "auto"},
            "cluster": {"kind": "local", "workers": 2, "threads": 1, "memory_limit": "2GiB"},
            "checkpoint": {"path": ".siftline", "every": 1},
            "validation": {"anomaly_rate": {"max": 0.05}},
            "output": {"path": "results/flights", "columns": ["carrier", "origin", "dest"]},
            "notify": [{"block": "slack-webhook/ops", "on": ["completed", "failed"]}],
        }
    )
    assert config.threshold.share == 0.001
    assert config.validation.anomaly_rate.min == 0


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"detectr": {}}, "detectr: unknown field; did you mean detector?"),
        (
            {"source": {"path": "d", "feature": ["x"]}},
            "source.feature: unknown field; did you mean features?",
        ),
        (
            {"threshold": {"zzz": 1}},
            "threshold.zzz: unknown field; allowed: contamination, quantile, score",
        ),
        (
            {"threshold": {"contamination": 0.7}},
            "threshold.contamination: input should be less than or equal to 0.5, not 0.7",
        ),
        (
            {"threshold": {"contamination": 0}},
            "threshold.contamination: input should be greater than 0, not 0",
        ),
        (
            {"threshold": {"contamination": 0.1, "score": 0.6}},
            "threshold: set only one of contamination, score and quantile",
        ),
        ({"threshold": {"score": float("nan")}}, "threshold.score: input should be a finite number, not nan"),
        (
            {"chunking": {"rows": 0}},
            "chunking.rows: input should be greater than 0 or 'auto', not 0",
        ),
        ({"chunking": {"rows": 10, "bytes": "1MiB"}}, "chunking: set rows or bytes, not both"),
        (
            {"chunking": {"bytes": "lots"}},
            "chunking.bytes: input should be a size such as 2GiB, not 'lots'",
        ),
        ({"cluster": {"memory_limit": "0"}}, "cluster.memory_limit: must be more than 0"),
        ({"cluster": {"workers": 0}}, "cluster.workers: input should be greater than 0, not 0"),
        (
            {"cluster": {"kind": "local", "worker": 2}},
            "cluster.worker: unknown field; did you mean workers?",
        ),
        (
            {"cluster": {"kind": "serial", "memory_limit": "1GiB"}},
            "cluster.memory_limit: unknown field; another kind of cluster has it",
        ),
        ({"cluster": {"kind": "address"}}, "cluster.address: missing; it has no default"),
        ({"cluster": {"kind": "factory"}}, "cluster.factory: missing; it has no default"),
        (
            {"cluster": {"kind": "address", "address": "nobody"}},
            "cluster.address: input should be an address such as tcp://127.0.0.1:8786, not 'nobody'",
        ),
        (
            {"detector": {"kind": "magic"}},
            "detector.kind: input should be 'isolation_forest' or 'elliptic_envelope', not 'magic'",
        ),
        (
            {"detector": {"sample_rows": "many"}},
            "detector.sample_rows: input should be a valid integer, not 'many'",
        ),
        ({"detector": {"seed": -1}}, "detector.seed: input should be greater than or equal to 0, not -1"),
        (
            {"preprocess": {"cyclic": {"hour": 0}}},
            "preprocess.cyclic.hour: input should be greater than 0, not 0",
        ),
        (
            {"preprocess": {"missing": "zero"}},
            "preprocess.missing: input should be 'keep', 'mean', 'median' or 'most_frequent', not 'zero'",
        ),
        (
            {"validation": {"anomaly_rate": {"min": 0.5, "max": 0.1}}},
            "validation.anomaly_rate: min 0.5 is more than max 0.1",
        ),
        ({"output": {}}, "output.path: missing; it has no default"),
        (
            {"name": "my flights"},
            "name: input should be letters, digits, '.', '_' and '-', a letter or digit first, "
            "not 'my flights'",
        ),
        (
            {"notify": [{"block": "slack"}]},
            "notify.0.block: input should be the type and name of a Prefect block, such as "
            "slack-webhook/ops, not 'slack'",
        ),
        (
            {"source": {"path": "d", "features": ["x"], "key": ["x"]}},
            "configuration: column 'x' is both a feature and the key",
        ),
        (
            {"source": {"path": "d", "features": ["x"], "label": "x"}},
            "configuration: column 'x' is both a feature and the label",
        ),
        (
            {"source": {"path": "d", "features": ["x"], "timestamp": "x"}},
            "configuration: column 'x' is both a feature and the timestamp",
        ),
        (
            {"preprocess": {"time_parts": ["hour"]}},
            "configuration: preprocess.time_parts needs source.timestamp",
        ),
    ],
)
def test_a_mistake_is_one_line_with_field_reason_and_value(sections: dict[str, Any], line: str) -> None:
    assert mistakes(**sections) == [line]


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"source": {"path": "d", "features": [2020]}},
         "source.features.0: input should be a valid string, not 2020; quote it if it is text"),
        ({"source": {"path": "d", "features": [None]}},
         "source.features.0: input should be a valid string, but it is empty; quote it if it is text"),
        ({"source": {"path": "d", "features": "a"}}, "source.features: input should be a list, not 'a'"),
        ({"source": "data.parquet"}, "source: input should be a section, not 'data.parquet'"),
        ({"threshold": None}, "threshold: input should be a section, but it is empty"),
        ({"threshold": {"score": "high"}}, "threshold.score: input should be a valid number, not 'high'"),
        ({"preprocess": {"cyclic": {2020: 24}}},
         "preprocess.cyclic.2020: input should be a valid string, not 2020; quote it if it is text"),
        ({"cluster": {"kind": "dask"}},
         "cluster.kind: input should be one of 'local', 'address', 'factory', 'serial', not 'dask'"),
        ({"cluster": {"kind": "factory", "factory": "x"}},
         "cluster.factory: input should be an import path such as dask_jobqueue.SLURMCluster, not 'x'"),
        ({"notify": {"block": "a/b"}}, "notify: input should be a list, not a section"),
        ({"retries": {"attempts": [3]}}, "retries.attempts: input should be a valid integer, not a list"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_one_plain_line(sections: dict[str, Any], line: str) -> None:
    assert mistakes(**sections) == [line]


def test_very_many_mistakes_are_counted() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({**MINIMAL, **{f"key_{number}": 1 for number in range(1000)}})
    first, *lines, more, _ = str(caught.value).splitlines()
    assert (first, len(lines), more) == ("configuration: 1000 mistakes", 20, "  and 980 more")


def test_every_mistake_is_listed() -> None:
    assert mistakes(
        detector={"kind": "magic", "seed": -1},
        chunking={"rows": "some"},
        treshold={},
        source={},
    ) == [
        "source.path: missing; it has no default",
        "detector.kind: input should be 'isolation_forest' or 'elliptic_envelope', not 'magic'",
        "detector.seed: input should be greater than or equal to 0, not -1",
        "chunking.rows: input should be a valid integer or 'auto', not 'some'",
        "treshold: unknown field; did you mean threshold?",
    ]


def test_a_long_value_is_cut_short() -> None:
    (line,) = mistakes(detector={"kind": "x" * 500})
    assert len(line) < 200
    assert line.endswith("...")


def test_the_configuration_cannot_be_changed() -> None:
    config = parse_config(MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        config.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("size", "number"), [("2GiB", 2 << 30), ("500MB", 500_000_000), ("64 MiB", 64 << 20), ("123", 123)]
)
def test_sizes_are_read_as_people_write_them(size: str, number: int) -> None:
    assert parse_bytes(size) == number


def test_a_size_may_be_a_plain_number() -> None:
    assert parse_config({**MINIMAL, "cluster": {"memory_limit": 10**9}}).cluster.memory_limit == "1000000000"


def test_the_stated_configuration_has_no_arguments_of_the_cluster() -> None:
    cluster = {"kind": "factory", "factory": "a.B", "kwargs": {"password": "secret"}}
    stated = parse_config({**MINIMAL, "cluster": cluster}).stated()
    assert "secret" not in str(stated)
    assert stated["cluster"]["factory"] == "a.B"


def documented() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field's name and schema; one whose text is its section's own is a bare reference to it."""
    for schema in (BatchConfig.model_json_schema(), Pipeline.model_json_schema()):
        for section in (schema, *schema["$defs"].values()):
            for name, field in section["properties"].items():
                reference = field.get("$ref", "").rpartition("/")[2]
                yield f"{section['title']}.{name}", {**schema["$defs"].get(reference, {}), **field}


def test_every_field_has_a_description() -> None:
    assert [name for name, field in documented() if not field.get("description")] == []


def test_every_field_has_a_title() -> None:
    assert [name for name, field in documented() if not field.get("title")] == []


@pytest.mark.parametrize(("rule", "share"), [({}, 0.01), ({"contamination": 0.2}, 0.2)])
def test_the_share_is_the_contamination_or_one_in_a_hundred(rule: dict[str, float], share: float) -> None:
    assert parse_config({**MINIMAL, "threshold": rule}).threshold.share == share


@pytest.mark.parametrize("tolerance", [0, 7, "0%", "0.1%", "5%", "99.99%", "100%"])
def test_a_tolerance_is_a_number_or_a_share(tolerance: int | str) -> None:
    config = parse_config({**MINIMAL, "tolerate": {"rows": tolerance, "chunks": tolerance}})
    assert (config.tolerate.rows, config.tolerate.chunks) == (tolerance, tolerance)


@pytest.mark.parametrize("tolerance", [-1, 0.5, "five", "101%", "100.1%", "-1%", "5 %", "%", ".5%", "1e1%"])
def test_no_other_tolerance_is_taken(tolerance: Any) -> None:
    said = f"input should be a whole number or a share such as '0.1%', not {tolerance!r}"
    given = {"rows": tolerance, "chunks": tolerance}
    assert mistakes(tolerate=given) == [f"tolerate.rows: {said}", f"tolerate.chunks: {said}"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attempts", 0),
        ("delay_seconds", -1),
        ("delay_seconds", float("inf")),
        ("backoff", 0.9),
        ("jitter", 1.1),
        ("max_delay_seconds", -1),
    ],
)
def test_retries_that_make_no_sense_are_mistakes(field: str, value: float) -> None:
    assert [line.partition(":")[0] for line in mistakes(retries={field: value})] == [f"retries.{field}"]


def test_a_notification_rule_covers_all_events_by_default() -> None:
    given = [{"block": "slack-webhook/ops"}, {"block": "slack-webhook/ops", "on": ["rejected"]}]
    config = parse_config({**MINIMAL, "notify": given})
    assert [one.on for one in config.notify] == [
        ("completed", "rejected", "recovering", "recovered", "failed"),
        ("rejected",),
    ]


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86_400), ("1.5h", 5400), (30, 30), (0.5, 0.5)],
)
def test_a_duration_is_a_number_with_a_unit_or_of_seconds(given: Any, seconds: float) -> None:
    assert parse_duration(TypeAdapter(Duration).validate_python(given)) == timedelta(seconds=seconds)


@pytest.mark.parametrize("given", ["soon", "", "-1s", "1w", "1h30m", "1 h", ".5h", "9" * 9, 1e300, "1h\n"])
def test_an_invalid_duration_is_a_mistake(given: Any) -> None:
    with pytest.raises(ValidationError, match=r"should be a duration such as 90s, 15m, 2h or 1d, not "):
        TypeAdapter(Duration).validate_python(given)


def test_the_schema_of_a_duration_is_a_text_with_a_pattern() -> None:
    schema = TypeAdapter(Duration).json_schema()
    assert schema["type"] == "string"
    assert all(re.search(schema["pattern"], example) for example in schema["examples"])
    assert not re.search(schema["pattern"], "soon")


def test_a_notifier_tells_every_result_at_any_time_in_the_usual_words_unless_it_says_otherwise() -> None:
    (rule,) = parse_config({**MINIMAL, "notify": [{"block": "slack-webhook/ops"}]}).notify
    assert (rule.min_anomalies, rule.at_most_every, rule.subject, rule.template) == (0, None, None, None)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("at_most_every", "hourly", "should be a duration such as 90s, 15m, 2h or 1d, not 'hourly'"),
        ("at_most_every", True, "input should be a valid string, not True"),
        ("min_anomalies", -1, "input should be greater than or equal to 0, not -1"),
        ("template", "{{ rows", "malformed in line 1: unexpected end of template, expected"),
        ("template", "fine\n{% if %}", "malformed in line 2: Expected an expression, got 'end of statement"),
        ("template", "{{ rows | upside_down }}", "malformed in line 1: No filter named 'upside_down'."),
        ("template", "{{ row }}", "unknown variable 'row'; allowed: name, event, job_id, "),
        ("subject", "{{ date }}", "unknown variable 'date'; allowed: name, event, job_id, "),
    ],
)
def test_a_rule_that_cannot_be_followed_is_a_mistake(field: str, value: Any, text: str) -> None:
    (line,) = mistakes(notify=[{"block": "slack-webhook/ops", field: value}])
    assert line.startswith(f"notify.0.{field}: {text}")


def test_a_template_may_use_jinjas_globals() -> None:
    template = "{% for row in top[:2] %}{{ loop.index }} {{ range(3) | list }} {{ row.score }}{% endfor %}"
    (rule,) = parse_config({**MINIMAL, "notify": [{"block": "a/b", "template": template}]}).notify
    assert rule.template == template


def test_every_field_has_its_position_in_the_form() -> None:
    for schema in (BatchConfig.model_json_schema(), Pipeline.model_json_schema()):
        for section in (schema, *schema["$defs"].values()):
            positions = [field["position"] for field in section["properties"].values()]
            assert positions == list(range(len(positions))), section["title"]
