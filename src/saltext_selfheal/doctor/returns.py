"""Finds out whether this master's Salt lets a minion store a result under another minion's name.

The installed code is tried, because its version does not tell enough. The master's own handlers
(``salt.master.AESFuncs``) get forged returns. They work with a job cache that only notes what it is given, and in a
temporary folder. The real master is not touched, and nothing that is made here leaves this process.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import salt.crypt
import salt.master
import salt.serializers.msgpack

#: From this version of the protocol on, a request names its sender, and Salt compares that with the sender's key. With
#: older versions nothing is compared.
COMPARED_SINCE = 3
ALGORITHM = "signing_algorithm"
#: All settings of a master by which it checks who has signed a result. 3008 has no default for the last one on a
#: master.
SIGNED: Mapping[str, Any] = {
    "require_minion_sign_messages": True,
    "drop_messages_signature_fail": True,
    ALGORITHM: "PKCS1v15-SHA1",
}
_T = TypeVar("_T")
_CACHE = "noted"
_LIAR, _NODE = "liar", "node"
_JID = "20000101000000000000"
_TOLD = {"fun": "test.ping", "return": True, "retcode": 0, "success": True}
_KEY_BITS = 2048


class Route(str, Enum):
    """A way by which a minion can store a result under another minion's name."""

    RESOURCE = "_return with resource_id"
    SYNDIC = "_syndic_return"
    OLD_PROTOCOL = "_return by an old protocol"


class _Cache(dict[str, Callable[..., Any]]):
    """The returner of a job cache that keeps nothing but the names of the minions."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        functions: dict[str, Callable[..., Any]] = {
            "prep_jid": lambda *args, **kwargs: _JID,
            "get_load": lambda *args, **kwargs: {"jid": _JID},
            "save_load": lambda *args, **kwargs: None,
            "returner": lambda load: self.stored.append(load["id"]),
        }
        super().__init__({f"{_CACHE}.{name}": function for name, function in functions.items()})


def open_routes(opts: Mapping[str, Any]) -> list[Route]:
    """The ways that are open with these options. With an unknown release of Salt it may raise anything."""
    found = []
    if opts.get("job_cache", True) and not opts.get("ext_job_cache"):
        found = _aside(_try_all, opts)
        least = opts.get("minimum_auth_version")
        if not isinstance(least, int) or least < COMPARED_SINCE:
            found.append(Route.OLD_PROTOCOL)
    return found


def honest_is_stored(opts: Mapping[str, Any]) -> bool:
    """Whether a minion's own result is stored. It is signed if these options demand a signature."""
    return _aside(_try_honest, opts)


def _aside(trial: Callable[[Mapping[str, Any]], _T], opts: Mapping[str, Any]) -> _T:
    """Run a trial on a thread of its own, because a handler may need a loop and this thread's loop may be running.

    What Salt logs on that thread is dropped, so that the forged returns alarm nobody.
    """

    def quietly() -> _T:
        me = threading.get_ident()
        loggers = [logging.getLogger(name) for name in ("salt.master", "salt.utils.job")]

        def of_others(record: logging.LogRecord) -> bool:
            return record.thread != me

        for logger in loggers:
            logger.addFilter(of_others)
        try:
            return trial(opts)
        finally:
            for logger in loggers:
                logger.removeFilter(of_others)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(quietly).result()


def _try_honest(opts: Mapping[str, Any]) -> bool:
    with tempfile.TemporaryDirectory(prefix="selfheal-doctor-") as folder:
        place = Path(folder)
        _made_keys(place)
        load: dict[str, Any] = {"cmd": "_return", "jid": _JID, "id": _NODE, **_TOLD}
        if opts.get("require_minion_sign_messages"):
            load = _signed(opts, load, place / f"{_NODE}.pem")
        return _believed(opts, place, load)


