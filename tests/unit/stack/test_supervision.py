"""Services that do as a test says are started, watched and ended."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from siftline.errors import StackError
from siftline.stack import read_stack, supervise, supervision
from siftline.stack.services import Service
from tests.unit.stack.test_stack import stack_in

STAYS = "import signal; print('here I am', flush=True); signal.pause()"
ENDS = "import sys; print('my last words', flush=True); sys.exit(3)"


class Scene:
    """A stack of services that are Python code, and what is said of it."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.said: list[str] = []
        self._services: list[Service] = []
        monkeypatch.setattr(supervision, "services", lambda stack, since: self._services)
        monkeypatch.setattr(supervision, "check_ports", lambda listeners: None)

    def add(self, name: str, code: str, healthy: Callable[[], bool] = lambda: True) -> None:
        self._services.append(Service(name, "somewhere", (sys.executable, "-c", code), healthy))

    def log(self, name: str) -> str:
        log = self.home / "logs" / f"{name}.log"
        return log.read_text() if log.exists() else ""

    def supervise(self, ready: Callable[[], None] = lambda: None, start_seconds: float = 180.0) -> None:
        supervise(stack_in(self.home), self.said.append, ready, start_seconds, backoff_seconds=0.01)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, monkeypatch)


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def test_services_are_started_in_order_each_when_the_one_before_is_healthy(scene: Scene) -> None:
    scene.add("first", STAYS, lambda: "here" in scene.log("first"))
    scene.add("second", STAYS, lambda: "here" in scene.log("first") and "here" in scene.log("second"))

    def ready() -> None:
        record = read_stack(scene.home)
        assert record is not None
        assert list(record.services) == ["first", "second"]
        assert all(identity.find() for identity in record.services.values())
        terminate()

    scene.supervise(ready)

    assert [line.split()[0] for line in scene.said] == ["first", "second"]
    assert read_stack(scene.home) is None


def test_a_service_that_ends_while_it_starts_is_named_with_its_last_words(scene: Scene) -> None:
    scene.add("first", STAYS)
    scene.add("second", ENDS, lambda: False)
    scene.add("third", STAYS)

    with pytest.raises(
        StackError, match=r"^second ended while it started \(exit status 3\): my last words; "
    ):
        scene.supervise()

    assert not scene.log("third")
    assert read_stack(scene.home) is None


def test_a_service_that_is_never_healthy_is_not_waited_for_for_ever(scene: Scene) -> None:
    scene.add("only", STAYS, lambda: False)

    with pytest.raises(StackError, match=r"^only is not healthy after 0\.1 s"):
        scene.supervise(start_seconds=0.1)


def test_a_service_that_ends_again_and_again_ends_the_stack(scene: Scene) -> None:
    healthy = scene.home / "healthy"
    scene.add("stays", STAYS)
    # It is not to end before it has been seen healthy once.
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(healthy)!r}).exists(): time.sleep(0.01)\n"
    scene.add("ends", waits + ENDS, lambda: healthy.touch() is None)

    with pytest.raises(StackError, match=r"^ends ended 4 times .*\(exit status 3\): my last words; see "):
        scene.supervise()

    assert scene.said[2:] == ["ends ended (exit status 3), and was started again"] * 3
    assert read_stack(scene.home) is None


def test_signals_while_it_stops_change_nothing(scene: Scene) -> None:
    patient = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: print('asked', flush=True)); "
    scene.add(
        "patient",
        f"{patient} print('here', flush=True); signal.pause()",
        lambda: "here" in scene.log("patient"),
    )

    def ready() -> None:
        terminate()
        terminate()

    scene.supervise(ready)

    assert scene.log("patient") == "here\nasked\n"


def test_a_program_that_is_not_there_is_named(scene: Scene) -> None:
    scene._services.append(Service("absent", "nowhere", ("/no/such/program",), lambda: True))

    with pytest.raises(StackError, match=r"absent cannot be started: .*No such file"):
        scene.supervise()
