"""Many incidents from random scenarios, every rule watched: ``python -m tests.proofs.incidents --count 20000``.

Each scenario has its settings, its faults, its bad luck and its people from one seed. What breaks a rule is printed
with that seed; ``--seed N --count 1`` tells it again.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from statistics import quantiles

from saltext_selfheal.healing import escalation
from saltext_selfheal.healing.events import Presence, Verb
from saltext_selfheal.healing.model import (
    CLUSTER_WIDE,
    Action,
    Fault,
    Incident,
    Limits,
    Mode,
    Phase,
    Policy,
    Step,
)
from saltext_selfheal.healing.testimony import Ground

from .rules import Broken
from .simulator import Luck, Simulation, tells

STEPS = (Action.HIGHSTATE, Action.RESTART, Action.START, Action.FORCE_RESTART)
#: What befalls a node, how often, and what may cure it.
NODE_FAULTS = (
    (Fault.DEAD, 10, (Action.RESTART, Action.RESTART, Action.RESTART, Action.HIGHSTATE, None)),
    (Fault.HUNG, 4, (Action.RESTART, Action.RESTART, Action.FORCE_RESTART, None)),
    (Fault.AUTH, 3, (Action.HIGHSTATE, Action.HIGHSTATE, None)),
    (Fault.TLS, 1, (Action.HIGHSTATE,)),
    (Fault.ALIEN, 1, (Action.HIGHSTATE, None)),
    (Fault.UNREACHABLE, 2, (None,)),
    (Fault.STALLED, 3, (Action.RESTART, Action.RESTART, Action.FORCE_RESTART, None)),
)
#: What applications do not notice, or not all of them: the fault, whether open connections go on, what may cure it.
HALF_FAULTS = (
    # Out of open files: nobody new is let in.
    (Fault.HUNG, (True,), (Action.RESTART, Action.RESTART, None)),
    # Its port refuses the master, and perhaps cuts off what was open.
    (Fault.DEAD, (True, False, False), (Action.RESTART, Action.HIGHSTATE, None, None)),
    # A changed password, an expired certificate: open connections stay logged in.
    (Fault.AUTH, (True,), (Action.HIGHSTATE, None)),
    (Fault.TLS, (True,), (Action.HIGHSTATE,)),
)
CLUSTER_FAULTS = (
    (Fault.UNAVAILABLE, (Action.HIGHSTATE, None)),
    (Fault.PARTITIONED, (None,)),
    (Fault.ISSUE, (None,)),
)
SPAN_S = 1200.0  #: things go wrong for so long


def policy(chance: random.Random, name: str, nodes: tuple[str, ...]) -> Policy:
    """Settings that an operator might choose, off values among them."""
    pick = chance.choice
    confirm_s = pick((0.0, 2.0, 6.0))
    steps = dict(escalation.DEFAULT)
    if chance.random() < 0.3:
        rungs = tuple(
            Step(pick(STEPS), pick((0.0, 0.0, 40.0))) for _ in range(chance.randint(1, 4))
        )
        steps = escalation.for_every_fault(rungs)
    if chance.random() < 0.2:  # by default nothing is done for who is cut off from the master only
        steps[Fault.CUT_OFF] = (Step(pick((Action.RESTART, Action.HIGHSTATE))),)
    return Policy(
        name=name,
        nodes=nodes,
        minions=f"{name}-*",
        mode=pick((*[Mode.AUTO] * 8, Mode.SHADOW, Mode.APPROVE, Mode.OFF)),
        confirm_s={f: confirm_s * pick((0.5, 1.0, 2.0)) for f in Fault},
        poll_s=pick((2.0, 5.0)),
        timeout_s=pick((1.0, 2.0)),
        settle_s=pick((0.0, 10.0, 45.0)),
        stable_s=pick((0.0, 5.0, 30.0)),
        flapping_changes=pick((0, 4, 6)),
        flapping_within_s=300.0,
        flapping_quiet_s=200.0,
        escalation=steps,
        attempt_timeout_s=pick((20.0, 60.0)),
        verify_s=pick((5.0, 20.0, 60.0)),
        cooldown_min_s=pick((0.0, 20.0, 120.0)),
        cooldown_max_s=pick((120.0, 600.0)),
        budget_attempts=pick((0, 1, 2, 3, 5)),
        budget_per_s=pick((300.0, 900.0)),
        relapse_s=pick((0.0, 600.0)),
        relapse_repeat=pick((0, 1, 2)),
        restart_needs_probe=pick((True, False)),
        canary=pick((True, True, False)),
    )


def luck(chance: random.Random) -> Luck:
    """A third of all sites has none of it."""
    if chance.random() < 0.33:
        return Luck()

    def share(most: float) -> float:
        return chance.choice((0.0, most / 4, most))

    return Luck(
        lost=share(0.4),
        tardy=share(0.2),
        failed=share(0.4),
        busy=share(0.4),
        endless=share(0.2),
        late=share(0.2),
        doubled=share(0.2),
        dropped=share(0.2),
        stale=share(0.2),
        unmet=share(0.4),
        slow_word=share(0.4),
        undialled=share(0.4),
        forged=share(0.3),
        lying=chance.choice((0.0, 0.0, share(0.3))),
        replayed=share(0.3),
        unpublished=share(0.1),
        forbidden=share(0.3),
        crash_on_fire=share(0.2),
        crash_on_event=share(0.002),
        unread=share(0.4),
        slow_reading=share(0.3),
    )


def scenario(seed: int) -> Simulation:
    """A site, and what is going to happen to it."""
    chance = random.Random(seed)
    count = chance.choice((1, 1, 1, 2, 4))
    policies = []
    for number in range(count):
        name = f"c{number}"
        nodes = tuple(f"{name}-{n}" for n in range(chance.choice((1, 2, 3, 3, 3, 5))))
        policies.append(policy(chance, name, nodes))
    evidence = random.Random(f"evidence {seed}")  # of its own: a seed without it stays what it was
    if evidence.random() < 0.6:
        policies = [_witnessed(evidence, one) for one in policies]
    tests = random.Random(f"tests {seed}")
    if tests.random() < 0.6:
        test_first_s = tests.choice((1.0, 5.0, 60.0))
        policies = [replace(one, test_first_s=test_first_s) for one in policies]
    others = random.Random(f"others {seed}")
    policies = [_waits(others, one) for one in policies]
    beyond = random.Random(f"observers {seed}")
    if beyond.random() < 0.5:
        policies = [_observed(beyond, one) for one in policies]
    limits = Limits(chance.choice((0, 5, 10, 30)), 900.0, chance.choice((0.0, 0.34)))
    proxies = tuple(p.nodes[-1] for p in policies if len(p.nodes) > 1 and chance.random() < 0.15)
    site = Simulation(
        *policies,
        seed=seed,
        limits=limits,
        luck=_slow(beyond, _luckless_minions(evidence, luck(chance))),
        replicas=chance.random() < 0.7,
        far=chance.random() < 0.5,
        lost_ledger=chance.random() < 0.05,
        redial_s=chance.choice((10.0, 30.0, 60.0)),
        proxies=proxies,
        resolved=chance.random() < 0.7,
    )
    for one in policies:
        _faults(chance, site, one)
        _half_faults(chance, site, one)
        if one.witness_s:
            _starts(evidence, site, one)
    if others.random() < 0.5:
        site.heard = others.random() < 0.7
        for one in policies:
            _others(others, site, one)
        if one.observers_quorum:
            _observers(beyond, site, one)
    _identities(chance, site, policies)
    _people(chance, site, policies)
    if chance.random() < 0.3:
        for _ in range(chance.randint(1, 4)):
            when = chance.uniform(0, SPAN_S)
            down_s = chance.choice((1.0, 20.0, 400.0, 5000.0))
            site.at(when, site.crash, down_s, lost_ledger=chance.random() < 0.1)
    if chance.random() < 0.2:  # the settings leave nodes out, and name them again
        nodes = [n for one in policies for n in one.nodes]
        some = (
            tuple(chance.sample(nodes, chance.randint(1, min(3, len(nodes) - 1))))
            if len(nodes) > 1
            else ()
        )
        when = chance.uniform(0, SPAN_S)
        site.at(when, site.crash, 5.0, without=some)
        site.at(when + chance.choice((30.0, 300.0)), site.crash, 5.0)
    if chance.random() < 0.1:
        site.at(chance.uniform(0, SPAN_S), site.freeze, chance.choice((2.0, 15.0, 100.0)))
    if chance.random() < 0.1:
        when = chance.uniform(0, SPAN_S)
        site.at(when, site.read_cache, False)
        site.at(when + chance.choice((10.0, 200.0)), site.read_cache, True)
    return site


def _witnessed(chance: random.Random, one: Policy) -> Policy:
    """The same settings, and minions that are asked what they see."""
    return replace(
        one,
        witness_s=chance.choice((1.0, 5.0, 5.0)),
        dead_witnessed_s=chance.choice((0.0, 1.0, 5.0)),
        starting_s=chance.choice((20.0, 60.0, 600.0)),
    )


def _waits(chance: random.Random, one: Policy) -> Policy:
    """The same settings, and how long other people's jobs are waited for."""
    return replace(
        one,
        foreign_grace_s=chance.choice((0.0, 5.0, 30.0)),
        foreign_most_s=chance.choice((0.0, 20.0, 100.0, 900.0)),
    )


