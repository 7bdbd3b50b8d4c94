"""Would the tests notice? One-line changes of the core, each of which breaks a rule, and whether a test fails then.

``python -m tests.proofs.mutations`` copies sources and tests to a temporary folder, breaks one rule at a time there
and runs the fast tests of the core against the copy. A mutation that survives is a rule that nothing proves; one
whose old text its function does not hold exactly once says that this table has been left behind. Both end with 1.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.proofs import golden

ROOT = Path(__file__).resolve().parents[2]
CORE = Path("src/saltext_selfheal/healing")
#: The quickest to fail first; the last three take a minute.
TESTS = (
    "tests/proofs/test_golden.py",
    "tests/unit/test_canary.py",
    "tests/unit/test_cut_off.py",
    "tests/unit/test_identity.py",
    "tests/unit/test_quorum.py",
    "tests/unit/test_health.py",
    "tests/unit/test_corners.py",
    "tests/unit/test_start.py",
    "tests/unit/test_witness_word.py",
    "tests/unit/test_forced.py",
    "tests/unit/test_tested.py",
    "tests/unit/test_presence.py",
    "tests/unit/test_foreign.py",
    "tests/unit/test_observers.py",
    "tests/unit/test_strain.py",
    "tests/unit/test_forbidden.py",
    "tests/unit/test_step.py",
    "tests/unit/test_commands.py",
)
#: By rule: the test that has killed its mutation last. It is run first, which saves minutes; if it passes, all are run.
KILLERS = Path(__file__).with_name("killers.json")
PATIENCE_S = 600.0  #: a mutation that makes the tests run for ever is noticed as well


@dataclass(frozen=True)
class Mutation:
    """``rule`` says what would be broken: I1 to I10, a gate, or a rule of an incident's life.

    ``at`` is the function or table of the core that holds it, as ``module.name`` where several have that name. So a rule
    may move to another file.
    """

    rule: str
    at: str
    old: str
    new: str


MUTATIONS: tuple[Mutation, ...] = (
    # ------------------------------------------------------------ I1: one attempt at a time, and whom it names
    Mutation(
        "I1: two attempts in flight (gate in flight)",
        "gates.in_flight",
        "    if busy is None:",
        "    if busy is None or busy.incident != intent.incident.id:",
    ),
    Mutation(
        "I1: serving nodes are named together",
        "Sight",
        "        nodes = ready[:1]\n",
        "        nodes = ready\n",
    ),
    Mutation(
        "I1: dead nodes are started one by one",
        "Sight",
        "            nodes = tuple(n for n in ready if self._agreed(n)) or nodes",
        "            pass",
    ),
    Mutation(
        "I1: a roll goes on before the node was seen well",
        "others_wait",
        "    return s.incident.verified and bool(s.untried)",
        "    return bool(s.untried)",
    ),
    Mutation(
        "I1: the first attempt does not wait for those suspected (gate decided)",
        "decided",
        "    if not suspected or now >= opens_at:",
        "    if True:",
    ),
    Mutation(
        "I1: the first attempt waits for those suspected for ever (gate decided)",
        "decided",
        "    if not suspected or now >= opens_at:",
        "    if not suspected:",
    ),
    Mutation(
        "I1: a job that was given up while it ran is forgotten (gate look)",
        "unproven",
        "    if not late.running:\n        return ()",
        "    if True:\n        return ()",
    ),
    Mutation(
        "I1: several nodes that may serve are let through (gate one at a time)",
        "one_at_a_time",
        "    if len(intent.nodes) > 1:",
        "    if len(intent.nodes) > 2:",
    ),
    Mutation(
        "I1: a job that still runs is taken for ended",
        "still_running",
        "    return any(outcome in looks.IDLE for outcome, _ in look.results.values())",
        "    return False",
    ),
    # ------------------------------------------------------------ I2: no majority is taken away
    Mutation(
        "I2: the leaving node counts as staying (gate quorum)",
        "_lost",
        "            then_ready += sure and name not in leaving",
        "            then_ready += sure",
    ),
    Mutation(
        "I2: a replica that is not ready counts as ready (gate quorum)",
        "_lost",
        '            if replica.state != "ready":',
        "            if False:",
    ),
    Mutation(
        "I2: replicas that do not vote count (gate quorum)",
        "_lost",
        "        voters = [r for r in shard.replicas if r.voting]",
        "        voters = list(shard.replicas)",
    ),
    Mutation(
        "I2: half of the replicas is a majority (gate quorum)",
        "_lost",
        "        if 2 * now_ready > len(voters) >= 2 * then_ready:",
        "        if 2 * now_ready > len(voters) > 2 * then_ready:",
    ),
    Mutation(
        "I2: a map from before the last change is believed (gate quorum)",
        "quorum",
        "    if taken <= changed:",
        "    if False:",
    ),
    Mutation(
        "I2: a map of any age is believed (gate quorum)",
        "table_map",
        "    return None if known is None or now - known[0] > health.VIEW_AGE_S else known",
        "    return known",
    ),
    Mutation(
        "I2: without a map, a second node is taken away (gate one at a time)",
        "one_at_a_time",
        "    if others:",
        "    if False:",
    ),
    Mutation(
        "I2: what needs a node that does not answer is not taken for lost (gate quorum)",
        "_lost",
        "            gone = node is not None and agreed_dead(cluster, name, now)",
        "            gone = False",
    ),
    Mutation(
        "I2: a hung node counts as serving (gate quorum)",
        "AWAY",
        "AWAY = frozenset({Fault.DEAD, Fault.HUNG, Fault.UNREACHABLE})",
        "AWAY = frozenset({Fault.DEAD, Fault.UNREACHABLE})",
    ),
    # ------------------------------------------------------------ I3: the budget
    Mutation(
        "a node that is locked, rests or has no budget holds up the others",
        "Sight",
        "        if len(ready) > 1:",
        "        if False:",
    ),
    Mutation(
        "a node without budget locks one that only rests",
        "Sight",
        "            ready = self._passing(gates.OWN) or self._passing((gates.budget,)) or ready",
        "            ready = self._passing(gates.OWN) or ready",
    ),
    Mutation(
        "a node that is locked out keeps the others at their step",
        "Sight",
        "        return self._passing(gates.OWN) if self.step else self.untried",
        "        return self.untried",
    ),
    Mutation(
        "I2: a replica that the healer cannot reach counts as lost (gate quorum)",
        "_lost",
        "            gone = node is not None and agreed_dead(cluster, name, now)",
        "            gone = node is not None and _away(cluster, name, now)",
    ),
    Mutation(
        "I2: a node whose name two servers have is acted on until it is looked at (gate identity)",
        "gates.identity",
        "        if node.server_name in cluster.twins:",
        "        if False:",
    ),
    Mutation(
        "I2: the map of one side of a partition is believed (gate quorum)",
        "quorum",
        "    if cluster.ailment(Seen(Fault.PARTITIONED)):",
        "    if False:",
    ),
    Mutation(
        "I2: a step that breaks nodes rolls on (gate one at a time)",
        "one_at_a_time",
        "node.fault in _BROKEN or (served and not node.well)",
        "served and not node.well",
    ),
    Mutation(
        "I1: an acknowledgement of another lock forgets a job that runs",
        "acknowledge",
        "        replace(one, running=False) if one.attempt.incident == incident.id else one",
        "        replace(one, running=False)",
    ),
    Mutation(
        "I1: a job that runs while its cluster is renamed is forgotten",
        "_with_adrift",
        "        if nodes & set(cluster.nodes)",
        "        if False",
    ),
    Mutation(
        "I1: the second part of a job that comes to a cluster is forgotten",
        "_with_adrift",
        "        (one, {n for n in one.attempt.nodes if (one.attempt.id, n) not in known}) for one in adrift",
        "        (one, set(one.attempt.nodes) if one.attempt.id not in {k for k, _ in known} else set())"
        " for one in adrift",
    ),
    Mutation(
        "I1: a job on a node that is taken out and put back is forgotten",
        "_adrift",
        "        *(one for one in old.adrift if now - one.ended_at < RUNS_AT_MOST_S),",
        "",
    ),
    Mutation(
        "I5: a person's lock ends by a change of the settings",
        "_still_named",
        "        if not kept.nodes and not kept.by_hand:  # a person's lock ends by ``ack`` alone",
        "        if not kept.nodes:",
    ),
    Mutation(
        "I5: a pause that was lifted comes back with its cluster",
        "begin",
        "            own = old.pause if old.pause and not old.pause.everywhere else None",
        "            own = old.pause",
    ),
    Mutation(
        "I6: two looks for one parted job have one name",
        "looks.go_on",
        'f"{nodes[0]}-{one.looks + 1}"',
        'f"{one.looks + 1}"',
    ),
    Mutation(
        "a busy minion beside another is asked for ever",
        "hold",
        "    since = s.incident.busy_since if set(names) <= gates.ORDINARY else None",
        '    since = s.incident.busy_since if names == ["after"] else None',
    ),
    Mutation(
        "whom a step never came to begins at the next one",
        "next_step",
        "    left = () if s.incident.fault in CLUSTER_WIDE else left",
        "    left = ()",
    ),
    Mutation(
        "I3: a node that is taken out and put back has a new budget",
        "begin",
        "                former=_former(old, policy, now),",
        "                former={},",
    ),
    Mutation(
        "I3: a busy minion pays",
        "verify",
        "    cluster, incident, effects = _finish(s, outcome, tell_results(attempt), idle, looked=looked)",
        "    cluster, incident, effects = _finish(s, outcome, tell_results(attempt), looked=looked)",
    ),
    Mutation(
        "I5: a pause of everything misses a cluster that comes back",
        "begin",
        "            pauses = [p for p in (own, *everywhere) if p]",
        "            pauses = [p for p in (own,) if p]",
    ),
    Mutation(
        "I5: an approval of long ago is taken",
        "take_command",
        "    if age_s >= gates.APPROVED_FOR_S and command.verb in (Verb.APPROVE, Verb.ACK):",
        "    if False:",
    ),
    Mutation(
        "I5: closed tables are no storm (gate storm)",
        "gates._ill",
        "    return lately and any(a.seen.fault is not Fault.ISSUE for a in cluster.ailments)",
        "    return False",
    ),
    Mutation(
        "closed tables that nobody sees any more are a storm for ever (gate storm)",
        "gates._ill",
        "    return lately and any(a.seen.fault is not Fault.ISSUE for a in cluster.ailments)",
        "    return any(a.seen.fault is not Fault.ISSUE for a in cluster.ailments)",
    ),
    Mutation(
        "I9: what nobody has looked at has failed",
        "did_not_help",
        "    return all(s.seen_since(n, s.incident.acted_at) for n in s.incident.turn.acting)",
        "    return True",
    ),
    Mutation(
        "I9: a partition makes closed tables well",
        "_complaints",
        "    if closed:",
        "    if closed and not apart:",
    ),
    Mutation(
        "I6: a lock for closed tables outlives them",
        "_gone",
        "    if incident.phase is Phase.LOCKED and incident.fault in CLUSTER_WIDE:",
        "    if False:",
    ),
    Mutation(
        "a late result is followed by the same step at once",
        "_just_acted_on",
        "        until = max(one.not_before, now + policy.verify_s)",
        "        until = now",
    ),
    Mutation(
        "a repeated step does not back off",
        "next_step",
        "    not_before = s.now + escalation.rest_s(s.policy, again - 1) if again else 0.0",
        "    not_before = 0.0",
    ),
    Mutation(
        "another issue is taken for a relapse",
        "open_it",
        "        if r.node in nodes and r.seen == incident.cause and s.now - r.at < s.policy.relapse_s",
        "        if r.node in nodes and r.seen.fault is incident.fault and s.now - r.at < s.policy.relapse_s",
    ),
    Mutation(
        "I3: attempts are not paid for",
        "act",
        "spent=(*budgets.recent(nodes[n], s.policy, s.now), s.now),",
        "spent=budgets.recent(nodes[n], s.policy, s.now),",
    ),
    Mutation(
        "I3: a node that moves to another cluster has a new budget",
        "_paid",
        "        spent=tuple(sorted(spent.elements())),",
        "        spent=(),",
    ),
    Mutation(
        "I3: an acknowledgement frees the whole budget",
        "acknowledge",
        "                spent = paid[len(paid) - policy.budget_attempts + 1 :]",
        "                spent = ()",
    ),
    Mutation(
        "I3: one attempt more than the budget and the limits (gate budget)",
        "_left_by",
        "    if len(paid) < allowed:",
        "    if len(paid) <= allowed:",
    ),
    Mutation(
        "I3: requests may spend what the healing needs (gate limits)",
        "share",
        "    return most // 2 if asked else most",
        "    return most",
    ),
    Mutation(
        "I3: what was assumed to have run is paid for twice",
        "_came_after_all",
        "        if n in cluster.nodes and attempt.decided_at not in cluster.nodes[n].spent",
        "        if n in cluster.nodes",
    ),
    Mutation(
        "I3: a removed cluster renews the limits",
        "begin",
        "            clusters[first.name] = replace(first, acts=(*first.acts, *old.acts))",
        "            clusters[first.name] = replace(first, acts=first.acts)",
    ),
    Mutation(
        "I5: an approval is good for every node",
        "approval",
        "        if now < since + APPROVED_FOR_S and set(intent.nodes) <= set(given.nodes):",
        "        if now < since + APPROVED_FOR_S:",
    ),
    Mutation(
        "I5: a yes to one attempt is one to the next",
        "take_command",
        "    if command.attempt not in (None, incident.attempts + 1):",
        "    if False:",
    ),
    Mutation(
        "I9: an incident ends by the looks of a connection that was open before its job",
        "_well_again",
        "        and all(health.seen_after(s.cluster, i, n, i.acted_at) for n in i.turn.acting)",
        "",
    ),
    Mutation(
        "I2: a death that was contradicted between two dials need not last anew",
        "health.heard",
        "    if not (by and noticed and node.fault is Fault.DEAD):",
        "    if True:",
    ),
    Mutation(
        "I2: a node that answers over an open connection is dead",
        "word",
        "    if node.answers:",
        "    if False:",
    ),
    Mutation(
        "I2: who answers over an open connection tells nobody who it is",
        "health._still_answers",
        "    if own and node.server_id is None:",
        "    if False:",
    ),
    Mutation(
        "I6: what cannot be seen is verified for ever",
        "cannot_be_verified",
        "    return not all(map(s.seen_after, s.incident.turn.acting))",
        "    return False",
    ),
    Mutation(
        "I1: a roll goes on past a node that nobody has looked at",
        "gates.fresh",
        "        if acted_at and not health.seen_since(cluster, incident, n, acted_at)",
        "        if False",
    ),
    Mutation(
        "a stranger's wish stands for everybody's",
        "_host",
        "            or (i.fault is None and wanted <= set(i.nodes) and same(i))",
        "            or i.fault is None",
    ),
    Mutation(
        "what was asked days ago is done",
        "_impossible",
        "    if age_s >= REQUEST_AGE_S:",
        "    if False:",
    ),
    Mutation(
        "I3: a job that never ran is paid for",
        "_finish",
        "            if outcome is Outcome.LOST or n in idle",
        "            if n in idle",
    ),
    Mutation(
        "I3: a spent budget does not lock",
        "budget_spent",
        "    return {_BUDGET} <= names <= {_BUDGET, _APPROVAL, _TESTED}",
        "    return False",
    ),
    # ------------------------------------------------------------ I4: the cooldown
    Mutation(
        "I4: the cooldown counts from the attempt's start",
        "_finish",
        "    until = s.now + escalation.rest_s(s.policy, s.incident.relapses)",
        "    until = attempt.decided_at + escalation.rest_s(s.policy, s.incident.relapses)",
    ),
    Mutation(
        "I4: no node rests (gate cooldown)",
        "cooldown",
        "        if node.cooldown_until > now and node.cooldown_incident != intent.incident.id",
        "        if False",
    ),
    Mutation(
        "I4: a node rests between the steps of one incident (gate cooldown)",
        "cooldown",
        "        if node.cooldown_until > now and node.cooldown_incident != intent.incident.id",
        "        if node.cooldown_until > now",
    ),
    Mutation(
        "I4: relapses do not double the rest",
        "rest_s",
        "    return min(policy.cooldown_max_s, policy.cooldown_min_s * float(2**relapses))",
        "    return min(policy.cooldown_max_s, policy.cooldown_min_s)",
    ),
    # ------------------------------------------------------------ I5: when nothing may be done
    Mutation(
        "I5: shadow acts (gate mode)",
        "mode",
        "    if effective in (Mode.AUTO, Mode.APPROVE):",
        "    if effective in (Mode.AUTO, Mode.APPROVE, Mode.SHADOW):",
    ),
    Mutation(
        "I5: a step may be bolder than its cluster (gate mode)",
        "mode_of",
        "    return min(policy.mode, step.mode, key=order.index)",
        "    return step.mode or policy.mode",
    ),
    Mutation(
        "I5: acts without approval (gate approval)",
        "approval",
        "    if mode_of(policy, intent.step) is not Mode.APPROVE:",
        "    if True:",
    ),
    Mutation(
        "I5: an approval never expires (gate approval)",
        "approval",
        "        since = max(given.at, incident.acted_at + policy.verify_s if incident.turn.tried else 0.0)",
        "        since = now",
    ),
    Mutation(
        "I5: an approval holds for every later step (gate approval)",
        "approval",
        "    if given and given.step == incident.step:",
        "    if given:",
    ),
    Mutation(
        "I5: acts while paused (gate paused)",
        "paused",
        "    if pause is None or pause.until <= now:",
        "    if True:",
    ),
    Mutation(
        "I5: a shorter pause shortens a longer one",
        "pause_clusters",
        "        if old is not None and old.until >= new.until:",
        "        if False:",
    ),
    Mutation(
        "I5: acts at once after a start (gate warm-up)",
        "warm_up",
        "    ready = now >= opens_at and polls >= WARM_UP_POLLS",
        "    ready = polls >= WARM_UP_POLLS",
    ),
    Mutation(
        "I5: acts although it cannot trust its eyes (gate blind)",
        "gates.blind",
        "    if state.blind:",
        "    if False:",
    ),
    Mutation(
        "I5: takes its own blindness for the databases' death",
        "health.blind",
        "    if nodes and all(node.fault is Fault.UNREACHABLE for node in nodes):",
        "    if False:",
    ),
    Mutation(
        "I5: acts on a node that comes and goes (gate flapping)",
        "flapping",
        "    if not restless:",
        "    if True:",
    ),
    Mutation(
        "I5: the healer's own work counts as flapping",
        "observe",
        "    changes = node.changes if acted_on else _changes(node, fault, policy, now)",
        "    changes = _changes(node, fault, policy, now)",
    ),
    Mutation(
        "I5: acts on locked nodes (gate locked)",
        "locked",
        "        if other.by_hand or other.fault is not None or requested:",
        "        if requested:",
    ),
    Mutation(
        "I5: a person's lock does not hold (gate locked)",
        "locked",
        "        if other.by_hand or other.fault is not None or requested:",
        "        if other.fault is not None or requested:",
    ),
    Mutation(
        "I5: acts in a storm (gate storm)",
        "storm",
        "    few = not share or len(clusters) < 3 or ill <= share * len(clusters)",
        "    few = True",
    ),
    Mutation(
        "I5: two of two clusters are a storm (gate storm)",
        "storm",
        "    few = not share or len(clusters) < 3 or ill <= share * len(clusters)",
        "    few = not share or ill <= share * len(clusters)",
    ),
    Mutation(
        "I5: acts on what was seen long ago (gate fresh)",
        "gates.fresh",
        """    return Shut(f"not seen lately: {', '.join(old)}") if old else""",
        "    return",
    ),
    Mutation(
        "I5: acts on what is not confirmed (gate confirmed)",
        "gates.confirmed",
        "    if doubtful:",
        "    if False:",
    ),
    Mutation(
        "I5: acts on what nobody has seen yet (gate confirmed)",
        "gates.confirmed",
        "            return Shut(f\"not probed yet: {', '.join(unseen)}\")",
        "            pass",
    ),
    Mutation(
        "I5: a fault is believed at its first sight",
        "observe",
        "        confirmed=lasted,",
        "        confirmed=fault is not None,",
    ),
    Mutation(
        "a step does not wait for its time (gate after)",
        "after",
        "    opens_at = max(intent.incident.opened_at + intent.step.after_s, intent.incident.not_before)",
        "    opens_at = intent.incident.not_before",
    ),
    # ------------------------------------------------------------ I6: every end is told, and told once
    Mutation(
        "I6: attempts have no terminal record",
        "_finish",
        "    ended: tuple[Effect, ...] = (Finish(attempt, outcome, why),)",
        "    ended: tuple[Effect, ...] = ()",
    ),
    Mutation(
        "I6: a minion's second result replaces its first",
        "looks.heard",
        "    if event.node not in attempt.nodes or event.node in attempt.results:",
        "    if event.node not in attempt.nodes:",
    ),
    Mutation(
        "I6: the result of a minion that was not named counts",
        "looks.heard",
        "    if event.node not in attempt.nodes or event.node in attempt.results:",
        "    if event.node in attempt.results:",
    ),
    Mutation(
        "I6: a late result is recorded again and again",
        "_late_result",
        "    if event.node not in looks.owed(attempt) or event.node in late.refuted:",
        "    if event.node in late.refuted:",
    ),
    Mutation(
        "I1: a result that a look has refuted is believed when it is read again",
        "_late_result",
        "    if event.node not in looks.owed(attempt) or event.node in late.refuted:",
        "    if event.node not in looks.owed(attempt):",
    ),
    Mutation(
        "I6: a lock is not told again after a start",
        "_begin_anew",
        "if i.phase is Phase.LOCKED",
        "if False",
    ),
    Mutation(
        "I6: an incident stays where the last step has failed",
        "no_step_left",
        "    return s.step is None and bool(s.incident.steps) and bool(s.afflicted)",
        "    return False",
    ),
    # ------------------------------------------------------------ I7: the target
    Mutation(
        "I7: an empty target is a target (gate target)",
        "target",
        "    if not intent.nodes:",
        "    if False:",
    ),
    Mutation(
        "I7: a minion outside the pattern is a target (gate target)",
        "target",
        "        n for n in intent.nodes if n not in policy.nodes or not fnmatchcase(n, policy.minions)",
        "        n for n in intent.nodes if n not in policy.nodes",
    ),
    Mutation(
        "I7: an attempt keeps a node that has left the settings",
        "_still_named",
        "        attempt = _on(attempt, named)",
        "        pass",
    ),
    Mutation(
        "I7: a request may name foreign nodes",
        "_impossible",
        "    foreign = name_foreign(cluster, request.nodes)",
        "    foreign: list[str] = []",
    ),
    # ------------------------------------------------------------ I5: other people's work
    Mutation(
        "I5: somebody's job does not hold an incident (gate foreign)",
        "foreign.foreign",
        "    if not found:",
        "    if True:",
    ),
    Mutation(
        "I5: the grace after somebody's job is not kept (gate foreign)",
        "foreign._until",
        "job.ended_at + grace_s)",
        "job.ended_at)",
    ),
    Mutation(
        "a job of somebody's that never ends holds an incident for ever (gate foreign)",
        "foreign._until",
        "    return most if job.ended_at is None else",
        "    return most + 1e9 if job.ended_at is None else",
    ),
    Mutation(
        "the grace makes a job count for longer than most (gate foreign)",
        "foreign._until",
        "min(most, job.ended_at + grace_s)",
        "job.ended_at + grace_s",
    ),
    Mutation(
        "forged jobs hold an incident for ever (gate foreign)",
        "foreign.foreign",
        "    if now >= latest:",
        "    if False:",
    ),
    Mutation(
        "each hold of others' work counts anew (gate foreign)",
        "deeds.hold",
        "    if foreign_since is None and",
        "    if",
    ),
    Mutation(
        "what an operator forces waits for somebody's job (gate foreign)",
        "foreign.foreign",
        "    if intent.incident.forced:",
        "    if False:",
    ),
    Mutation(
        "jobs are remembered where nobody is waited for (gate foreign)",
        "take_foreign",
        "    if not policy.foreign_most_s or ours(",
        "    if ours(",
    ),
    Mutation(
        "a node on which somebody works holds up the others (gate foreign)",
        "OWN",
        "    foreign,\n",
        "",
    ),
    Mutation(
        "what somebody makes of a node counts as flapping",
        "take_observation",
        " or foreign.at_work(before, policy, now)",
        "",
    ),
    Mutation(
        "the healer waits for its own jobs as for somebody's",
        "foreign.ours",
        "jid == own for",
        "False for",
    ),
    Mutation(
        "a job of somebody's begins again after its end",
        "foreign._begun",
        "    if any(job.jid == event.jid for job in node.foreign):",
        "    if any(job.jid == event.jid for job in node.foreign if job.ended_at is None):",
    ),
    Mutation(
        "jobs of others are remembered without number",
        "foreign._begun",
        "    if len(jobs) > MOST_JOBS:",
        "    if False:",
    ),
    Mutation(
        "a job that still counts is forgotten before one that does not",
        "foreign._begun",
        "if not _counts(job, policy, now)), jobs[0])",
        "if False), jobs[0])",
    ),
    Mutation(
        "a missed end is not learned from the minion",
        "take_told",
        "            job = replace(job, ended_at=now)",
        "            pass",
    ),
    Mutation(
        "a list of jobs that was cut ends a job",
        "take_told",
        "sure and told.all_jobs and",
        "sure and",
    ),
    Mutation(
        "a minion that was asked as a job began ends it",
        "take_told",
        ">= SURE_S",
        "> -1e9",
    ),
    Mutation(
        "a job that its minion names stays ended",
        "take_told",
        "            job = replace(job, ended_at=None)",
        "            pass",
    ),
    Mutation(
        "a job that a minion names does not become known",
        "take_told",
        "        if not ours(state, one.jid):",
        "        if False:",
    ),
    Mutation(
        "the healer's own job becomes somebody's when its minion names it",
        "take_told",
        "        if not ours(state, one.jid):",
        "        if True:",
    ),
    Mutation(
        "while somebody works a minion is not asked again",
        "questions._due",
        "        or foreign.runs(node, policy, now)\n",
        "",
    ),
    Mutation(
        "a list of jobs as long as may be counts as complete",
        "testimony._jobs",
        "== len(found) < MOST_JOBS",
        "== len(found)",
    ),
    Mutation(
        "a backup holds up what is done about a dead node",
        "foreign.foreign",
        "    dead = intent.incident.fault is Fault.DEAD",
        "    dead = False",
    ),
    Mutation(
        "a backup that is not told any more goes on",
        "foreign._listed",
        "    return replace(job, ended_at=None if job.jid in listed else now)",
        "    return job",
    ),
    Mutation(
        "a minion that does not name a backup ends it",
        "take_told",
        "        if job.function == BACKUP:",
        "        if False:",
    ),
    Mutation(
        "a backup counts where it is in doubt whose server that is",
        "take_backups",
        " and not node.doubt",
        "",
    ),
    Mutation(
        "there is a grace after a backup",
        "foreign._until",
        "0.0 if job.function == BACKUP else",
        "",
    ),
    # ------------------------------------------------------------ I7: minions that are gone
    Mutation(
        "I7: a job is sent to a minion that is not connected (gate minion)",
        "presence.missing",
        "    if presence is Presence.AWAY:",
        "    if False:",
    ),
    Mutation(
        "I7: a job is sent to a minion whose key is not accepted (gate minion)",
        "presence.missing",
        "    if presence is Presence.NOT_ACCEPTED:",
        "    if False:",
    ),
    Mutation(
        "what is not known of a minion holds an incident (gate minion)",
        "presence.minion",
        "    if gone:",
        "    if gone or Presence.UNKNOWN in found.values():",
    ),
    Mutation(
        "what was told of a minion counts for ever (gate minion)",
        "presence.known",
        "    if node.minion_at is None or now - node.minion_at > KNOWN_FOR_S:",
        "    if node.minion_at is None:",
    ),
    Mutation(
        "what was told of a minion before a start of the healer counts (gate minion)",
        "forget_health",
        "                minion=NodeState.minion,\n                minion_at=None,\n",
        "",
    ),
    Mutation(
        "a minion of which nothing is told any more stays gone (gate minion)",
        "take_present",
        "minion=event.minions.get(name, Presence.UNKNOWN)",
        "minion=event.minions.get(name, node.minion)",
    ),
    Mutation(
        "a minion that is back waits for something else to happen (gate minion)",
        "step.step",
        "            concerned = [event.cluster]",
        "            concerned = []",
    ),
    Mutation(
        "a node whose minion is gone holds up the others (gate minion)",
        "OWN",
        "    minion,\n",
        "",
    ),
    # ------------------------------------------------------------ I8: only a live attempt is fired, once
    Mutation(
        "I8: a result of another attempt counts for the one in flight",
        "looks.heard",
        "    if attempt is None or attempt.id != event.attempt:",
        "    if attempt is None:",
    ),
    Mutation(
        "I8: an attempt of long ago is fired again",
        "lost",
        "    too_old = s.now - attempt.decided_at >= PUBLISH_AT_ALL_S",
        "    too_old = False",
    ),
    Mutation(
        "I8: an attempt is fired again and again",
        "lost",
        "    return attempt.firings >= FIRINGS or too_old or cause_gone",
        "    return too_old or cause_gone",
    ),
    Mutation(
        "I8: an attempt is fired again although the fault has ended",
        "lost",
        "    return attempt.firings >= FIRINGS or too_old or cause_gone",
        "    return attempt.firings >= FIRINGS or too_old",
    ),
    Mutation(
        "I8: an unreadable job cache proves that a job was not published",
        "conditions._unpublished",
        "    return seen is not None and seen - s.since_start(attempt.fired_at) >= PUBLISH_WITHIN_S",
        "    return s.now - s.since_start(attempt.fired_at) >= PUBLISH_WITHIN_S",
    ),
    # ------------------------------------------------------------ I9: recovered means that the probe says so
    Mutation(
        "I9: what was seen before the job's end is recovery",
        "recovered",
        "        s.seen_after(n) and health.well(s.cluster, s.incident, n) for n in s.incident.turn.acting",
        "        health.well(s.cluster, s.incident, n) for n in s.incident.turn.acting",
    ),
    Mutation(
        "I9: a job's success is recovery",
        "recovered",
        "        s.seen_after(n) and health.well(s.cluster, s.incident, n) for n in s.incident.turn.acting",
        "        s.seen_after(n) for n in s.incident.turn.acting",
    ),
    Mutation(
        "I9: a job's failure leads to the next step though the database is well",
        "seen_faulty",
        "    ill = [n for n in acting if s.shows(n)]",
        "    ill = list(acting)",
    ),
    Mutation(
        "I9: resolved without staying well",
        "_well_again",
        "        s.gone_for_s >= s.policy.stable_s\n",
        "        s.gone_for_s >= 0\n",
    ),
    # ------------------------------------------------------------ I10: a lost ledger
    Mutation(
        "I10: after the ledger was lost no node rests",
        "forgotten",
        "                    cooldown_until=now + policy.cooldown_max_s,",
        "                    cooldown_until=now,",
    ),
    Mutation(
        "I10: after the ledger was lost every budget is full",
        "forgotten",
        "                    spent=(now,) * policy.budget_attempts,",
        "                    spent=(),",
    ),
    # ------------------------------------------------------------ an incident's life
    Mutation(
        "a relapse never gets to the step after the one that had helped",
        "first_step",
        "    if repeated < most:",
        "    if most:",
    ),
    Mutation(
        "a relapse never repeats the step that had helped",
        "first_step",
        "    if repeated < most:",
        "    if repeated > most:",
    ),
    Mutation(
        "I5: a login that no node has ever taken is answered by a highstate (gate settings)",
        "settings",
        "    if suspect is None:",
        "    if suspect is None or intent.incident.id:",
    ),
    Mutation(
        "I3: a step that somebody forbids pays",
        "_idle_nodes",
        "    return frozenset(n for n, (outcome, _) in attempt.results.items() if outcome in looks.IDLE)",
        "    return frozenset(n for n, (outcome, _) in attempt.results.items() if outcome is Outcome.BUSY)",
    ),
    Mutation(
        "a step that somebody forbids is asked for every five seconds",
        "_barred",
        "    return replace(node, bars=(*others, Bar(action, s.now + rest_s, times, result[1])))",
        "    return replace(node, bars=(*others, Bar(action, s.now + BUSY_PAUSE_S, times, result[1])))",
    ),
    Mutation(
        "I3: what a look has seen running is not paid for, if a result says that nothing was done",
        "looks.go_on",
        "                cluster = paid_after_all(cluster, policy, one.attempt, runs, now)",
        "                pass",
    ),
    Mutation(
        "a node on which somebody forbids a step holds up the others (gate forbidden)",
        "OWN",
        "    forbidden,",
        "",
    ),
    Mutation(
        "a request that somebody forbids never expires",
        "expired",
        "    since = max(s.incident.opened_at, acted_at + s.policy.verify_s if acted_at else 0.0)",
        "    since = s.incident.changed_at",
    ),
    Mutation(
        "an incident in which something was done ends because its node shows another fault",
        "superseded",
        "    if s.requested or i.fault in CLUSTER_WIDE or i.turn.visited or i.requests:",
        "    if s.requested or i.fault in CLUSTER_WIDE or i.requests:",
    ),
    Mutation(
        "an incident ends at the first sight of another fault",
        "superseded",
        "    if any(s.now - (node.since or 0.0) < ANOTHER_FOR_S for node in nodes.values()):",
        "    if not nodes:",
    ),
    Mutation(
        "a suspicion is announced while the healer itself restarts the node",
        "take_observation",
        "    if node.fault is not None and (node.confirmed or not acted_on):",
        "    if node.fault is not None:",
    ),
    Mutation(
        "a wrong password is answered by a restart",
        "DEFAULT",
        "    Fault.AUTH: (Step(Action.HIGHSTATE),),",
        "    Fault.AUTH: (Step(Action.RESTART),),",
    ),
    Mutation(
        "a relapse is remembered for ever",
        "open_it",
        "        if r.node in nodes and r.seen == incident.cause and s.now - r.at < s.policy.relapse_s",
        "        if r.node in nodes and r.seen == incident.cause",
    ),
    Mutation(
        "tables have no time to open",
        "_unavailable",
        "            if now - max(node.since, node.restarted_at or 0.0) < policy.settle_s:",
        "            if False:",
    ),
    Mutation(
        "tables of a server that started between two polls have no time to open",
        "_unavailable",
        "            if now - max(node.since, node.restarted_at or 0.0) < policy.settle_s:",
        "            if now - node.since < policy.settle_s:",
    ),
    Mutation(
        "a request is carried out when nobody remembers it",
        "expired",
        "    return s.requested and s.now - since >= REQUEST_AGE_S",
        "    return False",
    ),
    Mutation(
        "what peers say before they can have noticed a death calls it cut off",
        "_cut_off",
        '    return f"{by} is connected to it" if node.word_at - node.refused_at >= NOTICED_S else ""',
        '    return f"{by} is connected to it"',
    ),
    Mutation(
        "a restart is done without the probe's agreement",
        "take_request",
        "    needs = remedies.TABLE[action].needs_probe",
        "    needs = False",
    ),
    Mutation(
        "I5: a source may ask as often as it likes",
        "_too_many",
        "        if len(times) >= most:",
        "        if False:",
    ),
    Mutation(
        "I5: what is forced needs no quorum",
        "quorum",
        "    if harmless(cluster, intent, now):\n        return Open(",
        "    if intent.incident.forced or harmless(cluster, intent, now):\n        return Open(",
    ),
    Mutation(
        "I9: resolved on the job's word",
        "verify",
        "        gone_since=None,  # what was seen while the job ran proves nothing",
        "",
    ),
    Mutation(
        "I3: ack renews the limits",
        "acknowledge",
        "                freed[name] = replace(node, spent=spent)",
        "                freed[name] = replace(node, spent=spent)\n                cluster = replace(cluster, acts=())",
    ),
    Mutation(
        "I3: a job that was written off and came after all is free",
        "_heard_late",
        "    if late.attempt.published_at is None:",
        "    if False:",
    ),
    Mutation(
        "a node that died of an earlier fault's age is believed at first sight",
        "_seen_as",
        "    first = {f: t for f, t in node.seen if fault is not Fault.CUT_OFF or f is not Fault.DEAD}",
        "    first = dict.fromkeys(Fault, node.seen[0][1] if node.seen else now)",
    ),
    # ------------------------------------------------------------ who refuses the master only
    Mutation(
        "I2: a node that others are connected to is dead (gate agreed)",
        "_cut_off",
        "    if not by or node.word_at is None or node.refused_at is None:",
        "    if True:",
    ),
    Mutation(
        "I2: a connection that answers is no sign of life",
        "_cut_off",
        "    if seen.answers:\n        return",
        "    if False:\n        return",
    ),
    Mutation(
        "I2: nobody is asked before a node that refuses counts as dead (gate agreed)",
        "word",
        "    if may_ask and now < since + WORD_WITHIN_S:",
        "    if False:",
    ),
    Mutation(
        "a word that does not come is waited for for ever (gate agreed)",
        "word",
        "    if may_ask and now < since + WORD_WITHIN_S:",
        "    if may_ask:",
    ),
    Mutation(
        "I2: in a partition the word of one side proves a death (gate agreed)",
        "word",
        "    apart = cluster.ailment(Seen(Fault.PARTITIONED)) is not None",
        "    apart = False",
    ),
    Mutation(
        "I2: what was said before the refusal counts (gate agreed)",
        "word",
        "    if node.word_at is not None and node.word_at >= since:",
        "    if node.word_at is not None:",
    ),
    Mutation(
        "I2: who is alive and cannot be asked counts as nobody (gate agreed)",
        "word",
        "    if not any(map(health.lives, others)):",
        "    if not any(map(health.speaks, others)):",
    ),
    Mutation(
        "I2: nodes of which nobody can say anything are started together",
        "Sight",
        "            nodes = tuple(n for n in ready if self._agreed(n)) or nodes",
        "            nodes = ready",
    ),
    Mutation(
        "I2: a node that refuses is dead to the quorum, whatever the others say",
        "agreed_dead",
        "    return dead and word(cluster, name, now).gone",
        "    return dead",
    ),
    Mutation(
        "I2: the silence of the others about a proxy is a word",
        "take_met",
        "        if node.fault is None or node.server_id is None or node.proxy:",
        "        if node.fault is None or node.server_id is None:",
    ),
    Mutation(
        "I2: the first word that it is gone ends a node that was cut off",
        "_seen_as",
        "    first = {f: t for f, t in node.seen if fault is not Fault.CUT_OFF or f is not Fault.DEAD}",
        "    first = dict(node.seen)",
    ),
    Mutation(
        "I2: a node that is cut off is relied on (gate quorum)",
        "UNSURE",
        "UNSURE = AWAY | {Fault.CUT_OFF, Fault.STALLED, Fault.STARTING}",
        "UNSURE = AWAY | {Fault.STALLED, Fault.STARTING}",
    ),
    Mutation(
        "I2: who serves open connections serves nobody (gate quorum)",
        "_away",
        "    if node.answers or (",
        "    if (",
    ),
    Mutation(
        "I2: a server of a name that nobody knows is not this node's (gate quorum)",
        "_lost",
        "    nameless = any(not n.server_name and not n.proxy for n in cluster.nodes.values())",
        "    nameless = False",
    ),
    Mutation(
        "I2: a server of a name that nobody knows is not that of a node that is away (gate quorum)",
        "_lost",
        "    nameless = any(not n.server_name and not n.proxy for n in cluster.nodes.values())",
        "    nameless = any(not cluster.nodes[n].server_name for n in leaving)",
    ),
    Mutation(
        "a dead node waits for another one's fault where nobody can vouch for it (gate one at a time)",
        "one_at_a_time",
        "    if incident.fault is Fault.DEAD:\n        return Open(",
        "    if False:\n        return Open(",
    ),
    Mutation(
        "a proxy among the nodes is a partition",
        "_member",
        "    return node is not None and not node.proxy and not node.doubt",
        "    return node is not None and not node.doubt",
    ),
    Mutation(
        "I2: a proxy keeps the name of a server that answered there before",
        "health._name",
        "    return None if seen.proxy else seen.server_name or node.server_name",
        "    return seen.server_name or node.server_name",
    ),
    Mutation(
        "a proxy's death keeps closed tables from being told",
        "_unavailable",
        "            if node.proxy:\n                continue",
        "            if False:\n                continue",
    ),
    # ------------------------------------------------------------ whose server that is
    Mutation(
        "I2: acts on a node in doubt (gate identity)",
        "identity",
        "        if node.doubt:",
        "        if False:",
    ),
    Mutation(
        "I2: acts beside servers of which nobody knows which is which (gate quorum)",
        "quorum",
        "    if in_doubt:",
        "    if False:",
    ),
    Mutation(
        "I2: a map that lists one name twice counts both as one server's (gate quorum)",
        "quorum",
        "    if twice:",
        "    if False:",
    ),
    Mutation(
        "a wrong address gets a highstate (gate identity)",
        "identity",
        "        if alien and node.server_id is None:",
        "        if False:",
    ),
    Mutation(
        "I2: who asks may have a node restarted that was never seen as a database (gate identity)",
        "identity",
        "        alien = Fault.ALIEN in (intent.incident.fault, node.fault)",
        "        alien = intent.incident.fault is Fault.ALIEN",
    ),
    Mutation(
        "I2: another node's id becomes a node's own",
        "identity.judge",
        "    as_another = seen.server_id if foreign and seen.server_id != before.server_id else None",
        "    as_another = None",
    ),
    Mutation(
        "I2: one server for two nodes is no doubt",
        "_disputes",
        "            if server is not None and server != own and server in theirs:",
        "            if False:",
    ),
    Mutation(
        "I2: what was another node's id lately becomes a node's own",
        "_disputes",
        "            theirs = (other.server_id, other.answers_as, other.server_was)",
        "            theirs = (other.server_id, other.answers_as)",
    ),
    Mutation(
        "I2: one address for two nodes is no doubt",
        "_disputes",
        "            if not mine.isdisjoint(other.addresses):",
        "            if False:",
    ),
    Mutation(
        "I2: the other one of two nodes is not in doubt",
        "identity.judge",
        "        if not other.doubt:",
        "        if False:",
    ),
    Mutation(
        "I2: who does not answer is in doubt no longer",
        "identity.judge",
        "    if not answered and before.doubt:",
        "    if False:",
    ),
    Mutation(
        "I2: a person's yes ends the doubt about a name that two servers still have",
        "identity.accept",
        "        elif names[node.server_name] > 1:",
        "        elif False:",
    ),
    Mutation(
        "I2: an open connection tells a node in doubt its id",
        "observe",
        "    judged = seen.dialled or not node.doubt or seen.server_id == node.server_id",
        "    judged = True",
    ),
    Mutation(
        "I2: a node in doubt forgets the new name that its own server tells",
        "observe",
        "    judged = seen.dialled or not node.doubt or seen.server_id == node.server_id",
        "    judged = seen.dialled or not node.doubt",
    ),
    Mutation(
        "I2: two servers of one name are no doubt",
        "take_met",
        "        cluster = replace(cluster, twins=identity.twins(event.names))",
        "        pass",
    ),
    Mutation(
        "whose server it is, is not taken from a person",
        "_as_it_answers",
        "    return replace(node, server_id=node.answers_as, answers_as=None, server_name=None)",
        "    return node",
    ),
    # ------------------------------------------------------------ dials, and results that prove nothing
    Mutation(
        "I9: an open connection says that a node is well again",
        "seen_after",
        "    return not node.well or (node.dialled_at is not None and node.dialled_at > then)",
        "    return True",
    ),
    Mutation(
        "I9: nobody asks for a dial after a job",
        "verify",
        "    return cluster, incident, (*effects, Dial(cluster.name, had)) if had else effects",
        "    return cluster, incident, effects",
    ),
    Mutation(
        "I9: an open connection ends what a dial has found",
        "observe",
        "    if seen.fault is None and not seen.dialled and lasts and node.fault not in (None, Fault.SLOW):",
        "    if False:",
    ),
    Mutation(
        "I1: a result frees its minion (gate look)",
        "_finish",
        "        late = replace(late, running=len(proven) < len(attempt.nodes), proven=proven)",
        "        late = replace(late, running=False, proven=proven)",
    ),
    Mutation(
        "I1: a roll goes on before its last job is proved to be over (gate look)",
        "gates.look",
        "        if late.attempt.incident == intent.incident.id and looks.unproven(late):",
        "        if False:",
    ),
    Mutation(
        "I1: a minion that has said something and keeps silent is free at once",
        "_after",
        "        if age_s >= times * policy.attempt_timeout_s:",
        "        if True:",
    ),
    Mutation(
        "a minion that has said something and keeps silent is never free",
        "_after",
        "        if age_s >= times * policy.attempt_timeout_s:",
        "        if False:",
    ),
    Mutation(
        "a server's new start proves nothing",
        "restarted",
        "    return restarts and node.restarted_at is not None and node.restarted_at >= attempt.decided_at",
        "    return False",
    ),
    Mutation(
        "I1: a start of before proves that the job is over",
        "restarted",
        "    return restarts and node.restarted_at is not None and node.restarted_at >= attempt.decided_at",
        "    return restarts and node.restarted_at is not None",
    ),
    Mutation(
        "I1: a start proves that a highstate is over",
        "restarted",
        "    restarts = TABLE[attempt.action].starts_anew and name in attempt.there",
        "    restarts = name in attempt.there",
    ),
    # ------------------------------------------------------------ what the table of remedies says
    Mutation(
        "I4: a highstate counts as harmless",
        "TABLE",
        '            says="applies the node\'s whole configuration",',
        '            says="applies the node\'s whole configuration", takes_away=False,',
    ),
    Mutation(
        "I4: a restart counts as harmless",
        "TABLE",
        '            says="ends the service and starts it again",',
        '            says="ends the service and starts it again", takes_away=False,',
    ),
    Mutation(
        "a restart may be asked for against a refused password",
        "_NO_CURE",
        "_LEFT_ALONE | {Fault.AUTH, Fault.TLS, Fault.PARTITIONED}",
        "_LEFT_ALONE",
    ),
    Mutation(
        "a look may be named by a request",
        "_question",
        "asked=False",
        "asked=True",
    ),
    # ------------------------------------------------------------ observers
    Mutation(
        "O: a step does not wait for observers (gate observers)",
        "_rule",
        "        if one.refuted or not (one.agreed or lasting):",
        "        if one.refuted:",
    ),
    Mutation(
        "O: an observer that reaches the node is not listened to",
        "observers.verdict",
        "    if up:",
        "    if False:",
    ),
    Mutation(
        "O: one observer is enough",
        "observers.verdict",
        "    if len(down) >= policy.observers_quorum:",
        "    if down:",
    ),
    Mutation(
        "O: who cannot tell counts as one that cannot reach it",
        "observers.verdict",
        "    down = [who for who, one in said.items() if one.down]",
        "    down = [who for who, one in said.items() if one.down is not False]",
    ),
    Mutation(
        "O: words of before the illness count",
        "observers.words",
        "    since = max(begun(cluster, name), now - COUNTS_FOR_S)",
        "    since = now - COUNTS_FOR_S",
    ),
    Mutation(
        "O: old words count",
        "observers.words",
        "    since = max(begun(cluster, name), now - COUNTS_FOR_S)",
        "    since = begun(cluster, name)",
    ),
    Mutation(
        "O: words of before the last attempt count",
        "observers.begun",
        "    return max(min(silent, default=node.since or 0.0), node.acted_at)",
        "    return min(silent, default=node.since or 0.0)",
    ),
    Mutation(
        "O: observers are asked without end",
        "_may_be_asked",
        "    return asked_at is None or asked_at < node.acted_at or now - asked_at >= AGAIN_S",
        "    return True",
    ),
    Mutation(
        "O: observers are asked only once",
        "_may_be_asked",
        "    return asked_at is None or asked_at < node.acted_at or now - asked_at >= AGAIN_S",
        "    return asked_at is None or asked_at < node.acted_at",
    ),
    Mutation(
        "O: after an attempt observers are asked late",
        "_may_be_asked",
        "    return asked_at is None or asked_at < node.acted_at or now - asked_at >= AGAIN_S",
        "    return asked_at is None or now - asked_at >= AGAIN_S",
    ),
    Mutation(
        "O: a refused connection always needs observers",
        "observers.needed",
        "        return policy.observers_always or _denies_death(cluster, name)",
        "        return True",
    ),
    Mutation(
        "O: a minion's own word does not refute its node's death",
        "observers.needed",
        "        return policy.observers_always or _denies_death(cluster, name)",
        "        return policy.observers_always",
    ),
    Mutation(
        "O: a minion of a database is an observer",
        "take_watchers",
        "    there = tuple(one for one in dict.fromkeys(event.minions) if one not in named)[:MOST]",
        "    there = tuple(dict.fromkeys(event.minions))[:MOST]",
    ),
    Mutation(
        "O: any number of observers is asked",
        "take_watchers",
        "    there = tuple(one for one in dict.fromkeys(event.minions) if one not in named)[:MOST]",
        "    there = tuple(one for one in dict.fromkeys(event.minions) if one not in named)",
    ),
    Mutation(
        "O: observers are asked whatever else is shut",
        "conditions.ask_observers",
        "    if _OBSERVERS not in names or not names <= gates.ASK_LAST | {_APPROVAL}:",
        "    if _OBSERVERS not in names:",
    ),
    Mutation(
        "O: a node that an observer reaches holds up the others",
        "OWN",
        "    not_refuted,\n",
        "",
    ),
    Mutation(
        "O: what has to be asked yet is announced as held",
        "to_tell",
        "    if not_refuted(state, intent, now).open and name_of(observers) not in intent.incident.held:",
        "    if False:",
    ),
    Mutation(
        "O: what is held is announced anew each time observers are asked",
        "to_tell",
        "    if not_refuted(state, intent, now).open and name_of(observers) not in intent.incident.held:",
        "    if not_refuted(state, intent, now).open:",
    ),
    Mutation(
        "O: a spent budget waits for observers that nobody asks",
        "budget_spent",
        "    waits = gates.not_refuted(s.state, s.intent, s.now).open",
        "    waits = False",
    ),
    Mutation(
        "O: an observer that does not know the node's name has looked at it",
        "sighting.read",
        '    if fault == Fault.UNREACHABLE.value and not _addresses(told.get("addresses")):',
        "    if False:",
    ),
    Mutation(
        "O: what went wrong on the observer's own side is a word about the node",
        "sighting.read",
        "    if ours:",
        "    if False:",
    ),
    Mutation(
        "O: a refused login is no answer",
        "sighting.read",
        "    if fault in _ANSWERED:",
        "    if False:",
    ),
    Mutation(
        "O: no word outlives a start of the healer",
        "forget_health",
        "                sightings={},\n",
        "",
    ),
    # ------------------------------------------------------------ a healer that is slow itself
    Mutation(
        "O: confirm does not grow where the healer is slow",
        "health._confirm_s",
        "    return told.strain * (",
        "    return (",
    ),
    Mutation(
        "O: the longest confirm does not grow where the healer is slow",
        "observe",
        "_longest_s(policy) * told.strain",
        "_longest_s(policy)",
    ),
    Mutation(
        "O: one late node shows that the healer is slow",
        "strain._answers",
        "    if late < LATE_NODES or 2 * late < len(found):",
        "    if not late:",
    ),
    Mutation(
        "O: a slow healer is slow for ever",
        "strain.of",
        "        max((factor for at, factor in samples if now - at < COUNTS_FOR_S), default=1.0)",
        "        max((factor for at, factor in samples), default=1.0)",
    ),
    Mutation(
        "O: a faulty node's timeout is a late answer",
        "strain.take",
        "    if seen.fault is not None or late_by < LEAST:",
        "    if late_by < LEAST:",
    ),
    Mutation(
        "O: a slow healer's patience has no end",
        "strain.of",
        "    return min(MOST, by_answers * by_rounds)",
        "    return by_answers * by_rounds",
    ),
    # ------------------------------------------------------------ requests
    Mutation(
        "a request joins an incident in which nothing will be done",
        "_host",
        "        if not i.by_hand and (i.phase is Phase.LOCKED or gates.has_step_to_come(policy, i))",
        "        if not i.by_hand",
    ),
    Mutation(
        "a request joins what is about other nodes",
        "_host",
        "            if (i.fault is not None and meant <= set(i.nodes))",
        "            if i.fault is not None",
    ),
    Mutation(
        "a request for a restart is refused on the open connection's word",
        "take_request",
        "        return _wait_for_dial(state, counted, request, now)",
        '        return _refuse(state, cluster, request, "the probe sees nothing wrong", now)',
    ),
    Mutation(
        "a request waits for a dial for ever",
        "decide_pending",
        "        if not ill and not well and now - one.since < patience_s:",
        "        if not ill and not well:",
    ),
    Mutation(
        "a dial of before decides on a request",
        "decide_pending",
        "        well = all(n.dialled_at is not None and n.dialled_at > one.since for n in nodes)",
        "        well = all(n.dialled_at is not None for n in nodes)",
    ),
    # ------------------------------------------------------------ evidence: what a node's own minion says
    Mutation(
        "evidence: a word about an earlier illness counts",
        "questions.heard",
        "told.at >= begun(cluster, name)",
        "told.at >= 0.0",
    ),
    Mutation(
        "evidence: a minion is asked during a pause",
        "questions.may_ask",
        "and not paused and",
        "and",
    ),
    Mutation(
        "evidence: a minion is asked in mode off",
        "questions.may_ask",
        "policy.mode is not Mode.OFF and ",
        "",
    ),
    Mutation(
        "evidence: a minion is asked although nothing would be done",
        "questions._has_steps",
        "    return incident.fault in ABOUT and bool(",
        "    return incident.fault in ABOUT or bool(",
    ),
    Mutation(
        "evidence: a process on its way is not asked for again",
        "questions._due",
        "now - asked_at >= AGAIN_S",
        "now - asked_at >= 1e9",
    ),
    Mutation(
        "evidence: an old word that a process starts counts for ever",
        "questions.starting",
        "now - told.at > STALE_S",
        "now - told.at > 1e9",
    ),
    Mutation(
        "evidence: a process may start for ever",
        "questions.starting",
        "    if late or told.stopped or told.loops:",
        "    if told.stopped or told.loops:",
    ),
    Mutation(
        "evidence: a stopped process counts as starting",
        "questions.starting",
        "    if late or told.stopped or told.loops:",
        "    if late or told.loops:",
    ),
    Mutation(
        "force: a start beside a process that nothing can end",
        "conditions.verdict",
        "    if Outcome.STUCK in results:",
        "    if False:",
    ),
    Mutation(
        "force: it is ordered where the package is missing",
        "forcing.cannot_run",
        "not s.requested and bool(s.untried) and set(bare(s)) == set(s.untried)",
        "False",
    ),
    Mutation(
        "force: one minion without the package spares all nodes the step",
        "forcing.cannot_run",
        "set(bare(s)) == set(s.untried)",
        "bool(bare(s))",
    ),
    Mutation(
        "force: it is not ordered where a restart hangs",
        "forcing.hangs",
        "return forced and any(",
        "return False and any(",
    ),
    Mutation(
        "force: it goes to a minion where any job of ours runs",
        "looks.ends_by_force",
        " and other.action in (Action.RESTART, Action.START)",
        "",
    ),
    Mutation(
        "force: any action goes to a minion where a restart hangs",
        "looks.ends_by_force",
        "TABLE[action].stops and ",
        "",
    ),
    Mutation(
        "force: a restart that hangs is taken for over, whatever comes next",
        "forcing.hangs",
        "following[0].action is Action.FORCE_RESTART",
        "True",
    ),
    Mutation(
        "force: it goes to a minion whose restart has only been said to be over",
        "looks.hangs_until",
        "published and away and ",
        "published and ",
    ),
    Mutation(
        "force: a minion that once lacked the package lacks it for ever",
        "questions.go_on",
        "bare=outcome is Outcome.FAILED",
        "bare=cluster.nodes[one.about].bare or outcome is Outcome.FAILED",
    ),
    Mutation(
        "evidence: a process that is started again and again counts as starting",
        "questions.starting",
        "    if late or told.stopped or told.loops:",
        "    if late or told.stopped:",
    ),
    Mutation(
        "evidence: a first word of starts by the service manager is taken for a loop",
        "questions.take_testimony",
        "told.after(heard(cluster, one.about))",
        "told.after(replace(told, restarts=-1))",
    ),
    Mutation(
        "evidence: what its own machine reaches is restarted all the same",
        "witnessed.not_starting",
        "            if questions.refuted(cluster, name, now):",
        "            if False:",
    ),
    Mutation(
        "evidence: a greeting refutes also where the healer was greeted",
        "questions.refuted",
        "node.silent and ",
        "",
    ),
    Mutation(
        "evidence: an old greeting refutes for ever",
        "questions.refuted",
        " and now - told.at <= STALE_S",
        "",
    ),
    Mutation(
        "evidence: who greets is not asked again",
        "questions._due",
        "        or refuted(cluster, name, now)\n",
        "",
    ),
    Mutation(
        "evidence: a word from before the refusal makes a death sooner",
        "facts._witnessed",
        " or cluster.nodes[name].refused_at is None",
        "",
    ),
    Mutation(
        "evidence: where selfheal.witness fails nobody else is asked",
        "questions.go_on",
        "                failed.add(one.about)",
        "                pass",
    ),
    Mutation(
        "evidence: a minion that fails late is asked twice as long",
        "questions.go_on",
        " and early:",
        ":",
    ),
    Mutation(
        "evidence: Salt's own functions are asked where nobody has failed to tell",
        "questions.go_on",
        " and outcome is Outcome.FAILED and early",
        "",
    ),
    Mutation(
        "evidence: a stall that is over is asked about",
        "questions._about",
        "    if node.fault is Fault.STALLED and not node.stalled:",
        "    if False:",
    ),
    Mutation(
        "evidence: nobody waits for the minion's word (gate witness)",
        "witnessed.witness",
        "        if now < opens_at:",
        "        if now < 0.0:",
    ),
    Mutation(
        "evidence: a minion that was asked is waited for anew",
        "witnessed._awaited_until",
        "        return now  # it was asked, and that is over",
        "        return asked_at + 60.0",
    ),
    Mutation(
        "evidence: a step that cannot help is taken (row cannot-help)",
        "witnessed.useless",
        "g is not None and not _any_helps(g, steps[:1]) and",
        "g is not None and",
    ),
    Mutation(
        "evidence: what cannot be helped is tried again and again (gate helps)",
        "witnessed.helps",
        "        if name in incident.turn.visited:",
        "        if False:",
    ),
    Mutation(
        "evidence: what cannot be helped has no try at all",
        "witnessed.hopeless",
        " or not given_up(cluster, incident, name)",
        "",
    ),
    Mutation(
        "evidence: what no step can help gets an incident, and a try, again",
        "next_step",
        " if not witnessed.given_up(s.cluster, s.incident, n)",
        "",
    ),
    Mutation(
        "evidence: one minion speaks for another node",
        "answers.take_answer",
        " or event.node not in one.nodes",
        "",
    ),
    Mutation(
        "evidence: a death that was witnessed takes as long as any",
        "health._confirm_s",
        "(min(confirm_s, policy.dead_witnessed_s) if sooner else confirm_s)",
        "confirm_s",
    ),
    Mutation(
        "evidence: a process on its way is dead all the same",
        "health._shown",
        "        if told.starting:  # its peers may be connected to it by then",
        "        if False:",
    ),
    Mutation(
        "evidence: verify ends while a process is on its way",
        "conditions.not_in_time",
        "    if ill and all(node.fault is Fault.STARTING for node in ill):",
        "    if not ill and all(node.fault is Fault.STARTING for node in ill):",
    ),
    Mutation(
        "I1: silence ends a job that was given up although its minion has said that it runs",
        "looks._after",
        " or name in late.attempt.runs:",
        ":",
    ),
    # ------------------------------------------------------------ the highstate that is tried first
    Mutation(
        "tested: a highstate that would change nothing is made (gate tested)",
        "tested.not_met",
        "            if said is not None and said.verdict is Verdict.NOTHING:",
        "            if False:",
    ),
    Mutation(
        "tested: a highstate is made before its test run has ended",
        "tested.tested",
        '            return Shut(f"what a highstate would change on {name} is asked", opens_at)',
        '            told.append(f"{name}: asked")',
    ),
    Mutation(
        "tested: a highstate is made without a test run",
        "tested.tested",
        "        elif name in unasked:",
        "        elif False:",
    ),
    Mutation(
        "tested: what was told before the last act counts",
        "tested._counts",
        "at >= max(incident.opened_at, cluster.nodes[name].acted_at)",
        "at >= incident.opened_at",
    ),
    Mutation(
        "tested: what was told for an older incident counts",
        "tested._counts",
        "at >= max(incident.opened_at, cluster.nodes[name].acted_at)",
        "at >= cluster.nodes[name].acted_at",
    ),
    Mutation(
        "tested: what was told long ago counts",
        "tested.heard",
        "now - told.at >= VALID_S or",
        "False or",
    ),
    Mutation(
        "tested: a silent minion is asked for ever",
        "tested.to_ask",
        "        return at is not None and now - at < VALID_S and _counts(cluster, incident, name, at)",
        "        return False",
    ),
    Mutation(
        "tested: a test run is made although a gate is shut",
        "conditions.tests_due",
        " or not names <= {_TESTED, _APPROVAL}",
        "",
    ),
    Mutation(
        "tested: a step is left out before all nodes have told so",
        "conditions.nothing_to_change",
        "not set(s.untried) <= set(s.met)",
        "not set(s.untried) & set(s.met)",
    ),
    Mutation(
        "tested: a highstate that waits for a person is tested again and again",
        "conditions.tests_due",
        "    if _APPROVAL in names:",
        "    if False:",
    ),
    Mutation(
        "tested: a step is left out before all nodes were seen after a start",
        "conditions.nothing_to_change",
        "    if not all(s.known(n) and (s.confirmed(n) or not s.shows(n)) for n in s.incident.nodes):",
        "    if False:",
    ),
    Mutation(
        "tested: one node's word leaves out a highstate that was asked for",
        "conditions.asked_for_nothing",
        "nodes <= set(s.met)",
        "nodes & set(s.met)",
    ),
    Mutation(
        "tested: a spent budget waits for a test run",
        "conditions.budget_spent",
        "<= names <= {_BUDGET, _APPROVAL, _TESTED}",
        "<= names <= {_BUDGET, _APPROVAL}",
    ),
    Mutation(
        "tested: a state that always says None is believed",
        "changes.read",
        "one.name for one in nones if one.module not in ALWAYS_NONE",
        "one.name for one in nones",
    ),
    Mutation(
        "tested: a state that would fail is none that would change",
        "changes.read",
        "    if any(one.result not in (None, True) for one in states):",
        "    if False:",
    ),
    # ------------------------------------------------------------ canaries
    Mutation(
        "a node is stalled before another one has answered its canary",
        "canary.against",
        "    proved = any(o.answered_at is not None and o.answered_at > since for o in others)",
        "    proved = True",
    ),
    Mutation(
        "each node is stalled where no node answers its canary",
        "canary.against",
        "    if others and all(other.stalled for other in others) and not _unseen(cluster):",
        "    if False:",
    ),
    Mutation(
        "a fresh dial ends a stall without a canary",
        "_shown",
        "    if told.stalled and fault is None:",
        "    if told.stalled and fault is None and not seen.dialled:",
    ),
    Mutation(
        "a stall that has ended counts on when it begins anew",
        "_unproved",
        "    if node.fault is not Fault.STALLED:",
        "    if True:",
    ),
    Mutation(
        "a stall is seen in the tables' time to open",
        "take_canary",
        "        if not before.stalled and now - began < state.policies[cluster.name].settle_s:",
        "        if False:",
    ),
    Mutation(
        "what one cause has shown of all nodes is held against each of them",
        "take_canary",
        "    if everywhere(cluster) and not everywhere(after):",
        "    if False:",
    ),
    Mutation(
        "nobody has a node dialled whose canary is answered again",
        "take_canary",
        "    dials: list[Effect] = [Dial(cluster.name, ended)] if ended else []",
        "    dials: list[Effect] = []",
    ),
    Mutation(
        "what cannot be asked is told by each node, again and again",
        "_news",
        "    if event.end is CanaryEnd.UNASKED and event.why not in known:",
        "    if event.end is CanaryEnd.UNASKED:",
    ),
    Mutation(
        "a start of the healer ends a stall",
        "forget_health",
        '                stalled=s.stalled if state.policies[name].canary else "",',
        '                stalled="",',
    ),
    Mutation(
        "a stall lasts where the canary was switched off",
        "forget_health",
        '                stalled=s.stalled if state.policies[name].canary else "",',
        "                stalled=s.stalled,",
    ),
    Mutation(
        "nobody is told that no node answers its canary",
        "_unavailable",
        "    told += [silence] if silence else []",
        "    told += []",
    ),
    Mutation(
        "a dead node does not explain that no other node answers its canary",
        "_unavailable",
        "            explains = node.fault is not None and not (silence and node.fault is Fault.STALLED)",
        "            explains = node.fault is not None and not silence",
    ),
    Mutation(
        "I2: a stalled node is counted on (gate quorum)",
        "UNSURE",
        "UNSURE = AWAY | {Fault.CUT_OFF, Fault.STALLED, Fault.STARTING}",
        "UNSURE = AWAY | {Fault.CUT_OFF, Fault.STARTING}",
    ),
    Mutation(
        "I2: a stalled node counts as serving nobody (gate quorum)",
        "quorum._away",
        "    if node.answers or (node.fault is Fault.UNREACHABLE and health.vouched(node)):\n        return False\n    return node.confirmed and node.fault in AWAY",
        "    if node.fault is Fault.STALLED:\n        return True\n    if node.answers or (node.fault is Fault.UNREACHABLE and health.vouched(node)):\n        return False\n    return node.confirmed and node.fault in AWAY",
    ),
)


class Left(Exception):
    """A mutation that the sources have left behind."""


@cache
def _places(root: Path) -> dict[str, list[tuple[Path, int, int]]]:
    """Name of each function, class and table of the core → file, first line, last line; also as ``module.name``."""
    places: dict[str, list[tuple[Path, int, int]]] = {}
    for path in sorted((root / CORE).glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for name in _names(node):
                first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
                assert node.end_lineno is not None
                for key in (name, f"{path.stem}.{name}"):
                    places.setdefault(key, []).append((path, first, node.end_lineno))
    return places


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [one.id for one in targets if isinstance(one, ast.Name)]


def mutated(mutation: Mutation, root: Path = ROOT) -> tuple[Path, str]:
    """The file below ``root`` that holds the rule, and its text with the rule broken. Raises Left."""
    places = _places(root).get(mutation.at, [])
    if len(places) != 1:
        raise Left(f"the core has {len(places)} places called {mutation.at}, not one")
    path, first, last = places[0]
    lines = path.read_text(encoding="utf-8").split("\n")
    inside = "\n".join(lines[first - 1 : last])
    found = inside.count(mutation.old)
    if found != 1:
        raise Left(f"{mutation.at} holds the old text {found} times, not once: {mutation.old}")
    text = "\n".join(
        [*lines[: first - 1], inside.replace(mutation.old, mutation.new), *lines[last:]]
    )
    ast.parse(text)
    return path.relative_to(root), text


def _copy(folder: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc", "integration", "functional")
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)


@cache
def _known_bugs() -> tuple[str, ...]:
    """A mutation that happens to cure a known bug has not been noticed by that."""
    named = [path.stem for path in golden.CASES.glob("*.yaml") if golden.load(path).bug]
    test = f"{TESTS[0]}::test_what_happens_is_exactly_what_the_case_expects"
    return tuple(f"--deselect={test}[{name}]" for name in sorted(named))


def _tests_pass(mutation: Mutation | None, first: str = "") -> tuple[bool, str]:
    """Whether the tests pass against a copy, and what pytest said last. ``first``: a test that is run before all others."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as made:
        folder = Path(made)
        _copy(folder)
        if mutation is not None:
            path, text = mutated(mutation)
            (folder / path).write_text(text, encoding="utf-8")
        env = {
            **os.environ,
            "PYTHONPATH": str(folder / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # the core needs none, and loading them takes longer
        }
        if mutation is None:
            # Were another copy imported, every mutation would survive.
            where = [
                sys.executable,
                "-c",
                "import saltext_selfheal.healing.step as s; print(s.__file__)",
            ]
            found = subprocess.run(where, cwd=folder, env=env, capture_output=True, text=True)
            if not Path(found.stdout.strip()).is_relative_to(folder):
                return False, f"the tests would not import the copy: {found.stdout or found.stderr}"
        usual = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        # A test that is not there any more ends with another code than 1, and proves nothing.
        for code, tests in ((1, (first,)), (None, (*TESTS, *_known_bugs()))):
            if not all(tests):
                continue
            try:
                run = subprocess.run(
                    [*usual, *tests],
                    cwd=folder,
                    env=env,
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE_S,
                )
            except subprocess.TimeoutExpired:
                return False, f"not ended after {PATIENCE_S:g} s"
            if run.returncode == code:
                break
        lines = [one for one in run.stdout.splitlines() if one.startswith(("FAILED", "ERROR"))]
        return run.returncode == 0, (lines or run.stdout.splitlines() or [run.stderr])[-1]


def _note(killers: dict[str, str]) -> None:
    """Write the killers of the mutations that there are, in their order."""
    known = {m.rule: killers[m.rule] for m in MUTATIONS if m.rule in killers}
    KILLERS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def _judge(number: int, mutation: Mutation, first: str) -> tuple[bool, str, str]:
    """Whether it was killed, a line that says so, and the test that has done it; empty if that is not known."""
    try:
        passed, last = _tests_pass(mutation, first)
    except (Left, SyntaxError) as exc:
        return False, f"{number:3} DOES NOT APPLY {mutation.rule}: {exc}", ""
    if passed:
        return False, f"{number:3} SURVIVED {mutation.rule}", ""
    killer = last.partition(" ")[2].partition(" - ")[0] if last.startswith("FAILED ") else ""
    return True, f"{number:3} killed   {mutation.rule}  [{last[:120]}]", killer


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.proofs.mutations",
        description="Break one rule of the core at a time; the tests must notice.",
    )
    parser.add_argument("--only", type=int, metavar="N", action="append", help="this one")
    parser.add_argument("--write", action="store_true", help=f"note the killers in {KILLERS.name}")
    options = parser.parse_args(arguments)
    chosen = [n - 1 for n in options.only or range(1, len(MUTATIONS) + 1)]
    killers = json.loads(KILLERS.read_text(encoding="utf-8"))
    began, killed = time.monotonic(), 0
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        sane = pool.submit(_tests_pass, None)
        judged = {
            MUTATIONS[n].rule: pool.submit(
                _judge, n + 1, MUTATIONS[n], killers.get(MUTATIONS[n].rule, "")
            )
            for n in chosen
        }
        passed, last = sane.result()
        if not passed:
            pool.shutdown(cancel_futures=True)
            sys.stderr.write(f"the tests fail without any mutation: {last}\n")
            return 1
        for rule, one in judged.items():
            good, told, killer = one.result()
            killed += good
            if killer and options.write:
                killers[rule] = killer
                _note(killers)
            sys.stdout.write(f"{told}\n")
            sys.stdout.flush()
    took = time.monotonic() - began
    sys.stdout.write(f"{killed} of {len(chosen)} killed, {took:.0f} s\n")
    return 0 if killed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
