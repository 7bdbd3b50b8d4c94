"""
A database that answers
=======================

.. versionadded:: 0.1.0

`node_alive` is true only if RethinkDB itself answers. Use it beside ``service.running``, which believes the service
manager: a crashed server behind RethinkDB's own init script stays "active (exited)", which counts as running.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

__virtualname__ = "selfheal"

# Salt's loader puts these here.
__opts__: dict[str, Any]
__salt__: Mapping[str, Callable[..., Any]]

LOOK_S = 5  #: for one look
PAUSE_S = 0.25  #: between two
#: A server that is busy for a moment is not restarted: as long as the healer's own `confirm.hung`.
SILENT_FOR_S = 20.0
#: A server that does not listen yet may be reading its tables: as long as the healer's own `starting`.
STARTING_S = 600.0
MOST_S = 3600

_KNOWN = ("name", "service", "address", "timeout", "user", "stop_timeout")
#: What answers, but not as RethinkDB: a restart does not change that.
_STRANGE = ("alien", "tls")


def __virtual__() -> str:
    return __virtualname__


def node_alive(
    name: str,
    service: Any = None,
    address: Any = "127.0.0.1:28015",
    timeout: Any = 60,
    user: Any = None,
    stop_timeout: Any = 30,
    **unknown: Any,
) -> dict[str, Any]:
    """
    Ensure that the database on this minion answers. Where it does not, start it, or end and start it.

    .. versionadded:: 0.1.0

    name
        The service that runs it, if ``service`` does not name it.

    service
        The service that runs it.

    address
        ``host`` or ``host:port`` of its driver port, as this minion reaches it.

    timeout
        Seconds within which it must answer after it was started (1 to 3600).

    user
        Who logs in. Left out: ``selfheal:probe:user`` of the minion's configuration. The password stands there only, as
        ``selfheal:probe:password``. A refused login counts as an answer.

    stop_timeout
        Seconds for the orderly stop of a server that hangs, see `selfheal.force_restart`.

    A server that is silent is looked at for 20 seconds before it is ended. One that does not listen yet is left alone for
    10 minutes, for it may be reading its tables. What answers and is no RethinkDB is left alone, too, and so is a server
    that listens where ``address`` does not lead: the state fails.

    A watched change restarts the database, as with ``service.running``:

    .. code-block:: yaml

        rethinkdb:
          selfheal.node_alive:
            - address: 10.0.0.11
            - watch:
              - file: /etc/rethinkdb/instances.d/db1.conf
    """
    try:
        _refuse(unknown)
        node = _Node(name, service, address, timeout, user, stop_timeout)
        seen = node.look()
        if not _answers(seen):
            return node.healed(seen)
    except _Wrong as exc:
        return _told(name, False, str(exc))
    return _told(name, True, f"{node.address} answers{_login(seen)}")


def mod_watch(
    name: str,
    sfun: Any = None,
    service: Any = None,
    address: Any = "127.0.0.1:28015",
    timeout: Any = 60,
    user: Any = None,
    stop_timeout: Any = 30,
    **unknown: Any,
) -> dict[str, Any]:
    """
    Restart the database, because something that `node_alive` watches has changed. Salt calls this.

    .. versionadded:: 0.1.0
    """
    if sfun != "node_alive":
        return _told(name, False, f"Unable to trigger watch for selfheal.{sfun}")
    try:
        _refuse(unknown)
        node = _Node(name, service, address, timeout, user, stop_timeout)
        return node.restarted("changed", f"{node.service} is restarted because of a watched change")
    except _Wrong as exc:
        return _told(name, False, str(exc))


class _Wrong(Exception):
    """This cannot be carried out. The text says why."""


def _refuse(unknown: Mapping[str, Any]) -> None:
    """Raises _Wrong if a state has an argument that is not known. Salt itself would end the whole highstate (3008)."""
    from saltext_selfheal.doors import arguments

    given = [key for key in unknown if not key.startswith("__")]
    try:
        arguments.refuse_unknown("keyword", given, _KNOWN)
    except arguments.BadRequest as exc:
        raise _Wrong(str(exc)) from None


def _told(
    name: str, result: bool | None, comment: str, changes: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"name": name, "result": result, "changes": changes or {}, "comment": comment}


def _answers(seen: Mapping[str, Any]) -> bool:
    """A refused login is an answer: RethinkDB itself has said no."""
    return bool(seen["well"]) or seen["fault"] == "auth"


def _login(seen: Mapping[str, Any]) -> str:
    return "" if seen["well"] else f", although it refuses the login: {seen['evidence']}"


class _Node:
    """The database of this minion."""

    def __init__(
        self, name: str, service: Any, address: Any, timeout: Any, user: Any, stop_timeout: Any
    ) -> None:
        from saltext_selfheal.doors import arguments, control
        from saltext_selfheal.driver import address as addresses

        self.name, self.user = name, user
        try:
            if not isinstance(address, str):
                raise ValueError(addresses.ALLOWED)
            self.port = addresses.parsed(address).port
        except ValueError as exc:
            raise _Wrong(f"address: found {arguments.shown(address)}; allowed: {exc}") from None
        number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
        if not number or not 1 <= timeout <= MOST_S:
            raise _Wrong(
                f"timeout: found {arguments.shown(timeout)}; allowed: seconds, from 1 to {MOST_S}"
            )
        try:
            asked = control.ordered(
                name if service is None else service, self.port, stop_timeout, None, None
            )
        except arguments.BadRequest as exc:
            raise _Wrong(str(exc)) from None
        self.service, self.stop_timeout = asked[0], asked[2]
        self.address, self.timeout_s = address, float(timeout)

    def look(self) -> dict[str, Any]:
        """Dial it. Raises _Wrong if that cannot be done from here."""
        from salt.exceptions import CommandExecutionError, SaltInvocationError

        try:
            seen: dict[str, Any] = __salt__["selfheal.probe"](
                self.address, user=self.user, timeout=LOOK_S
            )
        except (CommandExecutionError, SaltInvocationError) as exc:
            raise _Wrong(f"{self.address} cannot be looked at: {exc}") from exc
        if seen["ours"] and not _answers(seen):
            raise _Wrong(f"{self.address} cannot be looked at: {seen['evidence']}")
        return seen

    def answers_within(self, within_s: float) -> dict[str, Any]:
        """The first look at which it answers, or the last one. It is looked at once at least."""
        until = time.monotonic() + within_s
        while True:
            seen = self.look()
            if _answers(seen) or time.monotonic() >= until:
                return seen
            time.sleep(PAUSE_S)

    def healed(self, seen: dict[str, Any]) -> dict[str, Any]:
        """It does not answer: wait where it may come by itself, and restart it where that helps."""
        told = __salt__["selfheal.witness"](self.service, self.port)
        process, gone = told["process"], told["process"]["state"] == "gone"
        young = not told["listens"] and (process["age_s"] or 0) < STARTING_S
        starting = process["state"] == "runs" and young and seen["fault"] == "dead"
        if not gone or seen["fault"] in _STRANGE:
            seen = self.answers_within(self.timeout_s if starting else SILENT_FOR_S)
        if _answers(seen):
            return _told(self.name, True, f"{self.address} answers by now{_login(seen)}")
        if seen["fault"] in _STRANGE:
            return self._left_alone(seen, "a restart would not change that")
        if process["state"] == "runs" and seen["fault"] != "hung":
            if starting:
                age = f"its process {process['pid']} runs since {process['age_s']:.0f} s"
                return self._left_alone(seen, f"{age} and may still be starting")
            if told["listens"] or seen["fault"] == "unreachable":
                return self._left_alone(
                    seen, f"its process {process['pid']} runs, so it may be the address"
                )
        verb = "started" if gone else "ended and started"
        return self.restarted(seen["fault"], f"{seen['evidence']}; {self.service} is {verb}")

    def _left_alone(self, seen: Mapping[str, Any], why: str) -> dict[str, Any]:
        return _told(self.name, False, f"{seen['evidence']}; {why}. {self.service} is left alone")

    def restarted(self, before: str, why: str) -> dict[str, Any]:
        """End it and start it, and wait until it answers."""
        if __opts__["test"]:
            return _told(
                self.name, None, why.replace(f"{self.service} is", f"{self.service} would be")
            )
        done = __salt__["selfheal.force_restart"](
            self.service, self.port, stop_timeout=self.stop_timeout
        )
        if done["how"] == "none" and not done["done"]:
            return _told(self.name, False, f"{why}: {done['why']}")
        changes = {
            self.service: {"old": before, "new": "does not answer", "how": done["how"], "pid": done["pid"]}
        }  # fmt: skip
        if not done["done"]:
            return _told(self.name, False, f"{why}: {done['why']}", changes)
        seen = self.answers_within(self.timeout_s)
        if not _answers(seen):
            late = f"it does not answer within {self.timeout_s:g} s ({seen['evidence']})"
            return _told(self.name, False, f"{why}: {done['why']}, but {late}", changes)
        changes[self.service]["new"] = "answers"
        return _told(
            self.name, True, f"{why}: {done['why']}, and it answers{_login(seen)}", changes
        )