def _others(chance: random.Random, site: Simulation, one: Policy) -> None:
    """People who apply states and restart databases, some without end, some so that the master hears but half of it."""
    for _ in range(chance.choice((0, 2, 5, 10))):
        when = chance.uniform(5, SPAN_S)
        for node in chance.sample(one.nodes, chance.choice((1, 1, len(one.nodes)))):
            site.at(
                when, site.work, node, chance.choice((2.0, 15.0, 60.0, 400.0, None)),
                restarts=chance.random() < 0.5, heals=chance.random() < 0.3,
                begins_unheard=chance.random() < 0.2, ends_unheard=chance.random() < 0.2,
            )  # fmt: skip
    for _ in range(chance.choice((0, 0, 1, 3))):
        takes_s = chance.choice((10.0, 100.0, 1000.0))
        site.at(chance.uniform(5, SPAN_S), site.dump, chance.choice(one.nodes), takes_s)
    if chance.random() < 0.3:  # somebody restarts one node after the other, again and again
        when = chance.uniform(5, SPAN_S)
        for number in range(chance.randint(2, 5) * len(one.nodes)):
            node = one.nodes[number % len(one.nodes)]
            site.at(when + 6.0 * number, site.work, node, 4.0, restarts=True)


def _observed(chance: random.Random, one: Policy) -> Policy:
    """The same settings, and observers; something is done about a node that cannot be reached, too."""
    steps = (Step(Action.RESTART), Step(Action.HIGHSTATE))
    return replace(
        one,
        observers_quorum=chance.choice((1, 2, 2, 3)),
        observers_s=chance.choice((1.0, 3.0)),
        observers_always=chance.random() < 0.3,
        escalation={**one.escalation, Fault.UNREACHABLE: steps},
    )


