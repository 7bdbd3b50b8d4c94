"""Makes text from outside fit to be shown, logged, stored and sent. It imports nothing, so every room may use it.

Three similar functions are in other files, because they do something different, and their docstrings say what:
`doors.forms.one_line`, `doors.arguments.shown` and `app.settings.quoted`.
"""

from __future__ import annotations

from typing import Any

WORDS_CHARS = 120  #: a sentence quotes at most this many characters of what a peer said


def clean(text: str) -> str:
    """The text as it can be stored and sent, in UTF-8. The JSON of a server may hold lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _on_one_line(text: str) -> str:
    """The text with a blank in place of each unprintable character, and one blank in place of several."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def printable(text: str) -> str:
    """The text as one line that can be shown and logged. If it is one already, it stays as it is, with its blanks."""
    return text if text.isprintable() else _on_one_line(text)


def plain(words: Any, most: int = 300) -> str:
    """Anything as one line of at most ``most`` characters, with single blanks."""
    return _on_one_line(str(words)[: 4 * most])[:most]


def said(data: bytes | bytearray | str) -> str:
    """What a peer said, as one line that can be shown: in quotes, and cut if it is long."""
    if isinstance(data, str):
        text = printable(data[: 4 * WORDS_CHARS])
    else:
        text = printable(bytes(data[: 4 * WORDS_CHARS]).decode("utf-8", "backslashreplace"))
    return f'"{text[:WORDS_CHARS]}…"' if len(text) > WORDS_CHARS else f'"{text}"'
