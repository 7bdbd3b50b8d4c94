"""What can be done. There is one row for each action, and all that is known of an action is in its row.

A new action needs a name in `Action`, a row in `TABLE`, and an SLS of that name under ``reactor/``. The SLS names the
Salt function literally, so a damaged ledger cannot make another function run. A test compares SLS and row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from types import MappingProxyType

from . import results
from .faults import Fault


class Action(str, Enum):
    """What a step can do; each has one reactor file of the same name."""

    HIGHSTATE = "highstate"
    RESTART = "restart"
    START = "start"
    FORCE_RESTART = "force_restart"
    LOOK = "look"
    WITNESS = "witness"
    SALT_WITNESS = "salt_witness"
    TEST_HIGHSTATE = "test_highstate"
    PROBE = "probe"


@dataclass(frozen=True)
class Remedy:
    """All that is known of an action."""

    runs: str  #: the Salt function that its SLS runs on the minions
    reads: results.Reader  #: reads the minions' results
    says: str  #: what it does, for people
    takes_service: bool = False  #: its first argument is the service's name
    #: Its next argument is the driver's port at the node. So each of its jobs is about one node.
    takes_port: bool = False
    stops: bool = (
        False  #: it is told how long it may wait for an orderly stop, and until when it may begin
    )
    by_observers: bool = (
        False  #: it goes to observers, and its argument is the address of the node it is about
    )
    only_asks: bool = False  #: it reads, and changes nothing: it is no attempt and costs no budget
    takes_away: bool = True  #: it can take a serving node away
    starts_anew: bool = False  #: a new start of the database proves that it has done its work
    #: If it is asked for, it goes only to nodes at which the probe sees a fault (setting ``restart_needs``).
    needs_probe: bool = False
    never: frozenset[Fault] = frozenset()  #: faults against which it cannot help, or does harm
    asked: bool = True  #: a step or a request may name it; if not, only the healer uses it
    by_webhook: bool = True  #: a webhook's caller may be allowed to ask for it
    for_callers: bool = False  #: a webhook's caller may ask for it, if its settings name no actions
    route: str = ""  #: its route in the article's interface; empty: it has none


#: With `MISTAKEN` it is not known whose server answers, so any action may hit another server, which serves. With
#: `STARTING` a process works on getting up, and any action may throw that work away.
_LEFT_ALONE = frozenset({Fault.MISTAKEN, Fault.STARTING})

#: A restart cures neither a password nor a certificate, and takes the last serving side of a partition away.
_NO_CURE = _LEFT_ALONE | {Fault.AUTH, Fault.TLS, Fault.PARTITIONED}

#: A row that only asks. Neither a step nor a request may name it: only the healer asks.
_question = partial(Remedy, only_asks=True, takes_away=False, asked=False, by_webhook=False)

TABLE: Mapping[Action, Remedy] = MappingProxyType(
    {
        Action.HIGHSTATE: Remedy(
            runs="state.highstate",
            reads=results.states,
            says="applies the node's whole configuration",
            never=_LEFT_ALONE,
            for_callers=True,
            route="states",
        ),
        Action.RESTART: Remedy(
            runs="service.restart",
            reads=results.yes,
            says="ends the service and starts it again",
            takes_service=True,
            starts_anew=True,
            needs_probe=True,
            for_callers=True,
            never=_NO_CURE,
            route="services",
        ),
        Action.START: Remedy(
            runs="service.start",
            reads=results.yes,
            says="starts the service where it does not run",
            takes_service=True,
            takes_away=False,
            starts_anew=True,
            never=_LEFT_ALONE,
            route="services",
        ),
        Action.FORCE_RESTART: Remedy(
            runs="selfheal.force_restart",
            reads=results.forced,
            says="ends the service whatever it takes and starts it again; only where this package is on the minion",
            takes_service=True,
            takes_port=True,
            stops=True,
            starts_anew=True,
            needs_probe=True,
            by_webhook=False,
            never=_NO_CURE,
        ),
        Action.LOOK: _question(
            runs="saltutil.running",
            reads=results.running,
            says="asks a minion what it runs, and changes nothing",
        ),
        Action.WITNESS: _question(
            runs="selfheal.witness",
            reads=results.testimony,
            says="asks a node's own minion what it sees of the database, and changes nothing",
            takes_service=True,
            takes_port=True,
        ),
        Action.SALT_WITNESS: _question(
            runs="salt.execute",
            reads=results.salt_testimony,
            says="asks the same with Salt's own functions, where selfheal.witness has failed; changes nothing",
            takes_service=True,
            takes_port=True,
        ),
        Action.TEST_HIGHSTATE: _question(
            runs="state.highstate",
            reads=results.test_run,
            says="asks a minion what a highstate would change, and changes nothing",
        ),
        Action.PROBE: _question(
            runs="selfheal.probe",
            reads=results.sighting,
            says="asks observers whether they reach a node from their place, and changes nothing",
            by_observers=True,
        ),
    }
)

#: Functions of this package begin so. A minion has them only if the package is installed there.
OWN_FUNCTIONS = "selfheal."

#: Actions that only ask.
ASKING = frozenset(action for action, row in TABLE.items() if row.only_asks)

#: What a request asks for if it names no action.
USUAL = Action.HIGHSTATE

#: Actions that a step or a request may name. The others are only used by the healer.
REMEDIES = tuple(action for action, row in TABLE.items() if row.asked)


def names() -> tuple[str, ...]:
    """The actions that a step or a request may name, as people write them."""
    return tuple(action.value for action in REMEDIES)


def webhook_names() -> tuple[str, ...]:
    """The actions that a webhook's caller may be allowed to ask for."""
    return tuple(action.value for action in REMEDIES if TABLE[action].by_webhook)


def names_for_callers() -> tuple[str, ...]:
    """The actions that a webhook's caller may ask for, if its settings name none."""
    return tuple(action.value for action in REMEDIES if TABLE[action].for_callers)


def routes() -> tuple[tuple[str, str], ...]:
    """The routes of the article's interface, as kind and name."""
    return tuple((TABLE[a].route, a.value) for a in REMEDIES if TABLE[a].route)


def routes_with_service() -> frozenset[str]:
    """The kinds of routes whose calls name a service."""
    return frozenset(TABLE[a].route for a in REMEDIES if TABLE[a].route and TABLE[a].takes_service)


def forbidden(fault: Fault) -> frozenset[Action]:
    """The actions that no setting and no request may order against this fault."""
    return frozenset(action for action in REMEDIES if fault in TABLE[action].never)