def _observers(chance: random.Random, site: Simulation, one: Policy) -> None:
    """Some tell the truth, some are cut off, some lie, some are gone; and that changes."""
    kinds = ("true", "true", "true", "cut off", "lies", "gone")
    names = [f"app{n}" for n in range(chance.choice((0, 1, 3, 3, 5)))]
    site.at(0.0, site.observe, one.name, **{name: chance.choice(kinds) for name in names})
    for _ in range(chance.choice((0, 1, 3))):
        when = chance.uniform(5, SPAN_S)
        site.at(when, site.observe, one.name, **{name: chance.choice(kinds) for name in names})
    for _ in range(chance.choice((1, 2, 4))):  # cut off from this master, and serving all others
        node, when = chance.choice(one.nodes), chance.uniform(5, SPAN_S)
        fault, serves = chance.choice((Fault.UNREACHABLE, Fault.HUNG)), chance.random() < 0.6
        site.at(
            when, site.fail, node, fault, (Action.RESTART,), serves=serves,
            for_s=chance.choice((30.0, 100.0, 300.0, None)),
        )  # fmt: skip


def _slow(chance: random.Random, luck: Luck) -> Luck:
    if luck == Luck():
        return luck
    return replace(luck, belated=chance.choice((0.0, 0.0, 0.02, 0.3)))


