"""Access to the page and its API: names of the host, a token, and headers against foreign content.

On the loopback everything is open to the users of this machine, unless there is a token. Any other address
needs one. A request must name this host: a page elsewhere, whose name an attacker leads here, gets nothing.
"""

from __future__ import annotations

import hmac
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import psutil
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from siftline.errors import ConfigError
from siftline.stack.token import TOKEN_VARIABLE
from siftline.system.addresses import is_loopback

# The page sets it for the address of one report, which a browser opens without other headers.
COOKIE = "siftline-token"
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,200}")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
# The page has no data in it.
_PUBLIC = frozenset({"/", "/healthz"})
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": NOTHING,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Access:
    """The names by which a request may call this host, and the token that it needs, if any."""

    hosts: frozenset[str]
    token: str | None = None

    @classmethod
    def at(cls, host: str, environment: Mapping[str, str]) -> Access:
        """Return the access to a server on `host`.

        The token is that of the environment; without one, it is made up for an address that is not loopback.

        Raises
        ------
        ConfigError
            When the token of the environment can be guessed, or not be sent.
        """
        token = environment.get(TOKEN_VARIABLE)
        if token is not None and not _TOKEN.fullmatch(token):
            problem = f"{TOKEN_VARIABLE} is not of 16 to 200 letters, digits and . _ ~ -"
            raise ConfigError(problem, "set another token, or none: then one is generated")
        if token is None and not is_loopback(host):
            token = secrets.token_urlsafe(24)
        return cls(_LOOPBACK | {host.lower()} | _names_here(host), token)

    def admits(self, request: Request) -> bool:
        """Return true if a request has the token, or needs none."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = request.cookies.get(COOKIE, "")
        return self.token is None or hmac.compare_digest(given.strip().encode(), self.token.encode())


def _names_here(host: str) -> frozenset[str]:
    """Return all names of this machine if the server listens on all its addresses."""
    if host not in ("0.0.0.0", "::"):  # noqa: S104
        return frozenset()
    addresses = (one.address for found in psutil.net_if_addrs().values() for one in found)
    return frozenset({socket.gethostname().lower(), *addresses})


class Gate:
    """Lets requests of the admitted to an application, and gives each answer its headers."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    if name != "Content-Security-Policy" or name not in headers:
                        headers[name] = value
            await send(message)

        refusal = self._refusal(Request(scope)) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        if _host(request.headers.get("host", "")) not in self._access.hosts:
            return JSONResponse({"detail": "the Host header does not name this server"}, 421)
        if request.url.path not in _PUBLIC and not self._access.admits(request):
            detail = "the bearer token is missing or wrong"
            return JSONResponse({"detail": detail}, 401, {"WWW-Authenticate": 'Bearer realm="siftline"'})
        return None


def _host(header: str) -> str:
    """Return the name in a Host header, without port and brackets."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]+))(?::\d+)?", header)
    return (found[1] or found[2]).lower() if found else ""
