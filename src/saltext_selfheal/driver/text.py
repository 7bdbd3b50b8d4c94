"""Text of strangers, made fit to be shown, logged, stored and sent. Needs nothing; everybody may use it.

Three functions of this kind are elsewhere, because they do something else, and say so: `doors.forms.one_line`, and
`shown` of `doors.arguments` and `quoted` of `app.settings`.
"""

from __future__ import annotations

from typing import Any

WORDS_CHARS = 120  #: of what a peer said, in a sentence


def clean(text: str) -> str:
    """Text that can be stored and sent: a server's JSON may hold lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _on_one_line(text: str) -> str:
    """Blanks in place of what cannot be printed, and one blank in place of many."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def printable(text: str) -> str:
    """One line that can be shown and logged. What is one already stays as it is, its blanks included."""
    return text if text.isprintable() else _on_one_line(text)


def plain(words: Any, most: int = 300) -> str:
    """Anything as one line of at most ``most`` characters, with single blanks."""
    return _on_one_line(str(words)[: 4 * most])[:most]


def said(data: bytes | bytearray | str) -> str:
    """What a peer said, as one line that can be shown: in quotes, and cut."""
    if isinstance(data, str):
        text = printable(data[: 4 * WORDS_CHARS])
    else:
        text = printable(bytes(data[: 4 * WORDS_CHARS]).decode("utf-8", "backslashreplace"))
    return f'"{text[:WORDS_CHARS]}…"' if len(text) > WORDS_CHARS else f'"{text}"'
