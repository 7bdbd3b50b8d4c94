"""The signed webhook: ``POST /hook/selfheal/<cluster>/<action>``, signed as the Standard Webhooks specification says."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from standardwebhooks import Webhook

from ..config import ClusterSettings
from ..driver.tags import HOOK
from ..healing.events import Door, Request
from . import forms
from .arguments import BadRequest, Dropped, parsed, refuse_unknown, shown
from .flow import Flow, Flows
from .forms import MAX_BODY, MAX_HEADER, PLAIN_ID, PLAIN_ID_WORDS, refuse_null_nodes
from .names import turned_back

MAX_HEADERS = 100
HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
TOLERANCE_S = 300  #: the library takes messages that are so much older or newer than the clock
HOOKS_FLOW = Flow(6000, 100.0)  #: how many signed calls are taken, per caller
#: The keys that a signed webhook may have. The first two must be there, because the path itself is not signed.
_SIGNED = ("cluster", "action", "reason", "nodes")
_SIGNED_WORDS = (
    '{"cluster": "runbook", "action": "restart", "reason": …, "nodes": […]}: cluster and action as in the path stand '
    "in the signed body, reason and nodes may"
)


@dataclass(frozen=True)
class Caller:
    """One who may use the signed webhook, and for what."""

    name: str
    secret: str = field(repr=False)
    clusters: tuple[str, ...]
    actions: tuple[str, ...]


class Hooks:
    """Turns signed calls into requests."""

    def __init__(
        self,
        callers: Iterable[Caller],
        flows: Flows,
        clusters: Mapping[str, ClusterSettings] | None = None,
    ) -> None:
        self._callers = [(caller, Webhook(caller.secret)) for caller in callers]
        self._flows = flows
        self._clusters = clusters or {}

    def __bool__(self) -> bool:
        return bool(self._callers)

    def take(self, tag: str, data: Mapping[str, Any]) -> Request:
        """The request of one call. Raises BadRequest, and Dropped if it is known who has signed it."""
        parts = tag[len(HOOK) :].split("/", 2)
        if len(parts) != 2:
            raise BadRequest(
                f"path: found {shown(tag)}; allowed: /hook/selfheal/<cluster>/<action>"
            )
        cluster, action = parts
        body, headers = data.get("body"), data.get("headers")
        if not isinstance(body, (str, bytes)) or len(body) > MAX_BODY:
            raise BadRequest(f"body: found none, or too much; allowed: up to {MAX_BODY} characters")
        if isinstance(body, bytes):
            body = body.decode("utf-8", "replace")
        caller, webhook_id = self._signed(cluster, body, headers)
        try:
            found = self._asked(caller, cluster, action, body)
        except BadRequest as exc:
            raise Dropped(str(exc), caller.name) from None
        return replace(found, id=f"{caller.name}:{webhook_id}")

    def _asked(self, caller: Caller, cluster: str, action: str, body: str) -> Request:
        """What this caller asks for with this path and body. Raises BadRequest."""
        self._flows.take(f"the webhook of {caller.name}", HOOKS_FLOW)
        asked = _signed_body(body)
        named = turned_back("cluster", asked["cluster"], self._clusters)
        signed_for = (named, asked["action"])
        if signed_for != (cluster, action):
            # Else anybody who has got a signed message could send it to another path, as another request.
            raise BadRequest(
                f"path: found {shown(f'{cluster}/{action}')}; allowed: what was signed, "
                f"cluster {shown(signed_for[0])} and action {shown(signed_for[1])}"
            )
        if action not in caller.actions:
            allowed = ", ".join(caller.actions)
            raise BadRequest(f"action: found {shown(action)}; allowed to {caller.name}: {allowed}")
        known = self._clusters[cluster].nodes if cluster in self._clusters else ()
        return forms.request(
            cluster,
            action,
            turned_back("nodes", asked["nodes"], known) if "nodes" in asked else None,
            asked.get("reason"),
            door=Door.WEBHOOK,
            asker=caller.name,
        )

    def _signed(self, cluster: str, body: str, headers: Any) -> tuple[Caller, str]:
        """Who has signed this body, and the message's id.

        Raises BadRequest, which says exactly what is wrong. Only the master's log has it: the sender gets the same
        answer from salt-api in any case.
        """
        given = headers if isinstance(headers, Mapping) else {}
        if len(given) > MAX_HEADERS:
            raise BadRequest(f"headers: found {len(given)}; allowed: at most {MAX_HEADERS}")
        signature = {
            key.lower(): value
            for key, value in given.items()
            if isinstance(key, str) and isinstance(value, str) and key.lower() in HEADERS
        }
        for key, value in signature.items():
            if len(value) > MAX_HEADER:
                raise BadRequest(
                    f"{key}: found {len(value)} characters; allowed: up to {MAX_HEADER}"
                )
        for caller, webhook in self._callers:
            if cluster not in caller.clusters:
                continue
            try:
                webhook.verify(body, signature)
            except Exception:
                continue  # with odd headers the library raises other exceptions than it documents
            found = signature["webhook-id"]
            if not PLAIN_ID.fullmatch(found):
                raise BadRequest(f"webhook-id: found {shown(found)}; allowed: {PLAIN_ID_WORDS}")
            return caller, found
        raise self._why_not(cluster, body, signature)

    def _why_not(self, cluster: str, body: str, signature: Mapping[str, str]) -> BadRequest:
        """Why nobody who may ask for this cluster has signed this lately."""
        lacking = [key for key in HEADERS if not signature.get(key)]
        if lacking:
            return BadRequest(f"headers: found no {' and no '.join(lacking)}; allowed: all three")
        stamp = _moment(signature["webhook-timestamp"])
        if stamp is None:
            return BadRequest(
                f"webhook-timestamp: found {shown(signature['webhook-timestamp'])}; allowed: seconds since 1970"
            )
        signers = [c for c, webhook in self._callers if _is_of(webhook, stamp, body, signature)]
        mine = [caller for caller, _ in self._callers if cluster in caller.clusters]
        if not signers:
            names = ", ".join(caller.name for caller in mine)
            what = f"secret: found a signature of no caller in `webhooks`; allowed for {shown(cluster)}: {names}"
            return BadRequest(
                f"{what}, each with its own secret, and a body that nobody changes on the way"
                if mine
                else f"caller: found nobody who may ask for {shown(cluster)}; allowed: a caller with it in its clusters"
            )
        caller = next((one for one in signers if one in mine), signers[0])
        if caller not in mine:
            allowed = ", ".join(caller.clusters)
            return Dropped(
                f"cluster: found {shown(cluster)}; allowed to {caller.name}: {allowed}", caller.name
            )
        late_s = (datetime.now(tz=timezone.utc) - stamp).total_seconds()
        told = f"{abs(late_s):.0f} s {'ago' if late_s > 0 else 'ahead'}"
        return Dropped(
            f"clock: found a message of {told} (webhook-timestamp); allowed: {TOLERANCE_S} s from this master's clock",
            caller.name,
        )


def _moment(timestamp: str) -> datetime | None:
    """The time of a message, read as the library reads it. None if it is no time."""
    try:
        return datetime.fromtimestamp(float(timestamp), tz=timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None


def _is_of(webhook: Webhook, stamp: datetime, body: str, signature: Mapping[str, str]) -> bool:
    """Whether this caller has signed the message, at whatever time."""
    try:
        wanted = webhook.sign(signature["webhook-id"], stamp, body)
    except ValueError:
        return False
    given = signature["webhook-signature"].split(" ")
    return any(
        hmac.compare_digest(wanted.encode(), one.encode("utf-8", "replace")) for one in given
    )


def _signed_body(body: str) -> dict[str, Any]:
    """The content of a signed body. Raises BadRequest."""
    try:
        asked = parsed(body)
    except BadRequest:
        raise
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise BadRequest(f"body: found something else; allowed: {_SIGNED_WORDS}")
    refuse_unknown("body", asked, _SIGNED)
    refuse_null_nodes(asked)
    lacking = [f"no {word}" for word in ("cluster", "action") if word not in asked]
    if lacking:
        raise BadRequest(f"body: found {' and '.join(lacking)}; allowed: {_SIGNED_WORDS}")
    return asked
