"""
End and start a database server that does not let itself be restarted
=====================================================================

.. versionadded:: 0.1.0

On a minion, `force_restart` ends the server of a service on this machine, however it hangs, and starts it anew. Salt's
loader puts it beside the other functions of ``selfheal``.

Nothing is touched if the service is not known here, if it cannot be told which process is its server, if another order
for it is being carried out, or if its pid file names a process of somebody else. Nothing is started beside a process
that survives SIGKILL.

The option ``selfheal:witness:config`` of the minion counts here, too, see `witness`. RethinkDB's own init script is one
service for all servers of the machine, so all of them are stopped and started.
"""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

__virtualname__ = "selfheal"
__func_alias__: dict[str, str] = {}

# Salt's loader puts these here.
__opts__: dict[str, Any]
__context__: dict[str, Any]
__salt__: Mapping[str, Callable[..., Any]]


def __virtual__() -> str:
    return __virtualname__


def _strict(refuse: Callable[[Any], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """
    Make a function take any arguments and refuse those that it does not know. ``refuse`` makes the answer then.

    Each loader module has its own copy of this decorator, because Salt puts ``__user__`` and the like into the globals
    of the function that it finds in the module (3006 to 3008).
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        from saltext_selfheal.doors import arguments

        def strict(*args: Any, **kwargs: Any) -> Any:
            try:
                given = arguments.bound(function, args, kwargs)
            except arguments.BadRequest as exc:
                return refuse(exc)
            return function(*given.args, **given.kwargs)

        return arguments.as_taken(function, strict)

    return decorate


def _invalid(why: object) -> NoReturn:
    from salt.exceptions import SaltInvocationError

    raise SaltInvocationError(str(why))


@_strict(_invalid)
def force_restart(
    service: Any, port: Any, stop_timeout: Any = 30, not_after: Any = None, timeout: Any = None
) -> dict[str, Any]:
    """
    End a database server on this machine, however it hangs, and start its service. **A healthy server is ended, too.**

    .. versionadded:: 0.1.0

    service
        The service that runs it.

    port
        Its driver port. By this port the process is found, where several servers run on one machine.

    stop_timeout
        Seconds for the orderly stop of the service (1 to 600). What lives then is killed: on systemd by the service's unit,
        elsewhere by SIGTERM and SIGKILL through pidfds, after start time, executable and owner were verified.

    not_after
        Seconds since the epoch by this minion's clock. An order that comes later is refused.

    timeout
        Seconds for all of it: at least 10 more than ``stop_timeout``, at most 3600. Left out: 30 more. What was ended is
        started even if the time is over.

    Returns one dict, with exit code 1 if ``done`` is False:

    - ``version`` (1)
    - ``done``: whether a new process of the server runs, as seen in /proc
    - ``how``: ``orderly`` (it stopped when asked to), ``killed``, ``started`` (there was no process), or ``none``
    - ``why``: what happened, or why nothing was touched, in a sentence
    - ``killed``: pids that were ended by signals; ``pid``: the new process
    - ``stuck``: whether a process survives SIGKILL; nothing is started beside it then

    CLI Example:

    .. code-block:: bash

        salt db1 selfheal.force_restart rethinkdb 28015 stop_timeout=30
    """
    from pathlib import Path

    from saltext_selfheal.control import force
    from saltext_selfheal.control.order import Order
    from saltext_selfheal.doors import arguments, control

    try:
        order = Order(*control.ordered(service, port, stop_timeout, not_after, timeout))
    except arguments.BadRequest as exc:
        _invalid(exc)
    told = force.force_restart(
        order, _functions(), config=_config_path(), turns=Path(__opts__["cachedir"])
    )
    if not told["done"]:
        __context__["retcode"] = 1
    return told


def _functions() -> Any:
    """Salt's own functions. Looking these up can take long, too: so it is done when they are called."""
    from saltext_selfheal.control.services import Functions
    from saltext_selfheal.witness import manager

    return Functions(
        available=lambda name: __salt__["service.available"](name),
        show=lambda name: manager.show(__salt__, name),
        stop=lambda name: __salt__["service.stop"](name),
        start=lambda name: __salt__["service.start"](name),
        run=lambda command: __salt__["cmd.run_all"](command, python_shell=False),
    )


def _config_path() -> str | None:
    """The path of the server's config file that somebody has set for this machine, if it can be one."""
    from saltext_selfheal.doors import arguments, witness

    try:
        return witness.path(__salt__["config.get"]("selfheal:witness:config", None))
    except arguments.BadRequest:
        return None
