"""What can be done: one row for each action, and whoever must know something about an action asks its row.

A new action is a name in `Action`, a row in `TABLE`, and an SLS of that name under ``reactor/``. The SLS names the Salt
function literally, so that no damaged ledger can have another one run; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from . import results
from .faults import Fault


class Action(str, Enum):
    """What a step can do; each has one reactor file of the same name."""

    HIGHSTATE = "highstate"
    RESTART = "restart"
    START = "start"
    LOOK = "look"


@dataclass(frozen=True)
class Remedy:
    """What is known of an action."""

    runs: str  #: the Salt function that its SLS runs on the minions
    reads: results.Reader  #: what their results mean
    says: str  #: what it does, for people
    takes_service: bool = False  #: its argument is the service's name
    takes_away: bool = True  #: it can take a serving node away
    starts_anew: bool = False  #: the database's new start proves that it has done its work
    needs_probe: bool = (
        False  #: asked for, it goes only where the probe sees a fault (``restart_needs``)
    )
    never: frozenset[Fault] = frozenset()  #: faults against which it cannot help, or does harm
    asked: bool = True  #: a step or a request may name it; else it belongs to the healer itself
    by_webhook: bool = True  #: a webhook's caller may be allowed to ask for it
    route: str = ""  #: the route of the article's interface that leads to it; empty: none does


#: Whose server it is nobody knows: whatever is done may hit another one, which serves.
_UNKNOWN = frozenset({Fault.MISTAKEN})

TABLE: Mapping[Action, Remedy] = MappingProxyType(
    {
        Action.HIGHSTATE: Remedy(
            runs="state.highstate",
            reads=results.states,
            says="applies the node's whole configuration",
            never=_UNKNOWN,
            route="states",
        ),
        Action.RESTART: Remedy(
            runs="service.restart",
            reads=results.yes,
            says="ends the service and starts it again",
            takes_service=True,
            starts_anew=True,
            needs_probe=True,
            # It cures neither a password nor a certificate, and takes the last serving side of a partition away.
            never=_UNKNOWN | {Fault.AUTH, Fault.TLS, Fault.PARTITIONED},
            route="services",
        ),
        Action.START: Remedy(
            runs="service.start",
            reads=results.yes,
            says="starts the service where it does not run",
            takes_service=True,
            takes_away=False,
            starts_anew=True,
            never=_UNKNOWN,
            route="services",
        ),
        Action.LOOK: Remedy(
            runs="saltutil.running",
            reads=results.running,
            says="asks a minion what it runs, and changes nothing",
            takes_away=False,
            asked=False,
            by_webhook=False,
        ),
    }
)

#: Actions that a step or a request may name. The others belong to the healer itself.
REMEDIES = tuple(action for action, row in TABLE.items() if row.asked)


def names() -> tuple[str, ...]:
    """The actions that a step or a request may name, as people write them."""
    return tuple(action.value for action in REMEDIES)


def webhook_names() -> tuple[str, ...]:
    """Those that a webhook's caller may be allowed to ask for."""
    return tuple(action.value for action in REMEDIES if TABLE[action].by_webhook)


def routes() -> tuple[tuple[str, str], ...]:
    """The routes of the article's interface, as kind and name."""
    return tuple((TABLE[a].route, a.value) for a in REMEDIES if TABLE[a].route)


def forbidden(fault: Fault) -> frozenset[Action]:
    """What no setting and no request may order against this fault."""
    return frozenset(action for action in REMEDIES if fault in TABLE[action].never)
