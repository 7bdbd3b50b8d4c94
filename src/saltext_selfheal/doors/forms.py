"""What comes from any door → one `Request` or `Command`. Forms are checked here; whether it is granted is the
core's business.

Nothing a caller writes is ever run or used as a target: the cluster is looked up by name, nodes must be
configured, the action must be one of three words.
"""

from __future__ import annotations

import hmac
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from standardwebhooks import Webhook

from ..config import ClusterSettings, EngineSettings
from ..healing.model import PAUSED_AT_MOST_S, Command, Request, Verb, clean
from .arguments import BadRequest, parsed, refuse_unknown, salts_own, shown

log = logging.getLogger(__name__)

NETAPI = "salt/netapi/hook/"
HOOKS = f"{NETAPI}selfheal/"
REQUESTS = "selfheal/request/"
BUS_ID = "bus:"  #: before the ids of requests that came by the bus

MAX_REASON = 500
MAX_ASKER = 100
MAX_NODES = 64
MAX_NODES_TEXT = 4096  #: characters of all of them
MAX_BODY = 64 * 1024
MAX_HEADER = 4096  #: of a signature's headers, and of the article's key
MAX_HEADERS = 100
MAX_TARGET = 1000
MAX_WILD = 3  #: of ``*:``, each of which multiplies what Salt compares
TELL_EVERY_S = 10.0  #: what was dropped costs one line of the log in this time
#: Without a colon: that one tells the doors' ids apart.
_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")
_PLAIN_ID_WORDS = "up to 100 of letters, digits, . _ -"
#: Controls, separators of lines, and what changes the direction of writing: it could forge a line, or its look.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
#: A reason that was cut here before, on a minion.
_CUT = re.compile(rf".{{{MAX_REASON}}}… \(cut from \d{{1,12}} characters\)")
#: The article's matchers that run no regular expression of the caller's.
MATCHERS = (
    "glob",
    "list",
    "grain",
    "compound",
    "nodegroup",
    "pillar",
    "pillar_exact",
    "ipcidr",
)
#: Regular expressions and ranges in a compound target, with or without a delimiter of their own.
_EXPRESSION = re.compile(r"[EPJR].?@")
_TARGET_WORDS = (
    f"up to {MAX_TARGET} printable characters and {MAX_NODES} words, at most {MAX_WILD} of *: in them, and in a "
    "compound target no E@, P@, J@, R@; a list of texts with the matchers list and compound only"
)
#: What the article's callers may do, as kind and action.
_FORMULA = (
    ("states", "highstate"),
    ("services", "restart"),
    ("services", "start"),
    ("services", "stop"),
    ("services", "reload"),
)
_FORMULA_WORDS = "states/highstate, services/restart, services/start"
#: What a request on the bus may say.
_ASKED = ("action", "nodes", "reason", "request")
#: What Salt puts around what a minion sends; a master's own event has no such frame (3006 to 3008).
_FRAME = ("id", "cmd", "tag", "pretag", "data")
_FRAMED = "_minion_event"
#: What Salt writes into any event, and who a sender says that it is.
_STAMPS = ("_stamp", "__peer_id", "id")
#: What a signed webhook may say. The first two must stand there: they say what was signed.
_SIGNED = ("cluster", "action", "reason", "nodes")
_SIGNED_WORDS = (
    '{"cluster": "runbook", "action": "restart", "reason": …, "nodes": […]}: cluster and action as in the path stand '
    "in the signed body, reason and nodes may"
)
#: What a call of the article's may say.
_FORM = ("tgt", "matcher", "args", "secretkey")
_CLUSTER = re.compile(r"[\w.-]{1,64}")
_INCIDENT = re.compile(r"[\w.-]{1,64}-[0-9]{1,12}")


def mint() -> str:
    """A fresh id."""
    return uuid.uuid4().hex


def _line(text: str) -> str:
    """Text from outside as one line that can be stored, logged and shown."""
    return _UNPRINTABLE.sub(" ", clean(text))


def _cluster(found: Any) -> str:
    if not isinstance(found, str) or not _CLUSTER.fullmatch(found):
        raise BadRequest(
            f"cluster: found {shown(found)}; allowed: the name of a configured cluster"
        )
    return found


def _nodes(found: Any) -> tuple[str, ...]:
    """The nodes that somebody names; none stands for all of a cluster, so nothing but leaving them out says that."""
    if found is None:
        return ()
    names = found
    if isinstance(found, str) and len(found) <= MAX_NODES_TEXT:
        names = [one.strip() for one in found.split(",") if one.strip()]
    if (
        not isinstance(names, (list, tuple))
        or len(names) > MAX_NODES
        or not all(isinstance(one, str) and len(one) <= 255 for one in names)
        or sum(map(len, names)) > MAX_NODES_TEXT
    ):
        raise BadRequest(
            f"nodes: found {shown(found)}; allowed: a list of minion ids, at most {MAX_NODES}, "
            f"together up to {MAX_NODES_TEXT} characters"
        )
    kept = tuple(dict.fromkeys(map(_line, names)))
    if not any(one.strip() for one in kept):  # a list that came out empty means nobody
        told = shown(found) if isinstance(found, str) else "an empty list"
        raise BadRequest(f"nodes: found {told}; allowed: minion ids, at least one")
    return kept


