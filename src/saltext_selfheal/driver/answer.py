"""Reads RethinkDB's answers: small ones at once, large ones document by document.

Python's `json` is written in C and keeps the interpreter during a call, even on a thread of its own. So an answer of
60 MB would hold up every probe for seconds. Here each call gets at most one document of bounded size. Large answers are
read by generators, and between two documents `leisurely` lets others run.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import re
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeVar

from .text import said

#: An answer of this size is parsed in one call, which takes a millisecond at worst.
AT_ONCE_BYTES = 64 * 1024
#: RethinkDB's largest document: 64 shards with 50 replicas each make 200 KB.
MAX_DOCUMENT_CHARS = 256 * 1024
MAX_DOCUMENTS = 50_000  #: at most this many documents in one sequence
TURN_S = 0.001  #: reading holds the loop this long before others get their turn

_JSON = json.JSONDecoder()
_BLANK = re.compile(r"[ \t\n\r]*")

T = TypeVar("T")


class Alien(Exception):
    """The peer does not speak as RethinkDB does."""


class Parsed(NamedTuple):
    """RethinkDB's answer: its type, its values (for documents, what was kept of them), and the kind of error."""

    kind: Any
    data: list[Any]
    error: Any = None


def spoken(message: bytes) -> dict[str, Any]:
    """A message of the handshake. Raises Alien with the beginning of what was said, which often shows who answers."""
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


def at_once(body: bytes, keep: Keep = _all) -> Parsed:
    """Read a small answer. Raises Alien."""
    try:
        fields = _JSON.decode(body.decode())
    except (ValueError, RecursionError):
        raise Alien(f"answers {said(body)}") from None
    answer = _answer(fields, body)
    return Parsed(answer.kind, [_kept(value, keep) for value in answer.data], answer.error)


def _kept(value: Any, keep: Keep) -> Any:
    """What is kept of one value. Documents are dicts, an error comes as text, and nothing else is needed."""
    if isinstance(value, dict):
        return keep(value)
    return value if isinstance(value, str) else None


def _answer(fields: Any, body: bytes) -> Parsed:
    data = fields.get("r") if isinstance(fields, dict) else None
    if not isinstance(data, list) or "t" not in fields:
        raise Alien(f"answers {said(body)}")
    return Parsed(fields["t"], data, fields.get("e"))


def in_pieces(body: bytes, keep: Keep = _all) -> Generator[None, None, Parsed]:
    """Read a large answer, one document per step. The generator returns the answer. Raises Alien.

    RethinkDB sends ``{"t": …, "r": [document, …], …}``. All other values in it must be small.
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
    """The text of an answer, decoded slice by slice, and the position to which it was read."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._used = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0

    def _more(self) -> bool:
        """Decode the next part: a slice, or as much as is unread now, if that is more. False at the end."""
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
        """The next character that is not blank, without taking it. Empty at the end."""
        while True:
            blank = _BLANK.match(self._text, self._at)
            assert blank is not None  # the pattern also matches an empty text
            self._at = blank.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, character: str) -> None:
        """Take this character. Raises Alien if another one comes next."""
        if self.next() != character:
            raise Alien(f"answers {said(self._body)}")
        self._at += 1

    def value(self) -> Generator[None, None, Any]:
        """Take the next JSON value, one step per try. Raises Alien if it is too large, too deep, or no JSON."""
        self.next()
        while True:
            try:
                value, end = _JSON.raw_decode(self._text, self._at)
                # At the end of the slice it is not known whether the value is complete: a number may go on.
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
    """Run a generator of this file to its end, and let others run after each millisecond.

    All readers of one loop share ``turn``. So even if many have large answers to read, only one of them at a time holds
    the loop for a turn.
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
