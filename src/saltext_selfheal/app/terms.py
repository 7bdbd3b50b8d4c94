"""What a query does: whether it writes, and whether that write is done as a whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rethinkdb.ql2_pb2 import Term

_T = Term.TermType
_WRITES = frozenset(
    getattr(_T, name)
    for name in (
        "INSERT", "UPDATE", "REPLACE", "DELETE", "FOR_EACH", "SYNC", "DB_CREATE", "DB_DROP", "TABLE_CREATE",
        "TABLE_DROP", "INDEX_CREATE", "INDEX_DROP", "INDEX_RENAME", "RECONFIGURE", "REBALANCE", "GRANT",
        "SET_WRITE_HOOK", "HTTP", "JAVASCRIPT",
    )
    if hasattr(_T, name)
)  # fmt: skip


def writes_in(term: Any) -> int:
    """How many terms of a query change something, or may do so. 0: it is a read. A loop counts as two."""
    found = 0
    looking = [term]
    while looking:
        one = looking.pop()
        if isinstance(one, (list, tuple)):
            looking.extend(one)
            continue
        if isinstance(one, Mapping):
            looking.extend(one.values())
            continue
        kind = getattr(one, "term_type", None)
        if kind in _WRITES:
            found += 2 if kind == _T.FOR_EACH else 1
        looking.extend(getattr(one, "_args", ()))
        looking.extend(getattr(one, "optargs", {}).values())
    return found


def whole(term: Any) -> bool:
    """Whether a write is done as a whole or not at all: it writes one document, or is one term of administration.

    RethinkDB writes several documents in batches. If it says that a write was not done, that is about the last batch
    only (2.4.4).
    """
    kind = getattr(term, "term_type", None)
    if kind not in _WRITES or writes_in(term) != 1:
        return False
    if kind == _T.INSERT:
        return bool(getattr(term._args[1], "term_type", None) == _T.MAKE_OBJ)
    if kind in (_T.UPDATE, _T.REPLACE, _T.DELETE):
        return bool(getattr(term._args[0], "term_type", None) == _T.GET)
    return kind not in (_T.FOR_EACH, _T.HTTP, _T.JAVASCRIPT)
