"""Patience with an API that is gone: as long as set, and once only."""

from __future__ import annotations

import threading

import httpx
import pytest

from siftline.flows.run.api_retries import PatientSend

REQUEST = httpx.Request("POST", "http://host/api/flow_runs/set_state")
GONE = httpx.ConnectError("gone")


class Api:
    """Answers as scripted; the last answer stays."""

    def __init__(self, *answers: httpx.HTTPError | int) -> None:
        self.answers = list(answers)
        self.asked = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, httpx.HTTPError):
            raise answer
        response = httpx.Response(answer, request=request)
        if response.is_error:
            raise httpx.HTTPStatusError("refused", request=request, response=response)
        return response


class Clock:
    """A time that passes with sleep only."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("siftline.flows.run.api_retries.time", clock)
    return clock


def patient(api: Api, seconds: float = 60.0) -> PatientSend:
    return PatientSend(api, seconds=seconds, pause=2.0)


@pytest.mark.parametrize("fault", [GONE, httpx.ReadTimeout("silent"), httpx.ReadError("cut"), 503, 429])
def test_a_short_outage_is_outlasted(fault: httpx.HTTPError | int) -> None:
    api = Api(fault, fault, fault, 200)

    assert patient(api)(REQUEST).status_code == 200
    assert api.asked == 4


@pytest.mark.parametrize("status", [400, 404, 500])
def test_an_answer_that_will_not_change_is_not_asked_for_again(status: int) -> None:
    api = Api(status)

    with pytest.raises(httpx.HTTPStatusError):
        patient(api)(REQUEST)
    assert api.asked == 1


def test_an_api_that_is_gone_for_good_is_waited_for_only_once(clock: Clock) -> None:
    api = Api(GONE)
    send = patient(api, seconds=10.0)

    with pytest.raises(httpx.ConnectError):
        send(REQUEST)
    assert (api.asked, clock.now) == (5, 8.0)
    with pytest.raises(httpx.ConnectError):
        send(REQUEST)
    assert (api.asked, clock.now) == (6, 8.0)


def test_patience_is_back_after_an_answer() -> None:
    send = patient(Api(GONE), seconds=0.0)
    with pytest.raises(httpx.ConnectError):
        send(REQUEST)
    api = Api(200, GONE, 200)
    send._send, send._seconds = api, 60.0

    assert [send(REQUEST).status_code for _ in range(2)] == [200, 200]


def test_a_silent_api_holds_an_attempt_up_no_longer_than_is_left() -> None:
    send = patient(Api(200), seconds=7.0)

    send(REQUEST)

    assert REQUEST.extensions["timeout"]["read"] == 7.0


def test_requests_on_the_side_are_as_patient_as_their_own_settings() -> None:
    api = Api(GONE)
    send = patient(api)
    failed: list[type[Exception]] = []

    def ask() -> None:
        try:
            send(REQUEST)
        except httpx.ConnectError as error:
            failed.append(type(error))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()

    assert (failed, api.asked) == ([httpx.ConnectError], 1)
