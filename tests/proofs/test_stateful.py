"""Any settings, anything in any order, all rules: Hypothesis looks for the shortest history that breaks one.

``SELFHEAL_EXAMPLES=300`` looks longer.
"""

import os
from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from pydantic import TypeAdapter

from saltext_selfheal.healing import escalation
from saltext_selfheal.healing.events import Verb
from saltext_selfheal.healing.model import (
    REMEDIES,
    ClusterState,
    Fault,
    Limits,
    Mode,
    Outcome,
    Policy,
    Step,
)

from .incidents import check_end
from .simulator import Job, Simulation

_MANY = int(os.environ.get("SELFHEAL_EXAMPLES", "0"))
_WAITS_S = [1, 3, 7, 16, 31, 61] + ([130, 310, 910] if _MANY else [])
_STORED = TypeAdapter(ClusterState)
_NODE_FAULTS = st.sampled_from(
    [
        Fault.DEAD,
        Fault.HUNG,
        Fault.AUTH,
        Fault.TLS,
        Fault.ALIEN,
        Fault.UNREACHABLE,
        Fault.STALLED,
    ]
)
_CLUSTER_FAULTS = st.sampled_from([Fault.UNAVAILABLE, Fault.PARTITIONED, Fault.ISSUE])
_CURES = st.lists(st.sampled_from(REMEDIES), max_size=2).map(tuple)
_STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(REMEDIES),
        st.sampled_from([0.0, 0.0, 30.0]),
        st.sampled_from([None, None, None, *Mode]),
    ),
    max_size=4,
).map(tuple)


def _or_off(*values):
    return st.sampled_from([*values, 0])


@st.composite
def policies(draw):
    """Up to three clusters with settings of their own."""
    made = []
    for number in range(draw(st.integers(1, 3))):
        name = f"c{number}"
        confirm_s = float(draw(_or_off(3, 10)))
        steps = draw(st.one_of(st.none(), _STEPS))
        default = escalation.DEFAULT
        made.append(
            Policy(
                name,
                tuple(f"{name}-{n}" for n in range(draw(st.integers(1, 5)))),
                f"{name}-*",
                mode=draw(st.sampled_from([Mode.AUTO, Mode.AUTO, Mode.AUTO, *Mode])),
                confirm_s=dict.fromkeys(Fault, confirm_s),
                settle_s=float(draw(_or_off(45))),
                stable_s=float(draw(_or_off(5, 30))),
                flapping_changes=draw(_or_off(4)),
                escalation=default if steps is None else escalation.for_every_fault(steps),
                attempt_timeout_s=draw(st.sampled_from([20.0, 60.0])),
                verify_s=draw(st.sampled_from([5.0, 60.0])),
                cooldown_min_s=float(draw(_or_off(30, 120))),
                cooldown_max_s=draw(st.sampled_from([120.0, 600.0])),
                budget_attempts=draw(_or_off(1, 2, 3)),
                budget_per_s=draw(st.sampled_from([300.0, 900.0])),
                relapse_s=float(draw(_or_off(600))),
                restart_needs_probe=draw(st.booleans()),
                canary=draw(st.booleans()),
                witness_s=float(draw(_or_off(5))),
                starting_s=draw(st.sampled_from([20.0, 600.0])),
                test_first_s=float(draw(_or_off(5, 60))),
                foreign_grace_s=float(draw(_or_off(30))),
                foreign_most_s=float(draw(_or_off(60, 900))),
                observers_quorum=draw(_or_off(1, 2)),
                observers_always=draw(st.booleans()),
            )
        )
    return made


