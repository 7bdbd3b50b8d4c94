"""An application's call for help: when it is due, and the two doors it goes through.

Nothing here blocks the application or raises into it once it is made: a call runs on a daemon thread, and what became
of it goes to ``on_help``. What must not live here: databases, and anything of Salt. salt-api is spoken to over HTTP.
"""

from __future__ import annotations

import json
import logging
import os
import re
import ssl as tls
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Unanswered
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

log = logging.getLogger(__name__)

CONNECT_S = 5.0
READ_S = 30.0  #: the runner waits up to five seconds for the decision
CALL_S = 60.0  #: of a call, repeats included
MAX_ANSWER_BYTES = 64 * 1024
TOKEN_MARGIN_S = 60.0
#: An answer that tells nothing is asked for again, with the same id: it has one effect.
REPEAT_AFTER_S = (1.0, 4.0)
#: Nobody tried for so long: what was before is another outage.
GAP_S = 300.0

_CLUSTER = re.compile(r"[\w.-]{1,64}")
ACTIONS = ("highstate", "restart", "start")


class BadSettings(ValueError):
    """What the application was given cannot work: what was found, what is allowed."""


class HelpFailed(Exception):
    """A call was answered, and the answer is no."""


class HelpUnknown(HelpFailed):
    """Nobody knows whether the call arrived."""


@dataclass(frozen=True)
class Helped:
    """What became of one call."""

    cluster: str
    action: str
    request: str  #: its id, to be found in the healer's history
    reply: str  #: accepted, joined, held, refused, stored, sent; or failed, unknown
    why: str = ""
    incident: str | None = None
    took_s: float = 0.0
    tries: int = 1

    @property
    def ok(self) -> bool:
        """Whether the healer has it."""
        return self.reply in ("accepted", "joined", "held", "stored", "sent")

    def __str__(self) -> str:
        told = f"{self.action} of {self.cluster}: {self.reply}"
        told += f" ({self.incident})" if self.incident else ""
        return f"{told}: {self.why}" if self.why else told


def _plain(words: Any, most: int = 300) -> str:
    text = "".join(c if c.isprintable() else " " for c in str(words)[: 4 * most])
    return " ".join(text.split())[:most]


def shown(value: Any, most: int = 80) -> str:
    """A setting for a message, unless it may hold a password or a token."""
    return "something with @ or ?" if set("@?") & set(str(value)) else f"{value!r:.{most}}"


# ---------------------------------------------------------------- the doors


def _checked_url(url: Any) -> str:
    allowed = "http:// or https://, a host, perhaps a port and a path"
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, AttributeError, TypeError):
        raise BadSettings(f"url: found no URL; allowed: {allowed}") from None
    if parts.username is not None or parts.password is not None:
        raise BadSettings("url: holds a user or a password; give them as arguments")
    if not fits or parts.query or parts.fragment:
        raise BadSettings(f"url: found {shown(url, 100)}; allowed: {allowed}")
    return str(url).rstrip("/")


def _checked_verify(verify: Any) -> bool | str:
    if isinstance(verify, bool):
        return verify
    try:
        path = os.fspath(verify)
        place = {"capath": path} if Path(path).is_dir() else {"cafile": path}
        tls.SSLContext(tls.PROTOCOL_TLS_CLIENT).load_verify_locations(**place)
    except (OSError, TypeError, ValueError) as exc:
        allowed = "True, False or the path of certificates"
        raise BadSettings(f"verify: found {verify!r:.100}; allowed: {allowed}: {exc}") from None
    return str(path)


def _no_netrc(prepared: Any) -> Any:
    """In place of the login that `requests` would look up in ~/.netrc."""
    return prepared


