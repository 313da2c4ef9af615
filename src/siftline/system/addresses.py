"""Addresses of services: shown without passwords, reached with or without a proxy."""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Up to the last @, for people write passwords unescaped; a name alone may be a token.
_CREDENTIALS = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*:/{0,2})?.*@", re.DOTALL)
_QUERY = re.compile(r"([?&][^=&#\s]*=)[^&#\s]*")


def without_password(url: object) -> str:
    """Return an address to show: its user, password and query values are hidden."""
    return _QUERY.sub(r"\1***", _CREDENTIALS.sub(r"\1***@", str(url)))


def proxy_for(url: str) -> str | None:
    """Return the environment's proxy for an address, if any."""
    parts, proxies = urlsplit(url), getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return proxy if proxy and not proxy_bypass(parts.hostname or "") else None


def ask_loopback_directly(url: str | None = None) -> None:
    """Let this process and its children reach their own machine without a proxy."""
    host = urlsplit(url or "").hostname or ""
    ours = [*_LOOPBACK, *([host] if is_loopback(host) and host not in _LOOPBACK else [])]
    given = getproxies().get("no", "")
    known = [entry.strip() for entry in given.split(",")]
    if "*" in known:
        return
    value = ",".join([*filter(None, known), *(host for host in ours if host not in known)])
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = value


def is_loopback(host: str) -> bool:
    """Return true for an address that only this machine reaches."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
