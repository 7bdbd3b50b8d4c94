"""An answer of RethinkDB's, read: small ones at once, large ones document by document.

C `json` keeps the interpreter for as long as one call takes, also on a thread of its own: a 60 MB answer would hold up
every probe for seconds. So no call here gets more than one document of bounded size, and between two documents whoever
drives the generators of this file may let others run (`leisurely`).
"""

from __future__ import annotations

import asyncio
import codecs
import json
import re
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeVar

from .text import said

AT_ONCE_BYTES = 64 * 1024  #: what is parsed in one call: about a millisecond at worst
MAX_DOCUMENT_CHARS = 256 * 1024  #: RethinkDB's largest: 64 shards with 50 replicas each make 200 KB
MAX_DOCUMENTS = 50_000  #: in one sequence
TURN_S = 0.001  #: how long the loop is held before others get their turn

_JSON = json.JSONDecoder()
_BLANK = re.compile(r"[ \t\n\r]*")

T = TypeVar("T")


class Alien(Exception):
    """The peer does not speak as RethinkDB does."""


class Answer(NamedTuple):
    """RethinkDB's answer: its type, its values (of documents: what was kept of them), and the kind of error."""

    kind: Any
    data: list[Any]
    error: Any = None


def spoken(message: bytes) -> dict[str, Any]:
    """A message of the handshake. Whoever is no RethinkDB often says in words what it is: they are the evidence."""
    try:
        fields = _JSON.decode(message.decode())
    except (ValueError, RecursionError):
        hint = ": that is its cluster port" if message.startswith(b"RethinkDB cluster") else ""
        raise Alien(f"says {said(message)}{hint}") from None
    if not isinstance(fields, dict):
        raise Alien(f"says {said(message)}")
    return fields


Keep = Callable[[dict[str, Any]], Any]
"""What is kept of a document. The rest is let go at once: freeing a million objects together takes long, too."""


def _all(document: dict[str, Any]) -> Any:
    return document


def at_once(body: bytes, keep: Keep = _all) -> Answer:
    """A small answer. Raises Alien."""
    try:
        fields = _JSON.decode(body.decode())
    except (ValueError, RecursionError):
        raise Alien(f"answers {said(body)}") from None
    answer = _answer(fields, body)
    return Answer(answer.kind, [_kept(value, keep) for value in answer.data], answer.error)


def _kept(value: Any, keep: Keep) -> Any:
    """Documents are dicts; an error comes as text; nothing else is of use."""
    if isinstance(value, dict):
        return keep(value)
    return value if isinstance(value, str) else None


def _answer(fields: Any, body: bytes) -> Answer:
    data = fields.get("r") if isinstance(fields, dict) else None
    if not isinstance(data, list) or "t" not in fields:
        raise Alien(f"answers {said(body)}")
    return Answer(fields["t"], data, fields.get("e"))


def in_pieces(body: bytes, keep: Keep = _all) -> Generator[None, None, Answer]:
    """A large answer, a document a step; the generator's return value is the answer. Raises Alien.

    RethinkDB sends ``{"t": …, "r": [document, …], …}``; whatever else stands there must be small.
    """
    text = _Text(body)
    fields: dict[str, Any] = {}
    text.take("{")
    while True:
        key = yield from text.value()
        text.take(":")
        if key == "r" and text.next() == "[":
            documents = fields["r"] = []
            text.take("[")
            while documents or text.next() != "]":
                if len(documents) >= MAX_DOCUMENTS:
                    raise Alien(f"sends more than {MAX_DOCUMENTS} documents")
                documents.append(_kept((yield from text.value()), keep))
                yield
                if text.next() != ",":
                    break
                text.take(",")
            text.take("]")
        else:
            fields[str(key)[:20]] = yield from text.value()
            if len(fields) > 20:
                raise Alien(f"answers {said(body)}")
        yield
        if text.next() != ",":
            break
        text.take(",")
    text.take("}")
    if text.next():
        raise Alien(f"answers {said(body)}")
    return _answer(fields, body)


class _Text:
    """The text of an answer, decoded slice by slice, and a place in it."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._used = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0

    def _more(self) -> bool:
        """Decode some more, as much as is there unread and at least a slice; False at the end."""
        if self._used >= len(self._body):
            return False
        unread = len(self._text) - self._at
        end = self._used + max(AT_ONCE_BYTES, min(unread, MAX_DOCUMENT_CHARS - unread))
        try:
            fresh = self._decoder.decode(self._body[self._used : end], final=end >= len(self._body))
        except ValueError:
            raise Alien(f"answers {said(self._body)}") from None
        self._text = self._text[self._at :] + fresh
        self._at, self._used = 0, end
        return True

    def next(self) -> str:
        """The next character that is not blank; empty at the end."""
        while True:
            blank = _BLANK.match(self._text, self._at)
            assert blank is not None  # it matches nothing, too
            self._at = blank.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, character: str) -> None:
        if self.next() != character:
            raise Alien(f"answers {said(self._body)}")
        self._at += 1

    def value(self) -> Generator[None, None, Any]:
        """The next JSON value, a step per try. Raises Alien for one that is too large, too deep, or none."""
        self.next()
        while True:
            try:
                value, end = _JSON.raw_decode(self._text, self._at)
                # A number may go on in the next slice.
                complete = end < len(self._text)
            except RecursionError:
                raise Alien(f"answers {said(self._body)}") from None
            except ValueError:
                complete = False
            if not complete:
                if len(self._text) - self._at >= MAX_DOCUMENT_CHARS:
                    raise Alien(f"sends a document of more than {MAX_DOCUMENT_CHARS} characters")
                if not self._more():
                    raise Alien(f"answers {said(self._body)}")
                yield
                continue
            self._at = end
            return value


async def leisurely(work: Generator[None, None, T], turn: asyncio.Lock) -> T:
    """Drive a generator of this kind, giving way after each millisecond.

    ``turn`` is shared by all of a loop: however many have such work, together they hold it for one turn at a time.
    """
    clock = asyncio.get_running_loop().time
    while True:
        async with turn:
            until = clock() + TURN_S
            try:
                while clock() < until:
                    next(work)
            except StopIteration as done:
                result: T = done.value
                return result
        await asyncio.sleep(0)
