"""The routes of the article's interface. Of a caller's target only configured nodes are kept; they become requests."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..config import ClusterSettings
from ..driver.tags import NETAPI
from ..driver.text import MOST_CHARS, clean
from ..healing import remedies
from ..healing.events import Door, Request
from . import forms
from .arguments import BadRequest, parsed, refuse_unknown, shown
from .flow import Flow, Flows
from .forms import MAX_BODY, MAX_HEADER, MAX_NODES

MAX_TARGET = MOST_CHARS
#: A target may have this many ``*:``, because each of them multiplies what Salt must compare.
MAX_WILD = 3
#: Calls with the article's key. For each, Salt looks up a target, and that may read the data of every minion.
ARTICLE_FLOW = Flow(600, 1.0)
#: The article's matchers without those that run a regular expression of the caller.
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
#: Regular expressions and ranges in a compound target, with or without their own delimiter. They are refused.
_EXPRESSION = re.compile(r"[EPJR].?@")
_TARGET_WORDS = (
    f"up to {MAX_TARGET} printable characters and {MAX_NODES} words, at most {MAX_WILD} of *: in them, and in a "
    "compound target no E@, P@, J@, R@; a list of texts with the matchers list and compound only"
)
#: The calls of the article's interface, as kind and action. The last two are taken, but the core refuses them.
_FORMULA = (
    *remedies.routes(),
    ("services", "stop"),
    ("services", "reload"),
)
#: Kinds of calls whose arguments name services.
_WITH_SERVICE = remedies.routes_with_service()
#: The first parts of the interface's paths. What is asked for by ``cmd`` is refused, and that is logged.
PATHS = (*dict.fromkeys(kind for kind, _ in _FORMULA), "cmd")
_FORMULA_WORDS = ", ".join("/".join(route) for route in remedies.routes())
#: The keys that a call of the article's interface may have.
_FORM = ("tgt", "matcher", "args", "secretkey")


class Formula:
    """Turns calls of the article's interface into requests. ``resolve`` turns a Salt target into minion ids."""

    def __init__(
        self,
        key: str,
        clusters: Mapping[str, ClusterSettings],
        resolve: Callable[[Any, str], Iterable[str]],
        flows: Flows,
    ) -> None:
        self._key = key
        self._clusters = clusters
        self._resolve = resolve
        self._flows = flows

    def take(self, tag: str, data: Mapping[str, Any]) -> list[Request]:
        """The requests of one call. Raises BadRequest."""
        post = data.get("post")
        if not isinstance(post, Mapping):
            raise BadRequest("body: found something else; allowed: tgt, matcher, args, secretkey")
        given = post.get("secretkey")
        key = str(given) if isinstance(given, (str, int)) else ""
        if len(key) > MAX_HEADER or not hmac.compare_digest(key.encode(), self._key.encode()):
            raise BadRequest("not allowed")
        self._flows.take("the article's interface", ARTICLE_FLOW)
        kind, _, what = tag[len(NETAPI) :].partition("/")
        if (kind, what) not in _FORMULA:
            raise BadRequest(
                f"path: found {shown(f'{kind}/{what}')}; no text of a caller is run; allowed: {_FORMULA_WORDS}"
            )
        refuse_unknown("body", post, _FORM)
        _refuse_twice(data.get("body"))
        target, matcher = _target(post.get("tgt"), post.get("matcher", "glob"))
        minions = set(self._resolve(target, matcher))
        args = post.get("args")
        names = [args] if isinstance(args, str) else args if isinstance(args, list) else []
        found = []
        for name, cluster in self._clusters.items():
            chosen = [node for node in cluster.nodes if node in minions]
            if chosen and (kind not in _WITH_SERVICE or cluster.service in names):
                reason = f"{kind}/{what}"
                found.append(
                    forms.request(
                        name, what, chosen, reason, door=Door.ARTICLE, asker="its key's owner"
                    )
                )
        if not found:
            raise BadRequest(
                "tgt and args: no node of a configured cluster with that service is left"
            )
        return found


def _target(found: Any, matcher: Any) -> tuple[str | list[str], str]:
    """Check that a Salt target can be looked up in bounded time and logged as one line.

    A regular expression may run for minutes, and nothing else runs in the process meanwhile. So none is allowed.

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
        or text != clean(text)
        or len(re.split(r"[\s,]+", text)) > MAX_NODES
        or text.count("*:") > MAX_WILD
        or (matcher == "compound" and _EXPRESSION.search(text))
    ):
        raise BadRequest(f"tgt: found {shown(found)}; allowed: {_TARGET_WORDS}")
    return found, matcher


def _refuse_twice(body: Any) -> None:
    """Raises BadRequest if a JSON body has a key twice. Salt takes the last one without a word (3006 to 3008)."""
    if isinstance(body, (str, bytes)) and len(body) > MAX_BODY:
        raise BadRequest(f"body: found too much; allowed: up to {MAX_BODY} characters")
    if isinstance(body, (str, bytes)) and body:
        text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
        try:
            parsed(text)
        except BadRequest:
            raise
        except (ValueError, RecursionError):
            return  # it is no JSON but a form, and there a key that occurs twice becomes a list
