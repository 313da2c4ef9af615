"""Rules, templates, retries and rate limits of notifications; a failure changes nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from siftline.config.batch import NotifyConfig
from siftline.notices.delivery import Delivery, NotDelivered, Send, concerns, deliver
from siftline.notices.messages import Message, RunInfo, completed_message, failed_message, recovering_message
from tests.unit.notices.test_messages import REJECTS, RESULT, TOP

RUN = RunInfo("flights")
COMPLETED = completed_message(RUN, RESULT, [0.002, 0.001], TOP)
RECOVERED = completed_message(RUN, RESULT, recovered=True)
FAILED = failed_message(RUN, ValueError("broken"), None, False)
NO_DELAYS = (0.0, 0.0)


class Blocks:
    """Records messages by block, and raises the given failures first."""

    def __init__(self, **failures: list[Exception]) -> None:
        self.messages: list[tuple[str, str, str]] = []
        self.attempts: list[str] = []
        self._failures = failures

    def load(self, block: str) -> Send:
        def send(body: str, subject: str) -> None:
            self.attempts.append(block)
            failures = self._failures.get(block.partition("/")[2], [])
            if failures:
                raise failures.pop(0)
            self.messages.append((block, subject, body))

        return send

    @property
    def receivers(self) -> list[str]:
        return sorted(block for block, _, _ in self.messages)


def rule(block: str = "slack-webhook/ops", **fields: Any) -> NotifyConfig:
    return NotifyConfig(block=block, **fields)


def sent(
    blocks: Blocks, message: Message, *rules: NotifyConfig, memory: Path | None = None
) -> list[Delivery]:
    return deliver(message, rules, blocks.load, memory, NO_DELAYS)


def test_a_message_goes_to_the_rules_that_want_it() -> None:
    rules = [rule(), rule("email/boss", on=("failed",)), rule("custom-webhook/log", on=("completed",))]
    blocks = Blocks()
    assert sent(blocks, COMPLETED, *rules) == [Delivery("slack-webhook/ops"), Delivery("custom-webhook/log")]
    assert blocks.receivers == ["custom-webhook/log", "slack-webhook/ops"]
    blocks = Blocks()
    sent(blocks, FAILED, *rules)
    assert blocks.receivers == ["email/boss", "slack-webhook/ops"]


@pytest.mark.parametrize(
    ("recovered", "rejects", "wanted"),
    [
        (False, False, {"completed"}),
        (False, True, {"rejected"}),
        (True, False, {"recovered", "completed"}),
        (True, True, {"recovered", "rejected"}),
    ],
)
def test_a_publication_is_one_message_for_each_rule_with_one_of_its_events(
    recovered: bool, rejects: bool, wanted: set[str]
) -> None:
    message = completed_message(RUN, REJECTS if rejects else RESULT, recovered=recovered)
    events = {"completed", "rejected", "recovering", "recovered", "failed"}
    assert {event for event in events if concerns(rule(on=(event,)), message)} == wanted
    blocks = Blocks()
    sent(blocks, message, rule())
    assert len(blocks.messages) == 1


@pytest.mark.parametrize(("least", "concerned"), [(0, True), (124, True), (125, False)])
def test_results_with_too_few_anomalies_are_not_sent(least: int, concerned: bool) -> None:
    for message in (COMPLETED, RECOVERED, completed_message(RUN, REJECTS)):
        assert concerns(rule(min_anomalies=least), message) is concerned


def test_failures_are_sent_for_any_number_of_anomalies() -> None:
    for message in (FAILED, recovering_message(RUN, Path("/c/jobs/abc"), 1, 3, 5)):
        assert concerns(rule(min_anomalies=10**9), message)


def test_a_failing_block_does_not_affect_the_others() -> None:
    blocks = Blocks(ops=[ConnectionError("refused")])
    deliveries = sent(blocks, COMPLETED, rule(), rule("custom-webhook/log"))
    assert blocks.receivers == ["custom-webhook/log"]
    assert deliveries == [
        Delivery("slack-webhook/ops", "ConnectionError: refused"),
        Delivery("custom-webhook/log"),
    ]


def test_a_block_that_cannot_be_loaded_does_not_either() -> None:
    blocks = Blocks()

    def load(block: str) -> Send:
        if block == "a/b":
            raise NotDelivered("no such block")
        return blocks.load(block)

    deliveries = deliver(COMPLETED, [rule("a/b"), rule()], load, delays=NO_DELAYS)
    assert deliveries == [Delivery("a/b", "no such block"), Delivery("slack-webhook/ops")]
    assert blocks.receivers == ["slack-webhook/ops"]


def test_nothing_is_sent_without_rules() -> None:
    assert sent(Blocks(), COMPLETED) == []


def passing(count: int) -> list[Exception]:
    return [NotDelivered("answered with status 500", passing=True) for _ in range(count)]


@pytest.mark.parametrize(
    ("failures", "attempts", "error"),
    [
        (passing(2), 3, None),
        (passing(3), 3, "answered with status 500"),
        ([NotDelivered("answered with status 404")], 1, "answered with status 404"),
        ([*passing(1), NotDelivered("answered with status 404")], 2, "answered with status 404"),
    ],
    ids=["passes", "stays", "for good", "then for good"],
)
def test_transient_failures_are_retried_and_a_message_is_sent_once(
    failures: list[Exception], attempts: int, error: str | None
) -> None:
    blocks = Blocks(ops=failures)
    assert sent(blocks, COMPLETED, rule()) == [Delivery("slack-webhook/ops", error)]
    assert len(blocks.attempts) == attempts
    assert len(blocks.messages) == (error is None)


def test_attempts_are_a_delay_apart_each(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve: list[float] = []
    monkeypatch.setattr("siftline.notices.delivery.time.sleep", resolve.append)
    blocks = Blocks(ops=passing(9))
    deliver(COMPLETED, [rule()], blocks.load, delays=(1.0, 4.0))
    assert resolve == [1.0, 4.0]


@pytest.fixture
def hanging() -> Iterator[Callable[[str, str], None]]:
    """A send function that hangs until the test is over."""
    over = threading.Event()
    yield lambda body, subject: (over.wait(), None)[1]
    over.set()


def test_a_block_that_hangs_is_abandoned(hanging: Send) -> None:
    blocks = Blocks()
    deliveries = deliver(
        COMPLETED,
        [rule("custom-webhook/hangs"), rule()],
        lambda block: hanging if block.endswith("hangs") else blocks.load(block),
        timeout=0.2,
    )
    assert deliveries == [
        Delivery("custom-webhook/hangs", "no answer within 0.2 s"),
        Delivery("slack-webhook/ops"),
    ]


def test_templates_replace_body_and_subject() -> None:
    blocks = Blocks()
    template = (
        "{{ anomalies }} of {{ rows }} ({{ '%.2f' | format(100 * rate) }} %, usually {{ usual_rate }})\n"
        "{% for row in top %}{{ row.identity.id }}: {{ row.reasons[0] }}\n{% endfor %}"
        "{{ interval or 'ever' }}"
    )
    sent(blocks, COMPLETED, rule(template=template, subject="{{ name | upper }} {{ event }}"))
    assert blocks.messages == [
        (
            "slack-webhook/ops",
            "FLIGHTS completed",
            "124 of 12345 (1.00 %, usually 0.0015)\n"
            "7: amount 9 (typical 1, 8.0 σ above)\n3: age 90 (typical 3)\never",
        )
    ]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ rate / 0 }}", "division by zero"),
        ("{{ top[5].score }}", "no element 5"),
        ("{{ error.upper() }}", "'None' has no attribute 'upper'"),
        ("{{ '%(x)s' | format }}", "format"),
        ("{% include 'secrets' %}", "no loader"),
        ("{{ name.__class__.__mro__ }}", "unsafe"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
    ],
)
def test_a_failing_template_gives_way_to_the_default_text(template: str, reason: str) -> None:
    blocks = Blocks()
    (delivery,) = sent(blocks, COMPLETED, rule(template=template))
    assert blocks.messages == [("slack-webhook/ops", COMPLETED.subject, COMPLETED.body)]
    assert delivery.error is None
    assert delivery.remark is not None
    assert delivery.remark.startswith("its template failed, the default text was sent: ")
    assert reason in delivery.remark


def test_the_rate_limit_holds_messages_back_and_the_next_one_counts_them(
    tmp_path: Path,
) -> None:
    hourly, always = rule(at_most_every="1h"), rule("custom-webhook/log")
    blocks, memory = Blocks(), tmp_path / "notified" / "flights.json"
    deliveries = [sent(blocks, COMPLETED, hourly, always, memory=memory) for _ in range(3)]
    assert [one.held for one, _ in deliveries] == [False, True, True]
    assert blocks.receivers == ["custom-webhook/log"] * 3 + ["slack-webhook/ops"]

    sent(blocks, FAILED, hourly, memory=memory)
    assert blocks.messages[-1][1] == FAILED.subject, "another event is not held back"

    sent(blocks, COMPLETED, rule(at_most_every="0s"), memory=memory)
    assert blocks.messages[-1][2].startswith(f"{COMPLETED.body}\n2 more since 20")
    sent(blocks, COMPLETED, rule(at_most_every="0s"), memory=memory)
    assert blocks.messages[-1][2] == COMPLETED.body


def test_a_failed_delivery_does_not_hold_the_next_message_back(tmp_path: Path) -> None:
    blocks, memory = Blocks(ops=[NotDelivered("gone")]), tmp_path / "flights.json"
    hourly = rule(at_most_every="1h")
    assert sent(blocks, COMPLETED, hourly, memory=memory)[0].error == "gone"
    assert sent(blocks, COMPLETED, hourly, memory=memory) == [Delivery("slack-webhook/ops")]
    assert len(blocks.messages) == 1


def test_without_a_writable_memory_nothing_is_held_back(tmp_path: Path) -> None:
    (tmp_path / "notified").touch()
    blocks = Blocks()
    for _ in range(2):
        sent(blocks, COMPLETED, rule(at_most_every="1h"), memory=tmp_path / "notified" / "flights.json")
    assert len(blocks.messages) == 2