def _reason(found: Any) -> str:
    """A reason of at most `MAX_REASON` characters. What was cut says so, once."""
    if found is not None and not isinstance(found, (str, int, float, bool)):
        raise BadRequest(f"reason: found {shown(found)}; allowed: up to {MAX_REASON} characters")
    text = "" if found is None else str(found)
    kept = _line(text[: 2 * MAX_REASON])
    if len(kept) <= MAX_REASON or _CUT.fullmatch(kept):
        return kept
    return f"{kept[:MAX_REASON]}… (cut from {len(text)} characters)"


def _who(name: str) -> str:
    return _line(name[:MAX_ASKER])[:MAX_ASKER]


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
        raise BadRequest(f"action: found {shown(action)}; allowed: highstate, restart, start")
    names = _nodes(nodes)
    if request is not None and not (isinstance(request, str) and _PLAIN_ID.fullmatch(request)):
        raise BadRequest(f"request: found {shown(request)}; allowed: {_PLAIN_ID_WORDS}")
    return Request(
        id=request or mint(),
        cluster=cluster,
        action=_line(action)[:40],
        nodes=names,
        reason=_reason(reason),
        door=door,
        asker=_who(asker),
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
        attempt = "" if verb is Verb.ACK else ", or of its attempt, such as runbook-7.1"
        raise BadRequest(
            f"incident: found {shown(incident)}; allowed: the id of an incident, such as runbook-7{attempt}"
        )
    if verb is Verb.PAUSE and not 0 < for_s <= PAUSED_AT_MOST_S:
        raise BadRequest(
            f"duration: found {for_s:g} s; allowed: more than 0, at most {PAUSED_AT_MOST_S / 86400:g}d"
        )
    text = _reason(reason)
    if verb in (Verb.PAUSE, Verb.LOCK) and not text.strip():
        raise BadRequest(
            f"reason: found nothing; allowed: up to {MAX_REASON} characters, at least one word"
        )
    return Command(
        id=mint(),
        verb=verb,
        by=_who(by),
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
    body = _event(data)
    claimed = data.get("id")
    # Cut before, so that the word always stands.
    asker = f"{_who(claimed)[:80]} (claimed)" if isinstance(claimed, str) else "unknown"
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


def _event(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an event asks for, with or without Salt's frame around it, if all of it is known.

    Raises BadRequest.
    """
    body, inner = data, data.get("data")
    known: tuple[str, ...] = (*_ASKED, *_STAMPS)
    if isinstance(inner, dict):
        # What a release of Salt adds to its frame is no request's; what a request says must stand inside.
        frame = [key for key in data if key in _ASKED or data.get("cmd") != _FRAMED]
        refuse_unknown("event", frame, (*_FRAME, *_STAMPS))
        body, known = inner, _ASKED
    refuse_unknown(
        "event", [key for key in body if not salts_own(key) and key not in known], _ASKED
    )
    _refuse_null(body)
    return body


def _refuse_null(body: Mapping[str, Any]) -> None:
    """Whoever names nodes and has none, as a template with an empty variable does, means nobody. Raises BadRequest."""
    if "nodes" in body and body["nodes"] is None:
        raise BadRequest("nodes: found null; allowed: minion ids, at least one, or no such key")


def _target(found: Any, matcher: Any) -> tuple[str | list[str], str]:
    """A target of Salt's and its matcher, if it can be looked up in bounded time and logged as one line.

    A regular expression may run for minutes, and nothing else of the process meanwhile.

    Raises BadRequest.
    """
    if not isinstance(matcher, str) or matcher not in MATCHERS:
        raise BadRequest(f"matcher: found {shown(matcher)}; allowed: {', '.join(MATCHERS)}")
    parts = found if isinstance(found, list) and matcher in ("list", "compound") else [found]
    text = ""
    if len(parts) <= MAX_NODES and all(isinstance(one, str) for one in parts):
        text = " ".join(parts)
    if (
        not 0 < len(text) <= MAX_TARGET
        or text != _line(text)
        or len(re.split(r"[\s,]+", text)) > MAX_NODES
        or text.count("*:") > MAX_WILD
        or (matcher == "compound" and _EXPRESSION.search(text))
    ):
        raise BadRequest(f"tgt: found {shown(found)}; allowed: {_TARGET_WORDS}")
    return found, matcher


def _refuse_twice(body: Any) -> None:
    """Raises BadRequest if a JSON body says something twice: Salt has taken the last of it (3006 to 3008)."""
    if isinstance(body, (str, bytes)) and len(body) > MAX_BODY:
        raise BadRequest(f"body: found too much; allowed: up to {MAX_BODY} characters")
    if isinstance(body, (str, bytes)) and body:
        text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
        try:
            parsed(text)
        except BadRequest:
            raise
        except (ValueError, RecursionError):
            return  # a form, in which what stands twice is a list


# ---------------------------------------------------------------- the doors on Salt's event bus


def _signed_body(body: str) -> dict[str, Any]:
    """What was signed. Raises BadRequest."""
    try:
        asked = parsed(body)
    except BadRequest:
        raise
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise BadRequest(f"body: found something else; allowed: {_SIGNED_WORDS}")
    refuse_unknown("body", asked, _SIGNED)
    _refuse_null(asked)
    lacking = [f"no {word}" for word in ("cluster", "action") if word not in asked]
    if lacking:
        raise BadRequest(f"body: found {' and '.join(lacking)}; allowed: {_SIGNED_WORDS}")
    return asked


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


@dataclass(frozen=True)
class Flow:
    """How much is taken: so many at once, and so many a second from then on."""

    at_once: int
    per_s: float


BUS_FLOW = Flow(600, 1.0)  #: requests of the bus, per cluster
HOOKS_FLOW = Flow(6000, 100.0)  #: signed ones, per caller
#: With the article's key. Each has Salt look up a target, which may read the data of every minion.
ARTICLE_FLOW = Flow(600, 1.0)


@dataclass
class _Bucket:
    """How much could be taken when."""

    left: float
    at: float


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
        self._buckets: dict[str, _Bucket] = {}
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
                # Before anything else is looked at: a flood is to cost nothing.
                cluster = tag[len(REQUESTS) :]
                if cluster not in self._clusters:
                    raise BadRequest(
                        f"cluster: found {shown(cluster)}; allowed: the name of a configured cluster"
                    )
                self._bounded(f"the bus for {cluster}", BUS_FLOW)
                return [from_bus(tag, data)]
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

    def _bounded(self, whose: str, flow: Flow) -> None:
        """What goes beyond the flow is dropped before it costs anything."""
        now = self._clock()
        bucket = self._buckets.setdefault(whose, _Bucket(flow.at_once, now))
        back = (now - bucket.at) * flow.per_s
        bucket.left, bucket.at = min(flow.at_once, bucket.left + back), now
        if bucket.left < 1:
            raise BadRequest(
                f"more than {flow.at_once} at once and {flow.per_s:g} a second through {whose}"
            )
        bucket.left -= 1

    def _from_hook(self, tag: str, data: Mapping[str, Any]) -> Request:
        """``POST /hook/selfheal/<cluster>/<action>``, signed as the Standard Webhooks specification says."""
        parts = tag[len(HOOKS) :].split("/", 2)
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
        self._bounded(f"the webhook of {caller.name}", HOOKS_FLOW)
        asked = _signed_body(body)
        signed_for = (asked["cluster"], asked["action"])
        if signed_for != (cluster, action):
            # Whoever holds a signed message could else send it to another path, as another request.
            raise BadRequest(
                f"path: found {shown(f'{cluster}/{action}')}; allowed: what was signed, "
                f"cluster {shown(signed_for[0])} and action {shown(signed_for[1])}"
            )
        if action not in caller.actions:
            allowed = ", ".join(caller.actions)
            raise BadRequest(f"action: found {shown(action)}; allowed to {caller.name}: {allowed}")
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
                continue  # the library raises more than it says on odd headers
            found = signature["webhook-id"]
            if not _PLAIN_ID.fullmatch(found):
                raise BadRequest(f"webhook-id: found {shown(found)}; allowed: {_PLAIN_ID_WORDS}")
            return caller, found
        raise BadRequest("nobody who may ask for this cluster has signed it lately")

    def _from_formula(self, tag: str, data: Mapping[str, Any]) -> list[Request]:
        """The article's routes: the caller's target is cut down to what is configured, and becomes requests."""
        post = data.get("post")
        if not isinstance(post, Mapping) or not self._formula_key:
            raise BadRequest("body: found something else; allowed: tgt, matcher, args, secretkey")
        given = post.get("secretkey")
        key = str(given) if isinstance(given, (str, int)) else ""
        if len(key) > MAX_HEADER or not hmac.compare_digest(
            key.encode(), self._formula_key.encode()
        ):
            raise BadRequest("not allowed")
        self._bounded("the article's interface", ARTICLE_FLOW)
        kind, _, what = tag[len(NETAPI) :].partition("/")
        if (kind, what) not in _FORMULA:
            raise BadRequest(
                f"path: found {shown(f'{kind}/{what}')}; no text of a caller is run; allowed: {_FORMULA_WORDS}"
            )
        refuse_unknown("body", post, _FORM)
        _refuse_twice(data.get("body"))
        target, matcher = _target(post.get("tgt"), post.get("matcher", "glob"))
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