def _luckless_minions(chance: random.Random, luck: Luck) -> Luck:
    if luck == Luck():
        return luck
    return replace(
        luck,
        mute=chance.choice((0.0, 0.2, 0.8)),
        confused=chance.choice((0.0, 0.0, 0.3)),
        bare=0.3,
        stuck=chance.choice((0.0, 0.2)),
    )


def _starts(chance: random.Random, site: Simulation, one: Policy) -> None:
    """Processes that load for long, and databases that cannot start for a reason that their minion sees."""
    for _ in range(chance.choice((0, 1, 2, 4))):
        node, when = chance.choice(one.nodes), chance.uniform(5, SPAN_S)
        if chance.random() < 0.5:
            for_s = chance.choice((15.0, 100.0, 700.0))
            site.at(when, site.fail, node, Fault.DEAD, for_s=for_s, loads=True)
        else:
            cure = chance.choice((Action.RESTART, Action.HIGHSTATE, None))
            site.at(
                when, site.fail, node, Fault.DEAD, () if cure is None else cure,
                for_s=chance.choice((None, 300.0)), ground=chance.choice(tuple(Ground)),
            )  # fmt: skip


def _faults(chance: random.Random, site: Simulation, one: Policy) -> None:
    kinds = [f for f, weight, _ in NODE_FAULTS for _ in range(weight)]
    helps = {f: cures for f, _, cures in NODE_FAULTS}
    for _ in range(chance.randint(4, 20)):
        when, fault = chance.uniform(5, SPAN_S), chance.choice(kinds)
        cure = chance.choice(helps[fault])
        for_s = chance.choice((None, None, 3.0, 60.0))
        if cure is None and for_s is None and chance.random() < 0.8:
            for_s = chance.choice((30.0, 300.0))
        many = chance.random() < 0.25
        for node in chance.sample(
            one.nodes, chance.randint(2, len(one.nodes)) if many and len(one.nodes) > 1 else 1
        ):
            spread = chance.choice((0.0, 3.0))
            site.at(
                when + spread * chance.random(), site.fail, node, fault,
                cured_by=() if cure is None else cure, nth=chance.choice((1, 1, 1, 2, 3)), for_s=for_s,
            )  # fmt: skip
    if chance.random() < 0.15:
        node, when = chance.choice(one.nodes), chance.uniform(5, SPAN_S)
        for number in range(chance.randint(3, 8)):  # it comes and goes
            site.at(when + 12.0 * number, site.fail, node, Fault.DEAD, Action.RESTART, for_s=5.0)
    if chance.random() < 0.25:
        fault, cured_by = chance.choice(CLUSTER_FAULTS)
        cure = chance.choice(cured_by)
        site.at(
            chance.uniform(5, SPAN_S), site.ail, one.name, fault, cured_by=() if cure is None else cure,
            for_s=chance.choice((30.0, 300.0)), issue="log_write_error" if fault is Fault.ISSUE else "",
        )  # fmt: skip
    site.never_found |= {n for n in one.nodes if chance.random() < 0.2}
    for _ in range(chance.choice((0, 0, 0, 1, 3))):
        node, when = chance.choice(one.nodes), chance.uniform(0, SPAN_S)
        found = chance.choice((Presence.AWAY, Presence.AWAY, Presence.NOT_ACCEPTED))
        site.at(when, site.minion, node, False, found)
        site.at(when + chance.choice((5.0, 20.0, 300.0)), site.minion, node, True)