def _post(
    url: str, verify: bool | str, body: bytes, headers: Mapping[str, str]
) -> tuple[int, bytes]:
    """Status and body. Follows no redirect: it would carry a token or a signature elsewhere."""
    ends = time.monotonic() + CALL_S
    try:
        with requests.post(
            url,
            data=body,
            headers=dict(headers),
            verify=verify,
            timeout=(CONNECT_S, READ_S),
            allow_redirects=False,
            stream=True,
            auth=_no_netrc,
        ) as answer:
            if answer.is_redirect:
                where = _plain(answer.headers.get("Location", "elsewhere").partition("?")[0], 100)
                raise HelpFailed(f"{url} redirects to {where}; name the final URL")
            read = b""
            for chunk in answer.iter_content(1):  # more would be waited for
                read += chunk
                if len(read) > MAX_ANSWER_BYTES or time.monotonic() > ends:
                    raise HelpUnknown(f"{url} does not end its answer")
            return answer.status_code, read
    except requests.exceptions.SSLError as exc:
        raise HelpFailed(f"{url}: certificate or TLS failure: {_reason(exc)}") from None
    except requests.exceptions.ConnectTimeout:
        raise HelpUnknown(f"{url} does not answer to TCP within {CONNECT_S:g} s") from None
    except requests.exceptions.Timeout:
        raise HelpUnknown(f"{url} gives no answer within {READ_S:g} s") from None
    except (requests.exceptions.RequestException, OSError) as exc:
        raise HelpUnknown(f"{url}: {_reason(exc)}") from None


def _reason(exc: BaseException) -> str:
    """The innermost words: what `requests` and urllib3 wrap around them helps nobody."""
    inner: Any = exc
    for _ in range(8):
        deeper = getattr(inner, "reason", None)
        if not isinstance(deeper, BaseException):
            deeper = next((a for a in getattr(inner, "args", ()) if isinstance(a, Exception)), None)
        if deeper is None:
            break
        inner = deeper
    words = getattr(inner, "verify_message", "") or getattr(inner, "strerror", "") or inner
    return _plain(words) or type(inner).__name__


