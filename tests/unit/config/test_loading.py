"""From a file, assignments and templates to a configuration."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from siftline.config.loading import load_config, parse_config, resolve_config
from siftline.config.schedules import Interval
from siftline.errors import ConfigError

NOW = datetime(2026, 3, 9, 4, 30, tzinfo=UTC)
TEXT = (
    "source: {path: data/flights.parquet}\noutput: {path: results}\ndetector: {params: {n_estimators: 50}}\n"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "flights.yaml"
    path.write_text(TEXT)
    return path


def test_a_file_becomes_a_configuration(file: Path) -> None:
    config = load_config(file)
    assert config.source.path == "data/flights.parquet"
    assert config.detector.params == {"n_estimators": 50}


def test_assignments_change_and_add_fields(file: Path) -> None:
    config = load_config(
        file,
        [
            "threshold.contamination=0.002",
            "source.features=[a, b]",
            "detector.params.n_estimators=7",
            "name=night",
            "cluster.kind=serial",
            "source.timestamp=",
        ],
    )
    assert config.threshold.contamination == 0.002
    assert config.source.features == ("a", "b")
    assert config.detector.params == {"n_estimators": 7}
    assert config.name == "night"
    assert config.cluster.kind == "serial"
    assert config.source.timestamp is None


def test_the_last_assignment_counts(file: Path) -> None:
    assert load_config(file, ["name=a", "name=b"]).name == "b"


@pytest.mark.parametrize(
    ("assignment", "text"),
    [
        ("name", "--set name: not an assignment; write --set key.path=value"),
        ("=3", "--set =3: not an assignment; write --set key.path=value"),
        ("a..b=3", "--set a..b=3: not an assignment; write --set key.path=value"),
        ("source.path.deep=3", "--set source.path.deep=3: path is not a section; see `siftline schema`"),
        ("name=[1", "--set name=[1: the value is not YAML; quote it"),
    ],
)
def test_a_wrong_assignment_is_refused(file: Path, assignment: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(file, [assignment])
    assert str(caught.value) == text


def test_a_wrong_value_names_the_file(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(file, ["detector.seed=-3"])
    assert str(caught.value) == (
        f"{file}: 1 mistake\n"
        "  detector.seed: input should be greater than or equal to 0, not -3\n"
        "correct the configuration; `siftline schema` prints what is allowed"
    )


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "none.yaml")
    assert str(caught.value) == f"{tmp_path}/none.yaml: no such file; give the path of a configuration file"


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path)
    assert str(caught.value) == f"{tmp_path}: Is a directory; give the path of a readable file"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            b"a: [1\nb: 2\n",
            "not YAML at line 2, column 2: did not find expected ',' or ']'; correct the file",
        ),
        (b"\xff\xfe\x00", "not YAML"),
        (b"- a\n- b\n", "not a configuration; create one with `siftline init DATA`"),
        (b"", "not a configuration; create one with `siftline init DATA`"),
    ],
)
def test_a_file_without_a_configuration_is_refused(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert text.split(",")[0] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(f"name: !!python/object/apply:pathlib.Path.touch [{tmp_path}/made]\n")
    with pytest.raises(ConfigError, match="not YAML at line 1"):
        load_config(path)
    assert not (tmp_path / "made").exists()


def test_templates_are_filled_in_from_the_run() -> None:
    config = parse_config(
        {
            "name": "flights",
            "source": {"path": "data/{{ date }}/*.parquet", "features": ["f{{ date.month }}"]},
            "output": {"path": "results/{{ name }}/{{ date.strftime('%Y/%m') }}/{{ datetime.hour }}"},
        }
    )
    resolved = resolve_config(config, NOW)
    assert resolved.source.path == "data/2026-03-09/*.parquet"
    assert resolved.source.features == ("f3",)
    assert resolved.output.path == "results/flights/2026/03/4"


def test_a_configuration_without_templates_stays_as_it_is() -> None:
    config = parse_config({"source": {"path": "d"}, "output": {"path": "r"}})
    assert resolve_config(config, NOW) is config


def test_unset_fields_stay_unset_when_templates_are_rendered() -> None:
    config = parse_config({"source": {"path": "d"}, "output": {"path": "{{ date }}"}})
    assert resolve_config(config, NOW).model_fields_set == {"source", "output"}


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ today }}", "'today' is undefined"),
        ("{{ date", "unexpected end of template, expected 'end of print statement'."),
        ("{{ date.nothing }}", "'datetime.date object' has no attribute 'nothing'"),
        ("{{ date.strftime() }}", None),
        ("{{ date.__class__.__mro__ }}", "access to attribute '__class__' of 'date' object is unsafe."),
        ("{{ cycler.__init__.__globals__ }}", None),
    ],
)
def test_a_template_that_cannot_be_rendered_is_refused(template: str, reason: str | None) -> None:
    config = parse_config({"source": {"path": template}, "output": {"path": "r"}})
    with pytest.raises(ConfigError) as caught:
        resolve_config(config, NOW)
    text = str(caught.value)
    assert text.startswith(f"source.path: {template!r}: {reason or ''}")
    assert text.endswith("; allowed: {{ date }}, {{ datetime }}, {{ name }}")


def test_a_template_that_fails_is_refused() -> None:
    config = parse_config({"source": {"path": "{{ 1 / 0 }}"}, "output": {"path": "r"}})
    with pytest.raises(ConfigError, match=r"source\.path"):
        resolve_config(config, NOW)


def test_a_rendered_value_is_checked_like_any_other() -> None:
    config = parse_config({"source": {"path": "{{ '' }}"}, "output": {"path": "r"}})
    with pytest.raises(ConfigError, match=r"source\.path: string should have at least 1 character"):
        resolve_config(config, NOW)


def test_the_templates_of_messages_are_not_filled_in_when_the_run_starts() -> None:
    rule = {
        "block": "slack-webhook/ops",
        "subject": "{{ name }}",
        "template": "{{ anomalies }} in {{ output }}",
    }
    values = {"source": {"path": "{{ date }}"}, "output": {"path": "r"}, "notify": [rule]}
    config = resolve_config(parse_config(values), NOW)
    assert config.source.path == "2026-03-09"
    assert (config.notify[0].subject, config.notify[0].template) == (rule["subject"], rule["template"])


def told_of_a_run(template: str, **given: Any) -> str:
    config = parse_config({"name": "n", "source": {"path": template}, "output": {"path": "r"}})
    return resolve_config(config, NOW, **given).source.path


def test_a_run_about_an_interval_has_the_date_of_its_start() -> None:
    interval = Interval(
        start=datetime(2026, 3, 1, 23, tzinfo=UTC), end=datetime(2026, 3, 2, 23, tzinfo=UTC)
    ).local("Europe/Berlin")
    template = "{{ date }} {{ datetime.hour }} {{ interval.start.day }} {{ interval.end.isoformat() }}"
    assert told_of_a_run(template, interval=interval) == "2026-03-02 0 2 2026-03-03T00:00:00+01:00"


def test_parameters_are_known_to_templates_of_any_kind() -> None:
    parameters = {"region": "EU", "days": [1, 2], "deep": {"er": True}}
    template = "{{ parameters.region }}/{{ parameters.days[1] }}/{{ parameters.deep.er }}/{{ date }}"
    assert told_of_a_run(template, parameters=parameters) == "EU/2/True/2026-03-09"


@pytest.mark.parametrize(
    ("given", "template", "text"),
    [
        (
            {},
            "{{ interval.start }}",
            "'interval' is undefined; allowed: {{ date }}, {{ datetime }}, {{ name }}",
        ),
        ({"parameters": {}}, "{{ parameters.a }}", "'parameters' is undefined; allowed: {{ date }}, "),
        (
            {"parameters": {"a": 1}},
            "{{ parameters.b }}",
            "'dict object' has no attribute 'b'; allowed: {{ date }}, {{ datetime }}, {{ name }}, "
            "{{ parameters }}",
        ),
    ],
)
def test_templates_know_only_the_variables_of_the_run(
    given: dict[str, Any], template: str, text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        told_of_a_run(template, **given)
    assert str(caught.value).startswith(f"source.path: {template!r}: {text}")


def test_a_parameter_is_not_itself_a_template() -> None:
    assert told_of_a_run("{{ parameters.a }}", parameters={"a": "{{ date }}"}) == "{{ date }}"
