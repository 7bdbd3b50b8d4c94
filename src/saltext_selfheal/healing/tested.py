"""The highstate that is tried first: a minion runs it in test mode, and one that would change nothing is left out.

It is a question like that to a witness: a job with its own JID and record that changes nothing and costs no budget. It is
asked when nothing else forbids the real highstate. Its answer is a hint, as every result is. The worst that a wrong one
can do is to leave out a highstate. If there is no answer in time, or if it proves nothing, the real highstate runs.
"""

from __future__ import annotations

from collections.abc import Iterable

from . import questions
from .changes import Changes, Verdict
from .events import Seconds
from .gate import Intent, Open, Ruling, Shut, of
from .model import Action, ClusterState, Fault, Incident, Policy, State, Step

#: What was told longer ago is asked again: people may have changed the configuration meanwhile.
VALID_S = 600.0
#: With these faults no process may be there, which not every service manager tells a highstate.
_PERHAPS_GONE = frozenset({Fault.DEAD, Fault.HUNG})


def _concerned(policy: Policy, incident: Incident, step: Step | None) -> bool:
    # An incident that an explanation only supposes has no id.
    highstate = step is not None and step.action is Action.HIGHSTATE
    return highstate and bool(policy.test_first_s) and bool(incident.id)


def _counts(cluster: ClusterState, incident: Incident, name: str, at: Seconds | None) -> bool:
    """What was asked at that moment is about this incident, and about the node as the last attempt has left it."""
    return at is not None and at >= max(incident.opened_at, cluster.nodes[name].acted_at)


def heard(cluster: ClusterState, incident: Incident, name: str, now: Seconds) -> Changes | None:
    """What the node's minion has told that a highstate would change there."""
    told = cluster.nodes[name].foreseen
    if told is None or now - told.at >= VALID_S or not _counts(cluster, incident, name, told.at):
        return None
    return told


def to_ask(
    cluster: ClusterState, incident: Incident, nodes: Iterable[str], now: Seconds
) -> tuple[str, ...]:
    """The nodes on which no test run was made yet for what is intended now, or none lately."""

    def was_asked(name: str) -> bool:
        at = cluster.nodes[name].foreseen_at
        return at is not None and now - at < VALID_S and _counts(cluster, incident, name, at)

    return tuple(
        n
        for n in nodes
        if not was_asked(n) and questions.in_flight(cluster, n, Action.TEST_HIGHSTATE) is None
    )


def never_asked(cluster: ClusterState, incident: Incident, name: str) -> bool:
    """No test run at all was made on this node for what is intended now."""
    return not _counts(cluster, incident, name, cluster.nodes[name].foreseen_at)


def tested(state: State, intent: Intent, now: Seconds) -> Ruling:
    """A highstate was run in test mode before, or had its time for that; and it would change something."""
    policy, cluster = of(state, intent)
    if not _concerned(policy, intent.incident, intent.step):
        return Open("no highstate is tried in test mode")
    met = not_met(state, intent, now)
    if not met.open:
        return met
    told = []
    unasked = to_ask(cluster, intent.incident, intent.nodes, now)
    for name in intent.nodes:
        said = heard(cluster, intent.incident, name, now)
        asked = questions.in_flight(cluster, name, Action.TEST_HIGHSTATE)
        if said is not None:
            told.append(f"{name}: {said.why}")
        elif asked is not None:
            opens_at = max(asked.fired_at, state.started_at) + policy.test_first_s
            return Shut(f"what a highstate would change on {name} is asked", opens_at)
        elif name in unasked:
            return Shut(f"what a highstate would change on {name} is asked first")
        else:
            told.append(f"{name}: what it would change was not told within its time")
    return Open("; ".join(told) or "no node is meant")


def not_met(state: State, intent: Intent, now: Seconds) -> Ruling:
    """The part of the gate `tested` that lasts: on no node all states are met already."""
    policy, cluster = of(state, intent)
    if _concerned(policy, intent.incident, intent.step):
        for name in intent.nodes:
            said = heard(cluster, intent.incident, name, now)
            if said is not None and said.verdict is Verdict.NOTHING:
                return Shut(f"a highstate would change nothing on {name}")
    return Open("nothing says that it would change nothing")


def met(
    cluster: ClusterState, policy: Policy, incident: Incident, step: Step | None, now: Seconds
) -> tuple[str, ...]:
    """The incident's nodes on which a highstate, which is the present step, would change nothing."""
    if not _concerned(policy, incident, step):
        return ()
    told = {n: heard(cluster, incident, n, now) for n in incident.nodes if n in cluster.nodes}
    return tuple(n for n, one in told.items() if one and one.verdict is Verdict.NOTHING)


def why_met(cluster: ClusterState, incident: Incident, names: Iterable[str]) -> str:
    """Why a highstate is left out on these nodes, in a sentence.

    A service manager may call a service active whose process is gone ("active (exited)"). Then a highstate sees nothing.
    """
    names = tuple(names)
    unseen = [n for n in names if incident.fault in _PERHAPS_GONE and not _process_seen(cluster, n)]
    but = f"; what is wrong with {', '.join(unseen)} it cannot see" if unseen else ""
    return f"a highstate would change nothing on {', '.join(names)}{but}"


def _process_seen(cluster: ClusterState, name: str) -> bool:
    told = questions.heard(cluster, name)
    return told is not None and told.process.value == "runs"
