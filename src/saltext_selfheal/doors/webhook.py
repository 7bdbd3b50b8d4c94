"""The signed webhook: ``POST /hook/selfheal/<cluster>/<action>``, signed as the Standard Webhooks specification says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from standardwebhooks import Webhook

from ..driver.tags import HOOK
from ..healing.events import Request
from . import forms
from .arguments import BadRequest, parsed, refuse_unknown, shown
from .flow import Flow, Flows
from .forms import MAX_BODY, MAX_HEADER, PLAIN_ID, PLAIN_ID_WORDS, refuse_null_nodes

MAX_HEADERS = 100
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

    def __init__(self, callers: Iterable[Caller], flows: Flows) -> None:
        self._callers = [(caller, Webhook(caller.secret)) for caller in callers]
        self._flows = flows

    def __bool__(self) -> bool:
        return bool(self._callers)

    def take(self, tag: str, data: Mapping[str, Any]) -> Request:
        """The request of one call. Raises BadRequest."""
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
        self._flows.take(f"the webhook of {caller.name}", HOOKS_FLOW)
        asked = _signed_body(body)
        signed_for = (asked["cluster"], asked["action"])
        if signed_for != (cluster, action):
            # Else anybody who has got a signed message could send it to another path, as another request.
            raise BadRequest(
                f"path: found {shown(f'{cluster}/{action}')}; allowed: what was signed, "
                f"cluster {shown(signed_for[0])} and action {shown(signed_for[1])}"
            )
        if action not in caller.actions:
            allowed = ", ".join(caller.actions)
            raise BadRequest(f"action: found {shown(action)}; allowed to {caller.name}: {allowed}")
        found = forms.request(
            cluster,
            action,
            asked.get("nodes"),
            asked.get("reason"),
            door="webhook",
            asker=caller.name,
        )
        return replace(found, id=f"{caller.name}:{webhook_id}")

    def _signed(self, cluster: str, body: str, headers: Any) -> tuple[Caller, str]:
        """Who has signed this body, and the message's id.

        Raises BadRequest. If the signature is wrong, the error does not say why, so that a forger learns nothing.
        """
        wanted = ("webhook-id", "webhook-timestamp", "webhook-signature")
        given = headers if isinstance(headers, Mapping) else {}
        if len(given) > MAX_HEADERS:
            raise BadRequest(f"headers: found {len(given)}; allowed: at most {MAX_HEADERS}")
        signature = {
            key.lower(): value
            for key, value in given.items()
            if isinstance(key, str) and isinstance(value, str) and key.lower() in wanted
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
        raise BadRequest("nobody who may ask for this cluster has signed it lately")


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
