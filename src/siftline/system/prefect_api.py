"""Checks of the Prefect API without Prefect: the form of its address, and its answer."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx

from siftline.errors import ApiError, ConfigError
from siftline.system.addresses import proxy_for, without_password

# For the environment of every Prefect.
NO_TELEMETRY = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
_EXAMPLE = "http://127.0.0.1:4200/api"
_REMEDY = "start it with `prefect server start`, correct PREFECT_API_URL, or unset it"
SILENT_SECONDS = 8.0
_MOST_BYTES = 4_096
_ATTEMPTS = 2
_PAUSE_SECONDS = 1.0


def check_api(url: str, seconds: float = SILENT_SECONDS) -> None:
    """Check that a Prefect API answers at an address, each of two times within `seconds`.

    Raises
    ------
    ConfigError
        When it is not an address.
    ApiError
        When nothing answers there, or anything else.
    """
    check_address(url)
    for attempt in range(_ATTEMPTS):
        last = attempt == _ATTEMPTS - 1
        try:
            answer = _ask(url, seconds)
        except httpx.TimeoutException as error:
            if last:
                raise _silent(url, f"no answer within {seconds:g} s, {_ATTEMPTS} times") from error
            continue
        except httpx.HTTPError as error:
            raise _silent(url, _reason(url, error)) from error
        if last or not answer.is_server_error:
            _check_answer(url, answer)
            return
        time.sleep(_PAUSE_SECONDS)


def check_address(url: str) -> None:
    """Check the form of the API's address."""
    try:
        parts = urlsplit(url)
        httpx.URL(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, httpx.InvalidURL):
        right = False
    if not right or any(one.isspace() for one in url):
        problem = f"PREFECT_API_URL {without_password(url)!r}: not the address of an HTTP API"
        raise ConfigError(problem, f"write it like {_EXAMPLE}, or unset it")


def check_proxies() -> None:
    """Check that the environment's proxies can be used."""
    try:
        httpx.Client(verify=False).close()  # noqa: S501  it asks nothing
    except (ImportError, ValueError, httpx.InvalidURL):
        named = [f"{kind.upper()}_PROXY" for kind in ("all", "http", "https") if kind in getproxies()]
        problem = f"{', '.join(named)}: a proxy that cannot be used"
        remedy = "give the address of an HTTP proxy, unset it, or for SOCKS: pip install 'httpx[socks]'"
        raise ConfigError(problem, remedy) from None


def _ask(url: str, seconds: float) -> httpx.Response:
    """Ask for the health, without credentials; Prefect's own client checks the certificate."""
    health = httpx.URL(f"{url.rstrip('/')}/health").copy_with(userinfo=b"")
    with (
        httpx.Client(verify=False, timeout=seconds, follow_redirects=True) as client,  # noqa: S501
        client.stream("GET", health) as answer,
    ):
        content = _beginning(answer, time.monotonic() + seconds)
        headers = {"content-type": answer.headers.get("content-type", "text/plain")}
        return httpx.Response(answer.status_code, headers=headers, content=content)


def _beginning(answer: httpx.Response, until: float) -> bytes:
    """Read the beginning of an answer: a wrong one may be large, or endless."""
    content = b""
    for part in answer.iter_bytes():
        content += part
        if len(content) > _MOST_BYTES:
            break
        if time.monotonic() > until:
            raise httpx.ReadTimeout("the answer does not end")
    return content


def _check_answer(url: str, answer: httpx.Response) -> None:
    if answer.status_code in (401, 403):
        return  # it wants the credentials
    shown, through = without_password(url), _through(url)
    if answer.status_code == 407 or (answer.is_server_error and through):
        problem = f"the Prefect API at {shown} is not reached (status {answer.status_code}){through}"
        raise ApiError(problem, "correct the proxy, or add the host to NO_PROXY")
    if answer.is_server_error:
        problem = f"the Prefect API at {shown} failed (status {answer.status_code})"
        raise ApiError(problem, "check the server's log")
    if answer.is_success and answer.text.strip() == "true":
        return
    page = "text/html" in answer.headers.get("content-type", "")
    what = "a web page" if page else f"something else (status {answer.status_code})"
    problem = f"PREFECT_API_URL {shown}: {what} is there, not a Prefect API"
    raise ApiError(problem, f"correct it{_better(url)}, or unset it")


def _silent(url: str, reason: str) -> ApiError:
    through = _through(url)
    problem = f"the Prefect API at {without_password(url)} does not answer ({reason}){through}"
    return ApiError(problem, "correct the proxy, or add the host to NO_PROXY" if through else _REMEDY)


def _reason(url: str, error: httpx.HTTPError) -> str:
    causes = list(_causes(error))
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return "it does not speak TLS: is its scheme http?"
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return "no such host"
    if isinstance(error, httpx.ConnectError):
        return "no connection"
    https = url.startswith("http:") and isinstance(error, httpx.RemoteProtocolError | httpx.ReadError)
    return f"{type(error).__name__}{': is its scheme https?' if https else ''}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _through(url: str) -> str:
    proxy = proxy_for(url)
    return f" through the proxy {without_password(proxy)}" if proxy else ""


def _better(url: str) -> str:
    """Name the usual form of an address, if it has another."""
    parts = urlsplit(url)
    usual = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/api"
    return f", perhaps to {usual}" if parts.path.rstrip("/") != "/api" else ""
