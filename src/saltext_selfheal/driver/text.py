"""The one filter for text from outside: what servers, minions, callers and rows of the inbox say.

Such text is stored, logged, fired as an event and shown to people. A newline in it could forge a line of a log, ESC
could move the cursor of a terminal, and a mark of the writing direction could change how a line looks. So it becomes
one line of bounded length where it comes in, and everything behind that line may use it as it is. This file imports
nothing of ours, so every room may use it.

`doors.arguments.shown` and `app.settings.quoted` do something different: they quote a wrong value in an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS_CHARS = 120  #: a sentence quotes at most this many characters of what a peer said
NAME_CHARS = 200  #: a name or an id from outside is cut to this many characters
MOST_CHARS = 1000  #: text from outside is cut to this many characters, unless its place allows less
MOST_PLACES = 6  #: so many lines of code are named where something has failed


def clean(text: str, most: int = MOST_CHARS) -> str:
    """The text as one line of at most ``most`` characters that can be stored in UTF-8, logged and shown.

    A blank takes the place of each character that Python does not call printable: control characters, line separators,
    marks of the writing direction, other invisible ones. A lone surrogate is written as ``\\ud800``. All else stays as
    it is, so clean text is not changed.
    """
    kept = text[:most]
    if kept.isprintable():
        return kept
    stored = kept.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else " " for c in stored)[:most]


def plain(words: Any, most: int = 300) -> str:
    """Anything as one clean line of at most ``most`` characters, with one blank in place of several."""
    return " ".join(clean(str(words), 4 * most).split())[:most]


def said(data: bytes | bytearray | str) -> str:
    """What a peer said, as one line that can be shown: in quotes, and cut if it is long."""
    if not isinstance(data, str):
        data = bytes(data[: 4 * WORDS_CHARS]).decode("utf-8", "backslashreplace")
    text = clean(data, 4 * WORDS_CHARS)
    # If it was one line already, it stays as it is, with its blanks.
    text = text if data.isprintable() else " ".join(text.split())
    return f'"{text[:WORDS_CHARS]}…"' if len(text) > WORDS_CHARS else f'"{text}"'


def written(value: Any) -> str | None:
    """The value as Python writes it. None if Python refuses, as with a number of more than 4300 digits."""
    try:
        return repr(value)
    except (ValueError, RecursionError):
        return None


def all_clean(value: Any, most: int = MOST_CHARS) -> Any:
    """Data with all texts in it cleaned, the keys included. The order of the keys stays."""
    if isinstance(value, str):
        return clean(value, most)
    if isinstance(value, dict):
        return {all_clean(key, most): all_clean(inner, most) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [all_clean(inner, most) for inner in value]
    return value


def failure(exc: BaseException) -> str:
    """An exception that nobody expected, as one line: its type, its words, and the lines of code that it came through.

    Python's own traceback has many lines, and the words in it may be a stranger's.
    """
    places = []
    trace = exc.__traceback__
    while trace is not None:
        places.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    words = plain(exc)
    told = f"{type(exc).__name__}: {words}" if words else type(exc).__name__
    return f"{told} ({', '.join(reversed(places[-MOST_PLACES:]))})" if places else told
