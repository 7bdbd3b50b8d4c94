"""The two doors through which an application calls for help: salt-api and the signed webhook, both over HTTP.

Each call blocks. `help` decides when a call is due, and makes it on a thread. Nothing of Salt may be imported here.
"""

from __future__ import annotations

import json
import os
import re
import ssl as tls
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from ..driver.text import plain
from .settings import BadSettings, quoted

CONNECT_S = 5.0
READ_S = 30.0  #: the runner waits up to five seconds for the decision
CALL_S = 60.0  #: for one call, with its repeats
MAX_ANSWER_BYTES = 64 * 1024
TOKEN_MARGIN_S = 60.0  #: a token is not used in the last minute before it expires


class HelpFailed(Exception):
    """A call was answered, and the answer is no. Or it could not be made at all."""


class HelpUnknown(HelpFailed):
    """It is not known whether the call arrived."""


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
        raise BadSettings(f"url: found {quoted(url, 100)}; allowed: {allowed}")
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
    """An authentication that does nothing. Without one, `requests` would look up a login in ~/.netrc."""
    return prepared


def _post(
    url: str, verify: bool | str, body: bytes, headers: Mapping[str, str]
) -> tuple[int, bytes]:
    """Post, and return status and body. Redirects are not followed, because they would get the token or signature."""
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
                where = plain(answer.headers.get("Location", "elsewhere").partition("?")[0], 100)
                raise HelpFailed(f"{url} redirects to {where}; name the final URL")
            read = b""
            for chunk in answer.iter_content(1):  # a larger size would wait until so much is there
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
    """The text of the innermost exception. What `requests` and urllib3 wrap around it does not help."""
    inner: Any = exc
    for _ in range(8):
        deeper = getattr(inner, "reason", None)
        if not isinstance(deeper, BaseException):
            deeper = next((a for a in getattr(inner, "args", ()) if isinstance(a, Exception)), None)
        if deeper is None:
            break
        inner = deeper
    words = getattr(inner, "verify_message", "") or getattr(inner, "strerror", "") or inner
    return plain(words) or type(inner).__name__


def _parsed(url: str, body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        what = plain(body[:60].decode("ascii", "replace")) or "nothing"
        raise HelpUnknown(f"{url} does not answer as salt-api does: {what}") from None


class SaltAPI:
    """Calls by salt-api (rest_cherrypy). The runner waits for the healer's decision; a minion only passes the call on.

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
        """The healer's answer. Raises HelpFailed, or HelpUnknown if there is no answer."""
        low: dict[str, Any] = {"client": self.client, "fun": "selfheal.trigger"}
        kwarg = {"cluster": cluster, "action": action, "reason": reason}
        if self.client == "local":
            low |= {"tgt": self.minion, "tgt_type": "list", "kwarg": kwarg}
        else:
            low["kwarg"] = {**kwarg, "request": request}
        known = self._token and time.time() < self._token_ends
        status, body = self._lowstate(low, self._token if known else self._login())
        if status == 401 and known:
            # The master may have forgotten the token before it expired.
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
            # The answer is not quoted, because it may hold a token.
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
            raise HelpFailed(f"minion {self.minion}: {plain(row)}")
        if isinstance(row, dict) and isinstance(row.get("reply"), str):
            return row
        raise HelpFailed(f"the runner answers: {plain(row) if row else 'nothing'}")


class Webhook:
    """Calls by the signed webhook (Standard Webhooks) of a salt-api. The answer says only that the call arrived.

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
        """The reply ``sent``. Raises HelpFailed, or HelpUnknown if it is not known whether the call arrived."""
        # Cluster and action are also in the signed body, because the path is not signed and could be changed on the
        # way.
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
