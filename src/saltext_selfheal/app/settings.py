"""Checks the arguments of an application before anything is tried. Errors say what was found and what is allowed."""

from __future__ import annotations

import re
import ssl as tls
from collections.abc import Iterable, Mapping
from typing import Any

from ..driver.address import ALLOWED, Address, parsed
from ..driver.dialling import Unusable, tls_context
from ..driver.text import written
from .greeting import Login

LONGEST_S = 3650 * 86400  #: ten years, which every clock and every socket can wait for


class BadSettings(ValueError):
    """The application's arguments cannot work. The message says what was found and what is allowed."""


def quoted(value: Any, most: int = 80) -> str:
    """A setting as it is shown in a message. It is not shown if it may hold a password or a token.

    Unlike `doors.arguments.shown` this also prints lists and objects: they belong to the application, and its author
    reads the message.
    """
    text = written(value)
    if text is None:
        return f"a large {type(value).__name__}"
    return "something with @ or ?" if set("@?") & set(str(value)) else text[:most]


def addresses(hosts: Any) -> list[Address]:
    """The addresses in ``hosts`` of `connect`: at least one, and none twice. Raises BadSettings."""
    allowed = "host, host:port or [IPv6]:port, or pairs of host and port"
    listed = hosts.split(",") if isinstance(hosts, str) else hosts
    if not isinstance(listed, Iterable):
        raise BadSettings(f"hosts: found {quoted(hosts)}; allowed: {allowed}")
    found = [_address(one, allowed) for one in listed]
    if not found:
        raise BadSettings(f"hosts: found none; allowed: {allowed}")
    twice = {str(one) for one in found if found.count(one) > 1}
    if twice:
        raise BadSettings(f"hosts: found twice: {', '.join(sorted(twice))}; once is enough")
    return found


def _address(one: Any, allowed: str) -> Address:
    if isinstance(one, Address):
        return one
    text = one.strip() if isinstance(one, str) else ""
    if isinstance(one, (tuple, list)) and len(one) == 2:
        host, port = one
        if isinstance(host, str) and isinstance(port, int):
            text = str(Address(host, port))
    try:
        if re.search(r"[\s/@?#]", text):  # it may be a URL, and its query may hold a secret
            raise ValueError(allowed)
        found = parsed(text)
    except ValueError as exc:
        why = allowed if str(exc) == ALLOWED else exc
        raise BadSettings(f"hosts: found {quoted(one)}; allowed: {why}") from None
    # Names are written in small letters. But the zone of an IPv6 address names an interface, where case matters.
    return found if ":" in found.host else Address(found.host.lower(), found.port)


def seconds(name: str, value: Any, *, optional: bool = False) -> float | None:
    """A duration in seconds. ``optional``: None is allowed, too. Raises BadSettings."""
    if value is None and optional:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= LONGEST_S:
        return float(value)
    allowed = f"seconds, more than 0 and at most {LONGEST_S}"
    raise BadSettings(f"{name}: found {quoted(value, 40)}; allowed: {allowed}")


def _tls(ssl: Any) -> tls.SSLContext | None:
    if ssl is None or ssl is False or isinstance(ssl, tls.SSLContext):
        return ssl or None
    ca: Any = ssl.get("ca_certs") if isinstance(ssl, Mapping) else ssl
    if ssl != {} and ca is None:
        raise BadSettings("ssl: allowed: True, a path, {'ca_certs': path} or an SSLContext")
    if ssl == {}:
        return None
    if ca is True:
        return tls.create_default_context()
    try:
        return tls_context(ca)
    except Unusable as exc:
        raise BadSettings(f"ssl: found {ca!r:.100} ({exc}); allowed: {exc.allowed}") from None


def login(db: Any, user: str, password: str, ssl: Any, query_timeout: Any) -> Login:
    """How to log in, from the arguments of `connect`. Raises BadSettings."""
    password = "" if password is None else password
    if not isinstance(password, str) or not password.isascii():
        raise BadSettings("password: allowed: ASCII text; the driver takes no other")
    if not isinstance(user, str) or not user or not user.isascii():
        raise BadSettings(
            f"user: found {user!r:.40}; allowed: a name in ASCII; the driver takes no other"
        )
    patience_s = seconds("query_timeout", query_timeout, optional=True)
    return Login(db, user, password, _tls(ssl), patience_s)