def _parsed(url: str, body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        what = _plain(body[:60].decode("ascii", "replace")) or "nothing"
        raise HelpUnknown(f"{url} does not answer as salt-api does: {what}") from None


class SaltAPI:
    """salt-api (rest_cherrypy). The runner waits for the healer's decision; a minion only passes the call on.

    Args:
        verify: True, or the path of the certificate authority; False takes any certificate.
        client: ``runner``, or ``local`` to ask by way of ``minion``, which has this package.
    """

    def __init__(
        self,
        url: str,
        username: str,
        password: str,
        eauth: str,
        *,
        verify: bool | str = True,
        client: str = "runner",
        minion: str | None = None,
    ) -> None:
        self.url = _checked_url(url)
        if client not in ("runner", "local"):
            raise BadSettings(f"client: found {client!r:.40}; allowed: runner, local")
        if client == "local" and (not minion or not re.fullmatch(r"[\w.:@-]{1,255}", minion)):
            raise BadSettings("minion: client local needs the id of one minion, not a pattern")
        self.username = username
        self.client = client
        self.minion = minion
        self._password = password
        self._eauth = eauth
        self._verify = _checked_verify(verify)
        self._token = ""
        self._token_ends = 0.0

    def __repr__(self) -> str:
        return f"SaltAPI({self.url!r}, {self.username!r}, client={self.client!r})"

    def __getstate__(self) -> Any:
        raise TypeError("a SaltAPI holds a password: make it anew where it is needed")

    def ask(self, cluster: str, action: str, reason: str, request: str) -> dict[str, Any]:
        """The healer's answer. Raises HelpFailed, or HelpUnknown when there is none."""
        low: dict[str, Any] = {"client": self.client, "fun": "selfheal.trigger"}
        kwarg = {"cluster": cluster, "action": action, "reason": reason}
        if self.client == "local":
            low |= {"tgt": self.minion, "tgt_type": "list", "kwarg": kwarg}
        else:
            low["kwarg"] = {**kwarg, "request": request}
        known = self._token and time.time() < self._token_ends
        status, body = self._lowstate(low, self._token if known else self._login())
        if status == 401 and known:
            # The master may have forgotten the token before its time.
            status, body = self._lowstate(low, self._login())
        self._check(status, body)
        return self._reply(_parsed(self.url, body))

    def _headers(self, token: str = "") -> dict[str, str]:
        made = {"Accept": "application/json", "Content-Type": "application/json"}
        return {**made, "X-Auth-Token": token} if token else made

    def _login(self) -> str:
        self._token = ""
        who = {"username": self.username, "password": self._password, "eauth": self._eauth}
        body = json.dumps(who).encode()
        status, answer = _post(f"{self.url}/login", self._verify, body, self._headers())
        if status == 401:
            raise HelpFailed(f"{self.url} answers 401: wrong user, password or eauth")
        self._check(status, answer)
        try:
            given = json.loads(answer)["return"][0]
            token, ends = str(given["token"]), float(given.get("expire", 0.0))
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
            # Without its text: that may hold a token.
            raise HelpUnknown(f"{self.url} does not answer a login as salt-api does") from None
        if not re.fullmatch(r"[\w.-]{1,256}", token):
            raise HelpUnknown(f"{self.url} gives a token that is none")
        self._token, self._token_ends = token, ends - TOKEN_MARGIN_S
        return token

    def _lowstate(self, low: Mapping[str, Any], token: str) -> tuple[int, bytes]:
        body = json.dumps([low]).encode()
        return _post(f"{self.url}/", self._verify, body, self._headers(token))

    def _check(self, status: int, body: bytes) -> None:
        if status == 400:
            hint = f"is {self.client} in netapi_enable_clients?"
            raise HelpFailed(f"{self.url} answers 400: {hint}")
        if status in (401, 403):
            hint = f"{self.username} may not call selfheal.trigger by client {self.client}"
            raise HelpFailed(f"{self.url} answers {status}: {hint}")
        if status >= 500:
            raise HelpUnknown(f"{self.url} answers {status}")
        if status != 200:
            raise HelpFailed(f"{self.url} answers {status}: is this salt-api's address?")

    def _reply(self, answer: Any) -> dict[str, Any]:
        rows = answer.get("return") if isinstance(answer, dict) else None
        row = rows[0] if isinstance(rows, list) and rows else None
        if self.client == "local":
            row = row.get(self.minion) if isinstance(row, dict) else None
            if isinstance(row, dict) and row.get("sent") is True:
                return {"reply": "sent", "request": row.get("request")}
            if row is None or row == {}:
                raise HelpUnknown(f"minion {self.minion} does not answer")
            raise HelpFailed(f"minion {self.minion}: {_plain(row)}")
        if isinstance(row, dict) and isinstance(row.get("reply"), str):
            return row
        raise HelpFailed(f"the runner answers: {_plain(row) if row else 'nothing'}")


class Webhook:
    """The signed webhook (Standard Webhooks) of a salt-api. Its answer says that the call arrived, not what follows.

    Args:
        url: of salt-api, without ``/hook``.
        secret: ``whsec_…``, as it stands in the healer's settings.
        verify: True, or the path of the certificate authority; False takes any certificate.
    """

    def __init__(self, url: str, secret: str, *, verify: bool | str = True) -> None:
        from standardwebhooks import Webhook as Signer  # only this door needs it

        self.url = _checked_url(url).removesuffix("/hook").rstrip("/")
        try:
            self._signer = Signer(secret)
        except Exception:
            raise BadSettings("secret: found no secret; allowed: whsec_ and base64") from None
        self._verify = _checked_verify(verify)

    def __repr__(self) -> str:
        return f"Webhook({self.url!r})"

    def __getstate__(self) -> Any:
        raise TypeError("a Webhook holds a secret: make it anew where it is needed")

    def ask(self, cluster: str, action: str, reason: str, request: str) -> dict[str, Any]:
        """``sent``. Raises HelpFailed, or HelpUnknown when nobody knows."""
        # Cluster and action stand in what is signed: the path alone could be changed on the way.
        body = json.dumps({"cluster": cluster, "action": action, "reason": reason})
        now = datetime.now(timezone.utc)
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "webhook-id": request,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(request, now, body),
        }
        url = f"{self.url}/hook/selfheal/{cluster}/{action}"
        status, answer = _post(url, self._verify, body.encode(), headers)
        if status >= 500:
            raise HelpUnknown(f"{self.url} answers {status}")
        if status != 200:
            raise HelpFailed(f"{self.url} answers {status}: are its hooks open, and is this it?")
        told = _parsed(self.url, answer)
        if not isinstance(told, dict) or told.get("success") is not True:
            raise HelpUnknown(f"{self.url} answers without success")
        return {"reply": "sent"}