def _half_faults(chance: random.Random, site: Simulation, one: Policy) -> None:
    for _ in range(chance.choice((0, 0, 1, 3))):
        fault, keeps, helps = chance.choice(HALF_FAULTS)
        cure, keep = chance.choice(helps), chance.choice(keeps)
        for_s = chance.choice((None, 8.0, 60.0, 300.0))
        many = chance.choice((1, 1, 2, len(one.nodes)))
        when, spread = chance.uniform(5, SPAN_S), chance.choice((0.0, 3.0, 20.0))
        for node in chance.sample(one.nodes, min(many, len(one.nodes))):
            site.at(
                when + spread * chance.random(), site.fail, node, fault,
                cured_by=() if cure is None else cure, for_s=for_s, serves=True, keeps=keep,
            )  # fmt: skip
            if chance.random() < 0.3:  # it dies meanwhile
                dies = when + spread + chance.uniform(0.0, 60.0)
                site.at(dies, site.fail, node, Fault.DEAD, Action.RESTART)
    if chance.random() < 0.08:
        when = chance.uniform(0, SPAN_S)
        site.at(when, site.forbid, one.name, True)
        site.at(when + chance.choice((20.0, 300.0)), site.forbid, one.name, False)
    if chance.random() < 0.1:
        site.at(chance.uniform(0, SPAN_S), site.restart_minion, chance.choice(one.nodes))
    if one.canary and chance.random() < 0.1:
        when = chance.uniform(0, SPAN_S)
        site.at(when, site.drop_table, one.name, True)
        site.at(when + chance.choice((20.0, 300.0)), site.drop_table, one.name, False)


def _identities(chance: random.Random, site: Simulation, policies: list[Policy]) -> None:
    """Addresses that lead elsewhere, names that two servers have; and servers that die meanwhile."""
    nodes = [n for one in policies for n in one.nodes]
    for _ in range(chance.choice((0, 0, 0, 0, 1, 2))):
        when, for_s = chance.uniform(20, SPAN_S), chance.choice((None, 20.0, 200.0))
        kind = chance.choice(("one", "swap", "swap", "name", "stranger"))
        where = chance.choice(policies)
        some = list(where.nodes if chance.random() < 0.7 else nodes)
        if kind == "stranger":
            site.at(when, site.stranger, where.name, f"{where.nodes[0]}_srv", for_s)
            continue
        if len(some) < 2:
            continue
        first, second = chance.sample(some, 2)
        if kind == "name":
            site.at(when, site.name, first, f"{second}_srv", for_s)
        else:
            site.at(when, site.swap if kind == "swap" else site.mislead, first, second, for_s)
        for node in (first, second):
            if chance.random() < 0.4:
                dies = when + chance.uniform(-10.0, 100.0)
                site.at(dies, site.fail, node, Fault.DEAD, Action.RESTART)


def _people(chance: random.Random, site: Simulation, policies: list[Policy]) -> None:
    def on_some_incident(verb: Verb) -> None:
        ids = [i.id for c in site.state.clusters.values() for i in c.incidents]
        if ids:
            site.order(verb, incident=site.random.choice(ids))

    approving = any(p.mode is Mode.APPROVE for p in policies)
    if approving or chance.random() < 0.3:
        for _ in range(chance.randint(1, 30 if approving else 6)):
            when, verb = chance.uniform(0, SPAN_S), chance.choice(tuple(Verb))
            if approving and chance.random() < 0.7:
                verb = Verb.APPROVE
            where = chance.choice(policies).name
            if verb in (Verb.ACK, Verb.APPROVE, Verb.REJECT):
                site.at(when, on_some_incident, verb)
            elif verb is Verb.PAUSE:
                for_s = chance.choice((10.0, 200.0))
                everywhere = chance.random() < 0.3
                site.at(when, site.order, verb, cluster=None if everywhere else where, for_s=for_s)
            elif verb is Verb.LOCK:
                nodes = site.policies[where].nodes
                some = () if chance.random() < 0.5 else (chance.choice(nodes),)
                site.at(when, site.order, verb, cluster=where, nodes=some, reason="so")
            else:
                site.at(when, site.order, verb, cluster=where)
    if chance.random() < 0.4:
        for _ in range(chance.randint(1, 5)):
            one = chance.choice(policies)
            action = chance.choice(("highstate", "highstate", "restart", "start", "nonsense"))
            some = () if chance.random() < 0.6 else (chance.choice(one.nodes),)
            site.at(chance.uniform(0, SPAN_S), site.ask, one.name, action, some)
    if chance.random() < 0.2:
        one = chance.choice(policies)
        site.at(chance.uniform(0, SPAN_S), site.forge, f"{one.name}-1.1")