class Healing(RuleBasedStateMachine):
    """A site, and everything that may happen to it. The site itself checks the rules."""

    @initialize(
        made=policies(),
        attempts=_or_off(2, 10),
        storm=st.sampled_from([0.0, 0.34]),
        replicas=st.booleans(),
        lost=st.booleans(),
        proxy=st.booleans(),
        redial_s=st.sampled_from([10.0, 30.0]),
        seed=st.integers(0, 3),
    )
    def begin(self, made, attempts, storm, replicas, lost, proxy, redial_s, seed):
        self.site = Simulation(
            *made,
            seed=seed,
            limits=Limits(attempts, 600.0, storm),
            replicas=replicas,
            keep=lambda cluster: _STORED.validate_json(_STORED.dump_json(cluster)),
            lost_ledger=lost and seed == 3,
            redial_s=redial_s,
            proxies=tuple(p.nodes[-1] for p in made if proxy and len(p.nodes) > 1),
        )
        self.nodes = sorted(self.site.home)

    def _node(self, number):
        return self.nodes[number % len(self.nodes)]

    def _cluster(self, number):
        names = list(self.site.policies)
        return names[number % len(names)]

    @rule(seconds=st.sampled_from(_WAITS_S))
    def wait(self, seconds):
        self.site.run(self.site.elapsed + seconds)

    @rule(
        node=st.integers(0, 14),
        many=st.integers(1, 4),
        fault=_NODE_FAULTS,
        cures=_CURES,
        nth=st.integers(1, 2),
    )
    def fail(self, node, many, fault, cures, nth):
        for number in range(many if many > 2 else 1):
            self.site.fail(self._node(node + number), fault, cures, nth)

    @rule(
        node=st.integers(0, 14),
        for_s=st.sampled_from([2.0, 20.0, 200.0, None]),
        restarts=st.booleans(),
        heals=st.booleans(),
    )
    def somebody_works(self, node, for_s, restarts, heals):
        self.site.work(self._node(node), for_s, restarts=restarts, heals=heals)

    @rule(
        cluster=st.integers(0, 2),
        kinds=st.lists(st.sampled_from(["true", "cut off", "lies", "gone"]), max_size=3),
    )
    def observers_are(self, cluster, kinds):
        named = {f"app{number}": kind for number, kind in enumerate(kinds)}
        self.site.observe(self._cluster(cluster), **named)

    @rule(
        node=st.integers(0, 14),
        many=st.integers(1, 4),
        fault=st.sampled_from([Fault.DEAD, Fault.DEAD, Fault.HUNG, Fault.AUTH]),
        keeps=st.booleans(),
        cures=_CURES,
    )
    def fail_for_some(self, node, many, fault, keeps, cures):
        """It refuses the master only, or lets nobody new in."""
        keeps = keeps or fault is not Fault.DEAD
        for number in range(many if many > 2 else 1):
            at = self._node(node + number)
            self.site.fail(at, fault, cures, 1, serves=True, keeps=keeps)

    @rule(
        one=st.integers(0, 14),
        other=st.integers(0, 14),
        how=st.sampled_from(["one place", "swapped", "one name", "home"]),
    )
    def mix_up(self, one, other, how):
        first, second = self._node(one), self._node(other)
        if how == "home":
            self.site.straighten()
        elif first == second:
            self.site.stranger(self.site.home[first].name, f"{first}_srv")
        elif how == "one name":
            self.site.name(first, f"{second}_srv")
        else:
            (self.site.swap if how == "swapped" else self.site.mislead)(first, second)

    @rule(cluster=st.integers(0, 2), forbidden=st.booleans())
    def system_tables(self, cluster, forbidden):
        self.site.forbid(self._cluster(cluster), forbidden)

    @rule(
        what=st.sampled_from(["unmet", "slow_word", "undialled", "forged", "lying", "replayed"]),
        share=st.sampled_from([0.0, 1.0]),
    )
    def lies_and_losses(self, what, share):
        self.site.luck = replace(self.site.luck, **{what: share})

    @rule(node=st.integers(0, 14))
    def restart_minion(self, node):
        self.site.restart_minion(self._node(node))

    @rule(node=st.integers(0, 14))
    def mend(self, node):
        self.site.mend(self._node(node))

    @rule(
        cluster=st.integers(0, 2),
        fault=_CLUSTER_FAULTS,
        cures=_CURES,
        for_s=st.sampled_from([5.0, 100.0, None]),
    )
    def ail(self, cluster, fault, cures, for_s):
        issue = "log_write_error" if fault is Fault.ISSUE else ""
        self.site.ail(self._cluster(cluster), fault, cures, 1, for_s, issue)

    @rule(
        node=st.integers(0, 14),
        outcome=st.sampled_from([Outcome.FAILED, Outcome.BUSY, None]),
        takes_s=st.sampled_from([1.0, 30.0, 100.0]),
    )
    def next_job(self, node, outcome, takes_s):
        self.site.jobs.setdefault(self._node(node), []).append(Job(outcome, takes_s))

    @rule(node=st.integers(0, 14), up=st.booleans())
    def minion(self, node, up):
        self.site.minion(self._node(node), up)

    @rule(readable=st.booleans())
    def job_cache(self, readable):
        self.site.read_cache(readable)

    @rule(share=st.sampled_from([0.0, 0.5, 1.0]))
    def reactor(self, share):
        self.site.luck = replace(self.site.luck, lost=share)

    @rule(
        down_s=st.sampled_from([1.0, 20.0, 400.0, 4000.0]),
        lost=st.sampled_from([False] * 7 + [True]),
    )
    def crash(self, down_s, lost):
        self.site.crash(down_s, lost)

    @rule(for_s=st.sampled_from([2.0, 30.0]))
    def freeze(self, for_s):
        self.site.freeze(for_s)

    @rule(cluster=st.integers(0, 3), for_s=st.sampled_from([-1.0, 0.0, 20.0, 200.0]))
    def pause(self, cluster, for_s):
        name = None if cluster == 3 else self._cluster(cluster)
        self.site.order(Verb.PAUSE, cluster=name, for_s=for_s)

    @rule(
        verb=st.sampled_from([Verb.RESUME, Verb.LOCK, Verb.EXPLAIN]),
        cluster=st.integers(0, 2),
        node=st.integers(-1, 14),
    )
    def order(self, verb, cluster, node):
        nodes = () if node < 0 else (self._node(node),)
        self.site.order(verb, cluster=self._cluster(cluster), nodes=nodes)

    @rule(verb=st.sampled_from([Verb.ACK, Verb.APPROVE, Verb.REJECT]), number=st.integers(0, 5))
    def about_an_incident(self, verb, number):
        ids = [i.id for c in self.site.state.clusters.values() for i in c.incidents]
        self.site.order(verb, incident=ids[number % len(ids)] if ids else "c0-77")

    @rule(
        cluster=st.integers(0, 3),
        action=st.sampled_from(["highstate", "restart", "start", "look", ""]),
        node=st.integers(-1, 14),
    )
    def ask(self, cluster, action, node):
        nodes = () if node < 0 else (self._node(node),)
        self.site.ask("elsewhere" if cluster == 3 else self._cluster(cluster), action, nodes)

    @rule(incident=st.integers(1, 3), attempt=st.integers(1, 3))
    def forge(self, incident, attempt):
        self.site.forge(f"c0-{incident}.{attempt}")

    def teardown(self):
        site = getattr(self, "site", None)
        if _MANY and site is not None and site.watch.sound:
            site.run(site.elapsed + 5000.0 if not site.up else site.elapsed)
            site.calm_down()  # longer than the pause after a reactor that was dead for hours
            check_end(site)


#: A long look is several tests of other histories, which can run side by side (``pytest -n``).
SHARES = 4 if _MANY else 1

for _share in range(SHARES):
    _case = type(f"Healing{_share}", (Healing,), {}).TestCase
    _case.settings = settings(
        max_examples=_MANY // SHARES or 80,
        stateful_step_count=60 if _MANY else 30,
        deadline=None,
        database=None,
        derandomize=not _MANY,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    globals()[f"TestHealing{_share}"] = _case
del _case