def _try_all(opts: Mapping[str, Any]) -> list[Route]:
    with tempfile.TemporaryDirectory(prefix="selfheal-doctor-") as folder:
        place = Path(folder)
        _made_keys(place)
        return [
            route
            for route in (Route.RESOURCE, Route.SYNDIC)
            if any(
                _believed(opts, place, load)
                for load in _forged(opts, route, place / f"{_LIAR}.pem")
            )
        ]


def _made_keys(place: Path) -> None:
    """Make keys for both minions, and put them among the accepted keys."""
    accepted = place / "minions"
    accepted.mkdir()
    # 3006 and 3007 have only gen_keys.
    write = getattr(salt.crypt, "write_keys", salt.crypt.gen_keys)
    for minion in (_LIAR, _NODE):
        write(str(place), minion, _KEY_BITS)
        (accepted / minion).write_bytes((place / f"{minion}.pub").read_bytes())


def _forged(opts: Mapping[str, Any], route: Route, key: Path) -> Iterator[dict[str, Any]]:
    """The returns that the liar may send: without a signature, and signed with its own key. It has no other key."""
    as_resource = {"jid": _JID, "id": _LIAR, **_TOLD, "resource_id": _NODE}
    if route is Route.RESOURCE:
        load = {"cmd": "_return", **as_resource}
        yield load
        yield _signed(opts, load, key)
        return
    # It can send this as the node's result with its own signature, or as its own result for a resource that is called
    # like the node.
    for whole in ({"jid": _JID, "id": _NODE, **_TOLD}, as_resource):
        for result in (whole, _signed(opts, whole, key)):
            inner = {name: value for name, value in result.items() if name not in ("jid", "id")}
            one = {"id": _LIAR, "jid": _JID, "fun": _TOLD["fun"], "return": {whole["id"]: inner}}
            yield {"cmd": "_syndic_return", "id": _LIAR, "load": [one]}


def _signed(opts: Mapping[str, Any], load: Mapping[str, Any], key: Path) -> dict[str, Any]:
    known = inspect.signature(salt.crypt.sign_message).parameters
    more = {"algorithm": opts[ALGORITHM]} if ALGORITHM in opts and "algorithm" in known else {}
    text = salt.serializers.msgpack.serialize(dict(load))
    return {**load, "sig": salt.crypt.sign_message(str(key), text, **more)}


def _believed(opts: Mapping[str, Any], place: Path, load: Mapping[str, Any]) -> bool:
    """Whether the master's own handler stores this return under the node's name."""
    cache = _Cache()
    handlers = _handlers(opts, place, cache)
    try:
        made = getattr(handlers, str(load["cmd"]))(dict(load))
        if inspect.isawaitable(made):
            asyncio.run(_awaited(made))
    except KeyError as exc:
        # For each signature 3008 reads this option of the master, and it has no default there. Then nothing is stored.
        if exc.args != (ALGORITHM,):
            raise
    return _NODE in cache.stored


async def _awaited(made: Any) -> None:
    await made


def _handlers(opts: Mapping[str, Any], place: Path, cache: _Cache) -> Any:
    """The handlers of a master with these options, but without loaders, sockets and bus."""
    handlers = salt.master.AESFuncs.__new__(salt.master.AESFuncs)
    handlers.opts = {
        **opts,
        "master_job_cache": _CACHE,
        "job_cache_store_endtime": False,
        "cachedir": str(place),
        "pki_dir": str(place),
        "cluster_id": None,
    }
    handlers.event = None
    handlers.mminion = SimpleNamespace(returners=cache)
    handlers.key_cache = _Keys(place / "minions")
    if not opts.get("master_async_mworker") and hasattr(handlers, "_sync_return"):
        # Salt itself does the same (3008.3).
        handlers._return = handlers._sync_return
        handlers._syndic_return = handlers._sync_syndic_return
    return handlers


class _Keys:
    """The accepted keys, with the method by which 3008 fetches them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fetch(self, bank: str, minion: str) -> dict[str, str]:
        path = self._folder / minion
        return {"pub": path.read_text()} if path.exists() else {}