def check_end(site: Simulation) -> None:
    """After a long calm: nothing in flight, nothing open without a lock or a word about what it waits for."""
    now = site.now
    if not site.up:
        raise Broken("life", now, "the healer never came back")
    for cluster in site.state.clusters.values():
        policy = site.policies[cluster.name]
        for attempt in (cluster.attempt, cluster.look):
            if attempt is not None and now - attempt.decided_at > 2000:
                raise Broken("life", now, f"{attempt.id} has been in flight for ever")
        for node in cluster.nodes:
            ill = site.ill.get(node)
            if ill is None or now - max(ill.since, site.state.started_at) < 300.0:
                continue
            if ill.fault is Fault.STALLED and site.unsaid(cluster.name, node):
                continue
            if not any(tells(i, ill) and node in i.nodes for i in cluster.incidents):
                raise Broken("life", now, f"{node} is {ill.fault.value}, and no incident tells")
        for incident in cluster.incidents:
            since = max(incident.changed_at, site.state.started_at)  # nobody heals while it is down
            if incident.phase is Phase.LOCKED or now - since < 2000.0:
                continue
            sick = [n for n in incident.nodes if n in site.ill]
            if incident.fault in CLUSTER_WIDE:  # told by nodes that answer, if there is one
                ailing = site.ailing.get(cluster.name)
                told = len(sick) < len(incident.nodes)
                ill = told and ailing is not None and ailing.fault is incident.fault
            else:
                # What is told of a node that refuses is the incident of the name it has: dead, or cut off.
                ill = any(
                    tells(incident, site.ill[n])
                    and (incident.fault is Fault.CUT_OFF)
                    == (cluster.nodes[n].fault is Fault.CUT_OFF)
                    for n in sick
                )
            # Who died while another address led to it cannot prove who it is: a person must.
            waiting = any(
                (o.phase is Phase.LOCKED or o.fault is Fault.MISTAKEN)
                and set(o.nodes) & set(incident.nodes)
                for o in cluster.incidents
            )
            # Tables that lack a node of their cluster stay closed, whatever closed them at first.
            closed = incident.fault is Fault.UNAVAILABLE
            waiting = waiting or (closed and any(n in site.ill for n in cluster.nodes))
            if incident.fault is Fault.MISTAKEN:
                _check_identity(site, incident)
            elif not ill and not sick and not waiting:
                raise Broken("life", now, f"{incident.id} stays open, and nothing is wrong")
            step = incident.steps[incident.step] if incident.step < len(incident.steps) else None
            mode = min(policy.mode, (step and step.mode) or policy.mode, key=list(Mode).index)
            waits = {"storm", "one at a time", "quorum", "confirmed", "locked", "limits", "look"}
            waits |= {"flapping", "blind", "identity", "settings", "forbidden", "observers"}
            held = set(incident.held)
            if mode is Mode.AUTO and step and ill and not waiting and not held & waits:
                why = f"{incident.id} ({incident.called}) is {incident.phase.value}"
                raise Broken("life", now, f"{why}, held by {incident.held}: {incident.why}")


def _check_identity(site: Simulation, incident: Incident) -> None:
    """Every address leads home by now: who answers is in doubt no longer, unless a person had taken it as it was."""
    strange = site.figures.crashes or any(site.watch.book.acks.get(n) for n in site.home)
    if not strange and not any(n in site.ill for n in site.home):
        raise Broken("life", site.now, f"{incident.id} stays, and every address leads home")


def play(seed: int) -> Simulation:
    """One scenario to its end. Raises Broken."""
    site = scenario(seed)
    site.run(until=SPAN_S)
    site.calm_down()
    check_end(site)
    return site