# ---------------------------------------------------------------- when it is due


@dataclass
class _Outage:
    """Of one cluster, as this process sees it. Times are of the helper's clock."""

    since: float | None = None
    last: float = 0.0
    called: dict[str, float] = field(default_factory=dict)
    calling_until: float | None = None


class Calls:
    """Who was called when. One for a process: ten threads of it are one caller."""

    def __init__(self) -> None:
        self._pid = 0
        self.own()

    def own(self) -> None:
        """After a fork begin anew: the lock may be held by a thread that is gone."""
        if self._pid != os.getpid():
            self.lock = threading.Lock()
            self.settled = threading.Condition(self.lock)
            self.outages: dict[str, _Outage] = {}
            self._pid = os.getpid()

    def outage(self, cluster: str) -> _Outage:
        """Its record; the lock is held."""
        return self.outages.setdefault(cluster, _Outage())


CALLS = Calls()


def _on_a_daemon_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="selfheal-help", daemon=True).start()


class Help:
    """Calls for help once a cluster has failed for long enough.

    Args:
        via: a `SaltAPI` or a `Webhook`.
        cluster: its name in the healer's settings.
        highstate_after, restart_after: seconds since the first failure; None never asks for it.
        again_after: seconds from one call to the next of the same action, whatever became of it.
        on_help: gets a `Helped` for each call, on the thread that made it.
        calls: where calls are remembered; default: the process's one memory.
        clock, start: for tests.
    """

    def __init__(
        self,
        via: Any,
        cluster: str,
        *,
        highstate_after: float | None = 300.0,
        restart_after: float | None = 600.0,
        again_after: float = 600.0,
        on_help: Callable[[Helped], None] | None = None,
        calls: Calls | None = None,
        clock: Callable[[], float] = time.monotonic,
        start: Callable[[Callable[[], None]], None] = _on_a_daemon_thread,
    ) -> None:
        if not isinstance(cluster, str) or not _CLUSTER.fullmatch(cluster):
            raise BadSettings(f"cluster: found {cluster!r:.80}; allowed: a configured cluster")
        if not callable(getattr(via, "ask", None)):
            raise BadSettings("via: allowed: a SaltAPI or a Webhook")
        times = {"highstate_after": highstate_after, "restart_after": restart_after}
        for name, value in {**times, "again_after": again_after}.items():
            wrong = not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= 0
            if wrong and (value is not None or name == "again_after"):
                raise BadSettings(f"{name}: found {value!r:.40}; allowed: seconds")
        self.via = via
        self.cluster = cluster
        self.on_help = on_help
        self._after = {"highstate": highstate_after, "restart": restart_after}
        self._again_s = float(again_after)
        self._calls = CALLS if calls is None else calls
        self._clock = clock
        self._start = start

    def __repr__(self) -> str:
        return f"Help({self.via!r}, {self.cluster!r})"

    def well(self) -> None:
        """The cluster serves: whatever fails next is a new outage."""
        self._calls.own()
        with self._calls.lock:
            self._calls.outage(self.cluster).since = None

    def failed(self, reason: str, not_before_s: float = 0.0) -> None:
        """It failed again. Calls what is due; returns at once, raises nothing."""
        try:
            due = self._due(not_before_s)
        except Exception:
            log.exception("whether help is due for %s", self.cluster)
            return
        if due is not None:
            self._call(*due, reason)

    def _due(self, not_before_s: float) -> tuple[str, float] | None:
        """The action to ask for now, noted as asked for, and until when it is."""
        self._calls.own()
        with self._calls.lock:
            outage = self._calls.outage(self.cluster)
            now = self._clock()
            if outage.since is None or now - outage.last > GAP_S:
                outage.since = now
            outage.last = now
            if outage.calling_until is not None and now < outage.calling_until:
                return None
            overdue = {}
            for action, after in self._after.items():
                if after is None:
                    continue
                due = outage.since + max(after, not_before_s)
                if action in outage.called:
                    due = max(due, outage.called[action] + self._again_s)
                if now >= due:
                    overdue[action] = now - due
            if not overdue:
                return None
            action = max(overdue, key=lambda name: overdue[name])
            outage.called[action] = now
            outage.calling_until = now + CALL_S
            return action, outage.calling_until

    def _call(self, action: str, until: float, reason: str) -> None:
        request = uuid.uuid4().hex
        try:
            self._start(lambda: self._make(action, until, reason, request))
        except Exception as exc:  # no more threads
            self._done(until)
            self._tell(Helped(self.cluster, action, request, "failed", _plain(exc)))

    def _make(self, action: str, until: float, reason: str, request: str) -> None:
        began = time.monotonic()
        told: Future[dict[str, Any]] = Future()
        try:
            # The door's thread is left behind when it takes too long: a header that drips in has no timeout.
            _on_a_daemon_thread(lambda: told.set_result(self._ask(action, reason, request)))
            what = told.result(CALL_S)
        except Unanswered:
            what = {"request": request, "reply": "unknown", "why": f"no answer in {CALL_S:g} s"}
        except RuntimeError as exc:  # no more threads
            what = {"request": request, "reply": "failed", "why": _plain(exc)}
        try:
            self._tell(Helped(self.cluster, action, took_s=time.monotonic() - began, **what))
        finally:
            self._done(until)

    def _ask(self, action: str, reason: str, request: str) -> dict[str, Any]:
        ends = time.monotonic() + CALL_S
        # A minion gives the call an id of its own: asked again, it would be a second one.
        repeats = () if getattr(self.via, "client", "") == "local" else REPEAT_AFTER_S
        for tries, pause_s in enumerate((*repeats, None), 1):
            try:
                answer = self.via.ask(self.cluster, action, _plain(reason, 400), request)
                return {
                    "request": _plain(answer.get("request") or request, 100),
                    "reply": _plain(answer.get("reply"), 40),
                    "why": _plain(answer.get("why") or ""),
                    "incident": _plain(answer.get("incident") or "", 100) or None,
                    "tries": tries,
                }
            except HelpUnknown as exc:
                if pause_s is None or time.monotonic() + pause_s > ends:
                    return {"request": request, "reply": "unknown", "why": str(exc), "tries": tries}
                time.sleep(pause_s)
            except HelpFailed as exc:
                return {"request": request, "reply": "failed", "why": str(exc), "tries": tries}
            except Exception as exc:
                why = f"{type(exc).__name__}: {_plain(exc)}"
                return {"request": request, "reply": "failed", "why": why, "tries": tries}
        raise AssertionError("unreachable")

    def _done(self, until: float) -> None:
        with self._calls.lock:
            outage = self._calls.outage(self.cluster)
            if outage.calling_until == until:  # else another call is under way since
                outage.calling_until = None
            self._calls.settled.notify_all()

    def _tell(self, helped: Helped) -> None:
        log.log(logging.INFO if helped.ok else logging.WARNING, "help: %s", helped)
        if self.on_help is None:
            return
        try:
            self.on_help(helped)
        except Exception:
            log.exception("on_help failed")

    def wait(self, timeout_s: float) -> bool:
        """Until no call is under way, for a program that is about to end; False if one still is."""
        self._calls.own()
        with self._calls.lock:
            return self._calls.settled.wait_for(
                lambda: self._calls.outage(self.cluster).calling_until is None, timeout_s
            )
