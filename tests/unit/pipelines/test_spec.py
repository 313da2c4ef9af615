"""From the file of a pipeline to what its runs do."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from siftline.config.batch import RetriesConfig, ValidationConfig
from siftline.config.loading import parse_config
from siftline.config.schedules import Interval, Schedule
from siftline.errors import ConfigError, RenamedWarning
from siftline.pipelines.assignment import Assignment, keep_assignment, kept_assignment
from siftline.pipelines.spec import Pipeline, is_pipeline, load_pipeline
from siftline.pipelines.steps import STANDARD, Step, import_step

BATCH = {"source": {"path": "d"}, "output": {"path": "r"}}
OWN = {"uses": "company.reports:send"}
DAY = Interval(start=datetime(2026, 3, 1, tzinfo=UTC), end=datetime(2026, 3, 2, tzinfo=UTC))


def standard(**settings: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"uses": name, "settings": settings.get(name, {})} for name in STANDARD]


def pipeline(**values: Any) -> Pipeline:
    return Pipeline.model_validate({"name": "flights", "batch": BATCH, **values})


def write(path: Path, **values: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"name": "flights", "batch": BATCH, **values}))
    return path


# ----- steps


def test_the_standard_steps_are_the_default() -> None:
    assert [step.uses for step in pipeline().steps] == list(STANDARD)
    assert pipeline(steps=standard()).assignment() == pipeline().assignment()


def test_a_batch_is_named_like_its_pipeline_unless_it_has_a_name() -> None:
    assert pipeline().config().name == "flights"
    assert pipeline(batch={**BATCH, "name": "other"}).config().name == "other"


def test_settings_of_the_standard_steps_become_part_of_the_batch() -> None:
    batch = {
        **BATCH,
        "detector": {"seed": 3, "params": {"n_estimators": 5}},
        "validation": {"anomaly_rate": {"min": 0.01, "max": 0.5}},
    }
    rule = {"block": "slack-webhook/ops"}
    steps = standard(
        batch_processing={"detector": {"params": {"max_samples": 16}}, "chunking": {"rows": 7}},
        result_validation={"anomaly_rate": {"max": 0.05}},
    )
    config = pipeline(batch={**batch, "notify": [rule]}, steps=steps).config()
    assert (config.detector.seed, config.chunking.rows) == (3, 7)
    assert config.detector.params == {"n_estimators": 5, "max_samples": 16}
    assert (config.validation.anomaly_rate.min, config.validation.anomaly_rate.max) == (0.01, 0.05)
    assert [one.block for one in config.notify] == [rule["block"]]
    assert batch["detector"] == {"seed": 3, "params": {"n_estimators": 5}}


def test_settings_take_the_place_of_an_empty_section() -> None:
    steps = standard(result_validation={"anomaly_rate": {"max": 0.05}})
    config = pipeline(batch={**BATCH, "validation": None}, steps=steps).config()
    assert config.validation.anomaly_rate.max == 0.05


def test_what_a_run_is_given_has_the_settings_in_the_batch_alone() -> None:
    steps = standard(batch_processing={"chunking": {"rows": 7}})
    steps[1]["retries"] = {"attempts": 5}
    assignment = pipeline(steps=steps).assignment()
    assert assignment.config.chunking.rows == 7
    assert [step.settings for step in assignment.steps] == [{}, {}, {}]
    assert assignment.retries_of("result_validation") == RetriesConfig(attempts=5)
    assert assignment.retries_of("batch_processing") is None
    Assignment.model_validate(assignment.model_dump(mode="json"))


def test_without_result_validation_a_result_passes_whatever_the_batch_says() -> None:
    batch = {**BATCH, "validation": {"anomaly_rate": {"max": 0.05}}}
    config = pipeline(batch=batch, steps=[{"uses": "batch_processing"}]).config()
    assert config.validation == ValidationConfig(ties="warn")


def test_without_notification_nobody_is_told() -> None:
    rules = [{"block": "slack-webhook/ops"}]
    quiet = pipeline(batch={**BATCH, "notify": rules}, steps=standard()[:2])
    assert quiet.config().notify == ()
    assignment = Assignment.model_validate({"config": {**BATCH, "notify": rules}, "steps": standard()[:1]})
    assert assignment.announced.notify == ()
    assert Assignment.model_validate({"config": {**BATCH, "notify": rules}}).announced.notify != ()


def test_retries_of_the_batch_count_for_more_than_those_of_its_step() -> None:
    steps = [{"uses": "batch_processing", "retries": {"attempts": 7, "delay_seconds": 9}}]
    retries = pipeline(steps=steps).config().retries
    assert (retries.attempts, retries.delay_seconds) == (7, 9)
    retries = pipeline(batch={**BATCH, "retries": {"attempts": 2}}, steps=steps).config().retries
    assert (retries.attempts, retries.delay_seconds) == (2, 9)


def test_own_steps_are_done_before_or_after_people_are_told() -> None:
    names = ["batch_processing", "a:first", "notification", "b:second", "c.d:third"]
    assignment = pipeline(steps=[{"uses": name} for name in names]).assignment()
    assert [step.uses for step in assignment.own_steps(notified=False)] == ["a:first"]
    assert [step.uses for step in assignment.own_steps(notified=True)] == ["b:second", "c.d:third"]
    quiet = pipeline(steps=[{"uses": name} for name in names if name != "notification"]).assignment()
    assert [step.uses for step in quiet.own_steps(notified=False)] == ["a:first", "b:second", "c.d:third"]
    assert quiet.own_steps(notified=True) == []


@pytest.mark.parametrize(
    ("uses", "text"),
    [
        ([], "batch_processing comes first, and cannot be left out"),
        (["result_validation"], "batch_processing comes first, and cannot be left out"),
        (["a:b", "batch_processing"], "batch_processing comes first, and cannot be left out"),
        (["batch_processing", "batch_processing"], "batch_processing is there twice"),
        (["batch_processing", "notification", "notification"], "notification is there twice"),
        (
            ["batch_processing", "a:b", "result_validation"],
            "result_validation comes right after batch_processing, before anything is published",
        ),
        (
            ["batch_processing", "notification", "result_validation"],
            "result_validation comes right after batch_processing, before anything is published",
        ),
    ],
)
def test_steps_in_an_order_that_cannot_be_are_refused(tmp_path: Path, uses: list[str], text: str) -> None:
    path = write(tmp_path / "p.yaml", steps=[{"uses": name} for name in uses])
    assert mistakes(path) == [f"  steps: {text}"]


# ----- the rest of the file


def test_a_batch_is_beside_the_file_or_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inline = write(tmp_path / "deployments" / "inline.yaml")
    (inline.parent / "batch.yaml").write_text(yaml.safe_dump(BATCH))
    beside = write(inline.parent / "beside.yaml", batch="batch.yaml")
    anywhere = write(tmp_path / "anywhere.yaml", batch=str(inline.parent / "batch.yaml"))
    assert load_pipeline(inline) == load_pipeline("deployments/beside.yaml") == load_pipeline(anywhere)
    assert is_pipeline(beside)
    assert not is_pipeline(inline.parent / "batch.yaml")


def test_cluster_and_resources_of_a_pipeline_replace_those_of_its_batch() -> None:
    batch = {**BATCH, "cluster": {"kind": "serial"}, "resources": {"workers": 2, "priority": "low"}}
    config = pipeline(batch=batch, cluster={"workers": 3}, resources={"priority": "high"}).config()
    assert config.cluster.model_dump(exclude_unset=True) == {"kind": "local", "workers": 3}
    assert config.resources.model_dump(exclude_unset=True) == {"priority": "high"}
    assert pipeline(batch=batch).config().cluster.kind == "serial"


def test_a_cluster_under_its_former_name_is_still_one() -> None:
    with pytest.warns(RenamedWarning, match=r"^a cluster as resources of a pipeline is now its cluster; "):
        config = pipeline(batch=BATCH, resources={"kind": "serial"}).config()
    assert config.cluster.kind == "serial"


def test_notifications_in_their_former_places_are_those_of_the_batch() -> None:
    batch = {**BATCH, "notify": [{"block": "slack-webhook/a"}]}
    rules = [{"block": "slack-webhook/b"}]
    with pytest.warns(RenamedWarning, match=r"^notifications of a pipeline is now notify of its batch; "):
        of_pipeline = pipeline(batch=batch, notifications=rules)
    with pytest.warns(RenamedWarning, match=r"^settings\.rules of the step notification is now notify of"):
        of_step = pipeline(batch=batch, steps=standard(notification={"rules": rules}))
    with pytest.warns(RenamedWarning):
        none = pipeline(batch=batch, notifications=[])
    assert [rule.block for rule in of_pipeline.config().notify] == ["slack-webhook/b"]
    assert of_step == of_pipeline
    assert none.config().notify == ()
    assert batch["notify"] == [{"block": "slack-webhook/a"}]


def test_a_run_is_about_the_schedule_that_fired_and_knows_the_parameters() -> None:
    schedules = [{"cron": "0 3 * * *"}, {"slug": "hourly", "every": "1h"}]
    assignment = pipeline(schedules=schedules, parameters={"region": "EU"}).assignment()
    nightly, hourly = assignment.schedules
    assert assignment.schedule(datetime(2026, 3, 1, 3, tzinfo=UTC)) == nightly, "both fire: the first"
    assert assignment.schedule(datetime(2026, 3, 1, 4, tzinfo=UTC)) == hourly
    assert assignment.schedule(datetime(2026, 3, 1, 3, 30, tzinfo=UTC)) == nightly, "who fired last"
    assert assignment.parameters == {"region": "EU"}
    assert pipeline().assignment().schedule(datetime(2026, 3, 1, tzinfo=UTC)) is None


def mistakes(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_pipeline(path).config()
    first, *lines, last = str(caught.value).splitlines()
    assert first.endswith(f": {len(lines)} mistake{'s' * (len(lines) > 1)}")
    assert last.startswith("correct the configuration; `siftline schema")
    return lines


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"shedules": []}, "shedules: unknown field; did you mean schedules?"),
        ({"steps": [{"use": "a:b"}]}, None),
        ({"concurrency": {"limits": 2}}, "concurrency.limits: unknown field; did you mean limit?"),
        ({"schedules": [{"cron": "0 3 * * *", "time_zone": "UTC"}]}, None),
        ({"schedules": [{"cron": "0 3 * *"}]}, None),
        (
            {"schedules": [{"every": "1h"}, {"cron": "0 3 * * *"}]},
            "schedules: two schedules have the slug 'default'; give each a slug of its own",
        ),
        (
            {"steps": [{"uses": "batch_procesing"}]},
            "steps.0.uses: 'batch_procesing' is neither one of batch_processing, result_validation, "
            "notification nor import.path:function",
        ),
        ({"name": "two words"}, None),
        ({"batch": {**BATCH, "detecter": {}}}, "detecter: unknown field; did you mean detector?"),
        ({"batch": 3}, "batch: input should be a section, not 3"),
        (
            {"steps": standard(batch_processing={"chunking": {"row": 3}})},
            "chunking.row: unknown field; did you mean rows?",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, values: dict[str, Any], line: str | None) -> None:
    found = mistakes(write(tmp_path / "p.yaml", **values))
    if line is not None:
        assert found == [f"  {line}"]


def test_a_pipeline_without_a_batch_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("name: flights\n")
    assert mistakes(path) == ["  batch: missing; it has no default"]


def test_the_file_of_a_batch_that_is_missing_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "p.yaml", batch="none.yaml")
    with pytest.raises(ConfigError) as caught:
        load_pipeline(path)
    assert str(caught.value) == f"{tmp_path}/none.yaml: no such file; give the path of a configuration file"


def test_notification_has_no_settings() -> None:
    steps = standard(notification={"rules": [], "block": "slack-webhook/ops"})
    with pytest.raises(ConfigError, match=r"^steps\.notification\.settings: it has no settings; list"):
        pipeline(steps=steps).config()


def test_a_run_does_not_take_settings_of_standard_steps() -> None:
    steps = standard(result_validation={"anomaly_rate": {"max": 0.5}})
    with pytest.raises(ValueError, match="settings of result_validation belong in the configuration of the"):
        Assignment.model_validate({"config": BATCH, "steps": steps})


# ----- functions of the user's own


def test_a_step_is_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports_found.py").write_text("def send(result): return result * 2\n")
    assert import_step(Step(uses="reports_found:send"))(21) == 42


@pytest.mark.parametrize(
    ("uses", "text"),
    [
        (
            "nowhere.reports:send",
            "steps: nowhere.reports:send: ModuleNotFoundError: No module named 'nowhere'",
        ),
        ("json:send", "steps: json:send: AttributeError: module 'json' has no attribute 'send'"),
        ("broken_reports:send", "steps: broken_reports:send: ZeroDivisionError: division by zero"),
    ],
)
def test_a_step_that_cannot_be_imported_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uses: str, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_reports.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError) as caught:
        import_step(Step(uses=uses))
    assert str(caught.value) == f"{text}; correct the import path, or install it where the runs happen"


def test_a_step_must_be_a_function() -> None:
    with pytest.raises(ConfigError) as caught:
        import_step(Step(uses="math:pi"))
    assert str(caught.value) == "steps: math:pi: not a function; name one that takes the result"


# ----- what a run is about


def test_a_run_is_about_its_own_interval_or_the_last_one_that_was_over() -> None:
    schedule = Schedule(cron="0 0 * * *", timezone="America/New_York")
    config = parse_config(BATCH)
    when = datetime(2026, 3, 5, 12, tzinfo=UTC)
    assert Assignment(config=config).due(when) is None
    given = Assignment(config=config, schedules=(schedule,), interval=DAY).due(when)
    assert given is not None
    assert (given, given.start.isoformat()) == (DAY.local("America/New_York"), "2026-02-28T19:00:00-05:00")
    last = Assignment(config=config, schedules=(schedule,)).due(when)
    assert last is not None
    assert last.label == "2026-03-04"


def test_what_a_run_is_to_do_is_kept_with_its_job(tmp_path: Path) -> None:
    assignment = pipeline(
        steps=[*standard(), {**OWN, "settings": {"to": ["a"]}, "retries": {"attempts": 2}}],
        schedules=[{"cron": "0 3 * * *", "timezone": "Europe/London"}],
        parameters={"region": "EU"},
    ).assignment()
    assignment = assignment.model_copy(update={"interval": DAY})
    keep_assignment(assignment, tmp_path)
    assert kept_assignment(assignment.config, tmp_path) == assignment


@pytest.mark.parametrize("content", [None, "", "{}", '{"steps": []}'])
def test_where_nothing_readable_is_kept_the_standard_steps_are_done(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "assignment.json").write_text(content)
    config = parse_config(BATCH)
    assert kept_assignment(config, tmp_path) == Assignment(config=config)