@dataclass
class Sum:
    """What a batch of scenarios amounts to."""

    scenarios: int = 0
    incidents: int = 0
    events: int = 0
    fired: int = 0
    on_nodes: int = 0
    needless: int = 0
    locked: int = 0
    crashes: int = 0
    collisions: int = 0
    refused: int = 0
    forged: int = 0
    mistaken: int = 0
    cut_off: int = 0
    repaired: dict[str, list[float]] = field(default_factory=dict)
    broken: list[tuple[int, str]] = field(default_factory=list)

    def add(self, site: Simulation) -> None:
        figures = site.figures
        self.scenarios += 1
        for name in ("incidents", "events", "on_nodes", "needless", "locked", "crashes", "collisions", "refused", "forged", "mistaken", "cut_off"):  # fmt: skip
            setattr(self, name, getattr(self, name) + getattr(figures, name))
        self.fired += len(figures.fired)
        for fault, seconds in figures.repaired:
            self.repaired.setdefault(fault.value, []).append(seconds)

    def merge(self, other: Sum) -> None:
        for name, value in vars(other).items():
            if name == "repaired":
                for fault, seconds in value.items():
                    self.repaired.setdefault(fault, []).extend(seconds)
            else:
                setattr(self, name, getattr(self, name) + value)


def batch(first: int, count: int) -> Sum:
    """So many scenarios, one after the other."""
    total = Sum()
    for seed in range(first, first + count):
        try:
            total.add(play(seed))
        except Exception as exc:  # a crash of the core is as bad as a broken rule
            total.broken.append((seed, f"{type(exc).__name__}: {exc}"))
    return total


def simulate(count: int, seed: int, workers: int) -> Iterator[Sum]:
    """Batches, until there were so many incidents."""
    size = max(1, min(50, count // 8))
    with ProcessPoolExecutor(workers) as pool:
        waiting, done, first = set(), 0, seed
        while done < count:
            while len(waiting) < 2 * workers:
                waiting.add(pool.submit(batch, first, size))
                first += size
            ready = next(as_completed(waiting))
            waiting.discard(ready)
            one = ready.result()
            done += one.incidents + len(one.broken)
            yield one
        for future in waiting:
            future.cancel()


def report(total: Sum, seconds: float) -> Iterator[str]:
    yield (
        f"{total.incidents} incidents in {total.scenarios} scenarios, {total.events} events, {seconds:.0f} s: "
        f"{total.events / seconds:.0f} events/s"
    )
    yield (
        f"{total.fired} attempts, {total.locked} locks, {total.crashes} crashes of the healer, "
        f"{total.refused} remediation events refused, {total.collisions} jobs begun where another still ran"
    )
    yield (
        f"{total.forged} results and looks were lies, {total.cut_off} incidents of nodes that were cut off, "
        f"{total.mistaken} of servers that were mistaken"
    )
    share = total.needless / total.on_nodes if total.on_nodes else 0.0
    yield f"needless: {total.needless} of {total.on_nodes} actions on nodes ({share:.1%})"
    yield f"{'time to repair':14} {'count':>7} {'median':>8} {'p90':>8} {'p99':>8} {'max':>8}"
    for fault, times in sorted(total.repaired.items()):
        cuts = quantiles(times, n=100, method="inclusive") if len(times) > 1 else times * 99
        told = "".join(f" {t:6.1f} s" for t in (cuts[49], cuts[89], cuts[98], max(times)))
        yield f"{fault:14} {len(times):7}{told}"
    yield f"violations: {len(total.broken)}"
    kinds = Counter(why.partition(" at ")[0] for _, why in total.broken)
    for seed, why in sorted(total.broken)[:20]:
        yield f"  seed {seed}: {why}"
    if kinds:
        yield f"  {dict(kinds)}"


def _say(line: object) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5_000, help="incidents")
    parser.add_argument("--seed", type=int, default=0, help="of the first scenario")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    began, total, told = time.monotonic(), Sum(), 0
    for one in simulate(options.count, options.seed, options.workers):
        total.merge(one)
        for number, why in one.broken:
            _say(f"seed {number}: {why}")
        if total.incidents >= told + 1000:
            told = total.incidents
            _say(f"{total.incidents} incidents, {len(total.broken)} violations")
    _say("\n".join(report(total, time.monotonic() - began)))
    return 1 if total.broken else 0


if __name__ == "__main__":
    sys.exit(main())
