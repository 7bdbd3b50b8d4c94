"""The routes of the article's interface: a caller's target is cut down to what is configured, and becomes requests."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..config import ClusterSettings
from ..driver.tags import NETAPI
from ..healing import remedies
from ..healing.events import Request
from . import forms
from .arguments import BadRequest, parsed, refuse_unknown, shown
from .flow import Flow, Flows
from .forms import MAX_BODY, MAX_HEADER, MAX_NODES, one_line

MAX_TARGET = 1000
MAX_WILD = 3  #: of ``*:``, each of which multiplies what Salt compares
#: With the article's key. Each has Salt look up a target, which may read the data of every minion.
ARTICLE_FLOW = Flow(600, 1.0)
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
    *remedies.routes(),
    ("services", "stop"),
    ("services", "reload"),
)  #: the core says no to the last two
_FORMULA_WORDS = ", ".join("/".join(route) for route in remedies.routes())
#: What a call of the article's may say.
_FORM = ("tgt", "matcher", "args", "secretkey")


class Formula:
    """Events of the article's calls → requests. ``resolve`` turns a Salt target and its kind into minion ids."""

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
            if chosen and (kind == "states" or cluster.service in names):
                reason = f"{kind}/{what}"
                found.append(
                    forms.request(
                        name, what, chosen, reason, door="article", asker="its key's owner"
                    )
                )
        if not found:
            raise BadRequest(
                "tgt and args: no node of a configured cluster with that service is left"
            )
        return found


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
        or text != one_line(text)
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
