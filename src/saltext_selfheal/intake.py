"""What comes from any door → one `Request` or `Command`. Forms are checked here; whether it is granted is the
core's business.

Nothing a caller writes is ever run or used as a target: the cluster is looked up by name, nodes must be
configured, the action must be one of three words.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import time
import uuid
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from typing import Any

from standardwebhooks import Webhook

from .config import ClusterSettings
from .config import EngineSettings
from .healing.model import Command
from .healing.model import Request
from .healing.model import Verb
from .healing.model import clean

log = logging.getLogger(__name__)

NETAPI = "salt/netapi/hook/"
HOOKS = f"{NETAPI}selfheal/"
REQUESTS = "selfheal/request/"
BUS_ID = "bus:"  #: before the ids of requests that came by the bus

MAX_REASON = 500
MAX_BODY = 64 * 1024
BUS_PER_MINUTE = 600  #: requests of the bus, per cluster
HOOKS_PER_MINUTE = 6000  #: signed ones, per caller
TELL_EVERY_S = 10.0  #: what was dropped costs one line of the log in this time
MAX_PAUSE_S = 30 * 86400.0
#: Without a colon: that one tells the doors' ids apart.
_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")
_PLAIN_ID_WORDS = "up to 100 of letters, digits, . _ -"
#: What the article's callers may do, as kind and action.
_FORMULA = (
    ("states", "highstate"),
    ("services", "restart"),
    ("services", "start"),
    ("services", "stop"),
    ("services", "reload"),
)
_FORMULA_WORDS = "states/highstate, services/restart, services/start"
_CLUSTER = re.compile(r"[\w.-]{1,64}")
_INCIDENT = re.compile(r"[\w.-]{1,64}-\d{1,12}")


class BadRequest(ValueError):
    """It has not the form of a request or of a command: what was found, what is allowed."""


def mint() -> str:
    """A fresh id."""
    return uuid.uuid4().hex


def _cluster(found: Any) -> str:
    if not isinstance(found, str) or not _CLUSTER.fullmatch(found):
        raise BadRequest(f"cluster: found {found!r:.80}; allowed: the name of a configured cluster")
    return found


def _nodes(found: Any) -> tuple[str, ...]:
    nodes = (
        [one.strip() for one in found.split(",") if one.strip()]
        if isinstance(found, str)
        else found
    )
    nodes = [] if nodes is None else nodes
    if not isinstance(nodes, (list, tuple)) or len(nodes) > 1000:
        raise BadRequest(f"nodes: found {nodes!r:.80}; allowed: a list of minion ids")
    if not all(isinstance(one, str) and len(one) <= 255 for one in nodes):
        raise BadRequest(f"nodes: found {nodes!r:.80}; allowed: a list of minion ids")
    return tuple(dict.fromkeys(nodes))


def _reason(found: Any) -> str:
    text = "" if found is None else clean(str(found))
    if len(text) > MAX_REASON:
        text = f"{text[:MAX_REASON]}… (cut from {len(text)} characters)"
    return text


def request(
    cluster: Any,
    action: Any = "highstate",
    nodes: Any = None,
    reason: Any = None,
    request: Any = None,
    *,
    door: str,
    asker: str,
    forced: bool = False,
) -> Request:
    """Check the form of a request. ``asker`` is who asks as far as that door can know.

    Raises BadRequest.
    """
    cluster = _cluster(cluster)
    if not isinstance(action, str) or len(action) > 40:
        raise BadRequest(f"action: found {action!r:.80}; allowed: highstate, restart, start")
    names = _nodes(nodes)
    if request is not None and not (isinstance(request, str) and _PLAIN_ID.fullmatch(request)):
        raise BadRequest(f"request: found {request!r:.80}; allowed: {_PLAIN_ID_WORDS}")
    return Request(
        id=request or mint(),
        cluster=cluster,
        action=action,
        nodes=names,
        reason=_reason(reason),
        door=door,
        asker=clean(asker)[:100],
        forced=forced,
    )


def command(
    verb: Verb,
    *,
    by: str,
    cluster: Any = None,
    incident: Any = None,
    nodes: Any = None,
    for_s: float = 0.0,
    reason: Any = None,
) -> Command:
    """Check the form of a command: what its verb needs is there. ``by`` is who gives it.

    Raises BadRequest.
    """
    if cluster is not None or verb in (Verb.LOCK, Verb.EXPLAIN):
        cluster = _cluster(cluster)
    if verb in (Verb.ACK, Verb.APPROVE, Verb.REJECT) and not (
        isinstance(incident, str) and _INCIDENT.fullmatch(incident)
    ):
        raise BadRequest(
            f"incident: found {incident!r:.80}; allowed: the id of an incident, such as runbook-7"
        )
    if verb is Verb.PAUSE and not 0 < for_s <= MAX_PAUSE_S:
        raise BadRequest(
            f"duration: found {for_s:g} s; allowed: more than 0, at most {MAX_PAUSE_S / 86400:g}d"
        )
    text = _reason(reason)
    if verb in (Verb.PAUSE, Verb.LOCK) and not text.strip():
        raise BadRequest(
            f"reason: found nothing; allowed: up to {MAX_REASON} characters, at least one word"
        )
    return Command(
        id=mint(),
        verb=verb,
        by=clean(by)[:100],
        cluster=cluster,
        incident=incident,
        nodes=_nodes(nodes),
        for_s=for_s,
        reason=text,
    )


def from_bus(tag: str, data: Mapping[str, Any]) -> Request:
    """A request that came as an event ``selfheal/request/<cluster>``.

    It proves only that somebody who may write to the bus sent it: the name is recorded as claimed, and its id is
    one of the bus, so that nobody can answer another door's request beforehand.

    Raises BadRequest.
    """
    cluster = tag.split("/", 2)[2]
    inner = data.get("data")
    body = inner if isinstance(inner, dict) else data
    claimed = data.get("id")
    asker = f"{claimed} (claimed)" if isinstance(claimed, str) else "unknown"
    found = request(
        cluster,
        body.get("action", "highstate"),
        body.get("nodes"),
        body.get("reason"),
        body.get("request"),
        door="bus",
        asker=asker,
    )
    return replace(found, id=f"{BUS_ID}{found.id}")


# ---------------------------------------------------------------- the doors on Salt's event bus


@dataclass(frozen=True)
class Caller:
    """Who may use the signed webhook, and for what."""

    name: str
    secret: str = field(repr=False)
    clusters: tuple[str, ...]
    actions: tuple[str, ...]


def doors(settings: EngineSettings, resolve: Callable[[Any, str], Iterable[str]]) -> Doors:
    """The doors as the settings open them."""
    key = settings.formula_secretkey
    return Doors(
        [
            Caller(name, hook.secret.get_secret_value(), tuple(hook.clusters), tuple(hook.actions))
            for name, hook in settings.webhooks.items()
        ],
        settings.clusters,
        key.get_secret_value() if key else None,
        resolve,
    )


@dataclass
class _Minute:
    """How much has been taken since when."""

    began: float = 0.0
    taken: int = 0


class Doors:
    """Events of the bus → requests. Used by the thread that listens; whatever is wrong costs one line of the log.

    ``resolve`` turns a Salt target and its kind into minion ids; it is asked by the article's interface only, which
    is closed without ``formula_key``.
    """

    def __init__(
        self,
        callers: Iterable[Caller] = (),
        clusters: Mapping[str, ClusterSettings] | None = None,
        formula_key: str | None = None,
        resolve: Callable[[Any, str], Iterable[str]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clusters = clusters or {}
        self._callers = [(caller, Webhook(caller.secret)) for caller in callers]
        self._formula_key = formula_key
        self._resolve = resolve
        self._clock = clock
        self._minutes: dict[str, _Minute] = {}
        self._told_at = -TELL_EVERY_S
        self._untold = 0

    @property
    def tags(self) -> str:
        """A regular expression of the tags to listen to."""
        tags = [re.escape(REQUESTS)]
        if self._callers:
            tags.append(re.escape(HOOKS))
        if self._formula_key:
            tags += [f"{re.escape(NETAPI)}{path}(/|$)" for path in ("states", "services", "cmd")]
        return f"^(?:{'|'.join(tags)})"

    def take(self, tag: str, data: Mapping[str, Any]) -> list[Request]:
        """The requests in one event: none, if it has not the form of one, or nobody has signed it."""
        try:
            if tag.startswith(REQUESTS):
                found = [from_bus(tag, data)]
                # Names that are no cluster's count together: there is no end of them.
                known = found[0].cluster in self._clusters
                whom = found[0].cluster if known else "unknown clusters"
                self._bounded(f"the bus for {whom}", BUS_PER_MINUTE)
                return found
            if tag.startswith(HOOKS):
                return [self._from_hook(tag, data)]
            return self._from_formula(tag, data)
        except BadRequest as exc:
            self._tell(tag, str(exc))
        except Exception as exc:  # whatever a stranger's data can do, it must not end the listener
            self._tell(tag, f"{type(exc).__name__} while it was read")
        return []

    def _tell(self, tag: str, why: str) -> None:
        now = self._clock()
        if now - self._told_at < TELL_EVERY_S:
            self._untold += 1
            return
        more = f" (and {self._untold} more in the last {now - self._told_at:.0f} s)"
        more, self._untold, self._told_at = more if self._untold else "", 0, now
        log.warning("selfheal: a request on %.100r was dropped: %s%s", tag, why, more)

    def _bounded(self, whose: str, most: int) -> None:
        """So many a minute are kept, and the rest is dropped before it costs anything."""
        now = self._clock()
        minute = self._minutes.setdefault(whose, _Minute())
        if now - minute.began >= 60.0:
            minute.began, minute.taken = now, 0
        minute.taken += 1
        if minute.taken > most:
            raise BadRequest(f"more than {most} a minute through {whose}")

    def _from_hook(self, tag: str, data: Mapping[str, Any]) -> Request:
        """``POST /hook/selfheal/<cluster>/<action>``, signed as the Standard Webhooks specification says."""
        parts = tag[len(HOOKS) :].split("/")
        if len(parts) != 2:
            raise BadRequest(f"path: found {tag!r:.80}; allowed: /hook/selfheal/<cluster>/<action>")
        cluster, action = parts
        body, headers = data.get("body"), data.get("headers")
        if isinstance(body, bytes):
            body = body.decode("utf-8", "replace")
        if not isinstance(body, str) or len(body) > MAX_BODY:
            raise BadRequest(f"body: found none, or too much; allowed: up to {MAX_BODY} characters")
        caller, webhook_id = self._signed(cluster, body, headers)
        self._bounded(caller.name, HOOKS_PER_MINUTE)
        if action not in caller.actions:
            allowed = ", ".join(caller.actions)
            raise BadRequest(f"action: found {action!r:.40}; allowed to {caller.name}: {allowed}")
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict) or set(asked) - {"reason", "nodes"}:
            raise BadRequest('body: found something else; allowed: {"reason": …, "nodes": […]}')
        found = request(
            cluster,
            action,
            asked.get("nodes"),
            asked.get("reason"),
            door="webhook",
            asker=caller.name,
        )
        return replace(found, id=f"{caller.name}:{webhook_id}")

    def _signed(self, cluster: str, body: str, headers: Any) -> tuple[Caller, str]:
        """Who has signed this body, and the message's id. Who has not learns nothing."""
        wanted = ("webhook-id", "webhook-timestamp", "webhook-signature")
        given = headers if isinstance(headers, Mapping) else {}
        signature = {
            key.lower(): value
            for key, value in given.items()
            if isinstance(key, str) and isinstance(value, str) and key.lower() in wanted
        }
        for caller, webhook in self._callers:
            if cluster not in caller.clusters:
                continue
            try:
                webhook.verify(body, signature)
            except Exception:
                continue  # the library raises more than it says on odd headers
            found = signature["webhook-id"]
            if not _PLAIN_ID.fullmatch(found):
                raise BadRequest(f"webhook-id: found {found!r:.80}; allowed: {_PLAIN_ID_WORDS}")
            return caller, found
        raise BadRequest("nobody who may ask for this cluster has signed it lately")

    def _from_formula(self, tag: str, data: Mapping[str, Any]) -> list[Request]:
        """The article's routes: the caller's target is cut down to what is configured, and becomes requests."""
        post = data.get("post")
        if not isinstance(post, Mapping) or not self._formula_key:
            raise BadRequest("body: found something else; allowed: tgt, matcher, args, secretkey")
        key = str(post.get("secretkey", ""))
        if not hmac.compare_digest(key.encode(), self._formula_key.encode()):
            raise BadRequest("not allowed")
        self._bounded("the article's interface", HOOKS_PER_MINUTE)
        kind, _, what = tag[len(NETAPI) :].partition("/")
        if (kind, what) not in _FORMULA:
            raise BadRequest(
                f"{kind}/{what:.40}: no text of a caller is run; allowed: {_FORMULA_WORDS}"
            )
        target, matcher = post.get("tgt"), post.get("matcher", "glob")
        if not isinstance(target, (str, list)) or not isinstance(matcher, str) or not target:
            raise BadRequest(
                "tgt: found something else; allowed: a target of Salt's, and its matcher"
            )
        assert self._resolve is not None
        minions = set(self._resolve(target, matcher))
        args = post.get("args")
        names = [args] if isinstance(args, str) else args if isinstance(args, list) else []
        found = []
        for name, cluster in self._clusters.items():
            chosen = [node for node in cluster.nodes if node in minions]
            if chosen and (kind == "states" or cluster.service in names):
                reason = f"{kind}/{what}"
                found.append(
                    request(name, what, chosen, reason, door="article", asker="its key's owner")
                )
        if not found:
            raise BadRequest(
                "tgt and args: no node of a configured cluster with that service is left"
            )
        return found
