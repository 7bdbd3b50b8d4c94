"""Golden cases: a situation told in YAML, and the exact plan that the healer makes of it.

Here stand the reader of such files, with its complaints, and the player that runs one in virtual time around
`step()`. ``python -m tests.proofs.golden FILE …`` prints what really happens, as the ``expect`` of that file;
``--write`` puts it there. A case is right when a person has judged it so, not when it was written by this.

Time 0 is a healer that has been up for 20 s and has seen every node well (``from_start: true``: its very start).
In each second time passes first, then nodes are probed and tables looked at when it is their turn, then happens
what the timeline says for that second. Settings are those of master.d, with the same defaults, but for `witness` and
`highstate`: minions are asked what they see, and what a highstate would change, only in cases that set it. What one
answers is the timeline's ``witness`` and ``foresees``, and what observers answer is its ``observed``.

Each look at a node dials afresh, unless the case says ``redial``: then one does in so many seconds, and the next one
after the healer has asked for it. The nodes that answer say whom they are connected to, with each look at the tables
and where a dial is refused. A look that asks whether a job that has returned still runs is answered at once, that it
does not, unless the timeline speaks of that look. Where the settings have a canary, each node that answers is sent one
every ten seconds; what comes of it is told at once when the timeline changes it, and of the other nodes a second later,
where a stall begins or ends.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from saltext_selfheal.config import ClusterSettings, EngineSettings
from saltext_selfheal.healing import (
    changes,
    looks,
    questions,
    sighting,
    start,
    testimony,
)
from saltext_selfheal.healing.events import (
    Canary,
    CanaryEnd,
    Command,
    Commanded,
    Door,
    Event,
    Foreign,
    Issue,
    Met,
    Missing,
    Observation,
    Observed,
    Presence,
    Present,
    Published,
    Replica,
    Request,
    Requested,
    Returned,
    Shard,
    Started,
    Table,
    Tick,
    Verb,
    ViewStatus,
    Watchers,
)
from saltext_selfheal.healing.model import (
    Action,
    Announce,
    Answer,
    Attempt,
    ClusterState,
    Dial,
    Effect,
    Fault,
    Finish,
    Fire,
    Limits,
    Outcome,
    Policy,
    Tell,
)
from tests.unit.world import NODES, World

CASES = Path(__file__).with_name("golden")
START = 1_000_000.0
WARM_S = 20
VIEW_EVERY_S = 5
CANARY_EVERY_S = 10
ORDINARY = "runbook.runbook"

#: What a probe says of a fault, where the case does not tell it in its own words.
EVIDENCE = {
    Fault.DEAD: "connection refused",
    Fault.HUNG: "no answer to the handshake",
    Fault.UNREACHABLE: "no route to host",
    Fault.AUTH: "wrong password",
    Fault.TLS: "certificate has expired",
    Fault.ALIEN: "something else answers on the port",
    Fault.CUT_OFF: "connection refused",
}


class BadCase(ValueError):
    """A file that is no golden case: where, what was found, what is allowed."""


# ---------------------------------------------------------------- reading


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    story: str
    policies: Mapping[str, Policy]
    limits: Limits
    from_start: bool
    timeline: tuple[tuple[int, Mapping[str, Any]], ...]
    expect: tuple[Mapping[str, Any], ...]
    bug: str = ""
    redial: int = 0  #: 0: each look dials
    proxies: tuple[str, ...] = ()


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # the one in C where it is
    """A key that stands twice would silently lose its first value."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[str, Any]:
    pairs = loader.construct_pairs(node, deep=True)
    keys = [k for k, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise BadCase(f"line {node.start_mark.line + 1}: {key!r} stands twice")
    return dict(pairs)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def seconds(value: Any, where: str) -> int:
    """``12``, ``12s``, ``2m``, ``1h 2m 3s`` → whole seconds."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    units = {"s": 1, "m": 60, "h": 3600}
    if isinstance(value, str) and re.fullmatch(r"\d+[smh]( \d+[smh])*", value):
        return sum(int(part[:-1]) * units[part[-1]] for part in value.split())
    raise BadCase(f"{where}: found {value!r}; allowed: whole seconds, or 12s, 2m, 1h 2m 3s")


def clock(value: float) -> str:
    """Seconds as a case writes them."""
    hours, rest = divmod(round(value), 3600)
    parts = [f"{n}{unit}" for n, unit in zip((hours, *divmod(rest, 60)), "hms", strict=True) if n]
    return " ".join(parts) or "0s"


_CASE = {
    "title", "story", "settings", "nodes", "clusters", "from_start", "timeline", "expect", "bug",
    "redial", "proxies",
}  # fmt: skip

#: What minions are not asked, unless a case says so.
_ASKED: Mapping[str, Any] = {"witness": "off", "highstate": {"test_first": False}}

#: What may happen, and what may stand beside it.
HAPPENS: dict[str, set[str]] = {
    "break": {"fault", "evidence", "cluster", "answers"},
    "mend": {"cluster"},
    "published": set(),
    "returned": {"outcome", "from", "detail"},
    "witness": {"says", "cluster"},
    "foresees": {"states", "cluster"},
    "request": {"id", "cluster", "nodes", "reason", "by"},
    "command": {"id", "cluster", "incident", "nodes", "for", "reason", "by"},
    "tables": {"cluster"},
    "canary": {"end", "why", "cluster"},
    "connected": {"cluster"},
    "words": set(),
    "leads": {"to", "cluster"},
    "named": {"as", "cluster"},
    "started": {"cluster"},
    "issues": {"cluster"},
    "system_tables": {"why", "cluster"},
    "minions": {"cluster"},
    "foreign": {"job", "does", "by", "ended", "cluster"},
    "observers": {"cluster"},
    "observed": {"says", "cluster"},
    "job_cache": set(),
    "probes": set(),
    "probe_failed_here": set(),
    "healer": {"ledger", "settings", "nodes", "clusters"},
    "machine": set(),
    "wait": set(),
}

#: What may be expected, and what must stand beside it; ``why`` is a part of the real sentence.
EFFECTS: dict[str, tuple[set[str], set[str]]] = {
    "fire": ({"nodes", "attempt"}, {"firing"}),
    "dial": (set(), {"cluster"}),
    "finish": ({"outcome"}, {"why"}),
    "said": ({"incident", "why"}, set()),
    "answer": ({"to", "why"}, {"incident", "explains"}),
    "told": ({"why"}, {"cluster", "node", "incident"}),
}


def load(path: Path) -> Case:
    """Read a case. Raises BadCase."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        return _case(path.stem, raw)
    except (BadCase, yaml.YAMLError) as exc:
        raise BadCase(f"{path.name}: {exc}") from None


def _keys(found: Any, allowed: set[str], required: set[str], where: str) -> None:
    if not isinstance(found, dict):
        raise BadCase(f"{where}: found {found!r}; allowed: a mapping")
    unknown = [str(k) for k in found if k not in allowed]
    if unknown:
        raise BadCase(
            f"{where}: unknown {', '.join(unknown)}; allowed: {', '.join(sorted(allowed))}"
        )
    missing = sorted(k for k in required if k not in found)
    if missing:
        raise BadCase(f"{where}: {', '.join(missing)} is missing")


def _text(raw: Mapping[str, Any], key: str, where: str) -> str:
    value = raw.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadCase(f"{where}{key}: found {value!r}; allowed: words")
    return " ".join(value.split())


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadCase(f"{where}: found {value!r}; allowed: a list")
    return value


def _case(name: str, raw: Any) -> Case:
    _keys(raw, _CASE, {"title", "story", "timeline"}, "case")
    policies, limits = _settings(raw)
    timeline = []
    for number, item in enumerate(_list(raw["timeline"], "timeline"), 1):
        where = f"timeline {number}"
        _keys(item, {*HAPPENS, *set().union(*HAPPENS.values()), "at", "note"}, {"at"}, where)
        kinds = [k for k in item if k in HAPPENS]
        if len(kinds) != 1:
            raise BadCase(
                f"{where}: found {', '.join(kinds) or 'nothing'}; allowed: exactly one of {', '.join(HAPPENS)}"
            )
        _keys(item, {kinds[0], *HAPPENS[kinds[0]], "at", "note"}, {"at"}, where)
        at = seconds(item["at"], f"{where}.at")
        if timeline and at < timeline[-1][0]:
            raise BadCase(f"{where}.at: found {item['at']}, which is before the line above")
        timeline.append((at, item))
    expect = tuple(_list(raw.get("expect", []), "expect"))
    for number, item in enumerate(expect, 1):
        where = f"expect {number}"
        every = {k for needs, may in EFFECTS.values() for k in needs | may}
        _keys(item, {*EFFECTS, *every, "at"}, {"at"}, where)
        kinds = [k for k in item if k in EFFECTS]
        if len(kinds) != 1:
            raise BadCase(f"{where}: allowed: exactly one of {', '.join(EFFECTS)}")
        needs, may = EFFECTS[kinds[0]]
        _keys(item, {kinds[0], *needs, *may, "at"}, {"at", *needs}, where)
        seconds(item["at"], f"{where}.at")
        if "why" in needs or "why" in item:
            _text(item, "why", f"{where}.")
    return Case(
        name,
        _text(raw, "title", ""),
        _text(raw, "story", ""),
        policies,
        limits,
        bool(raw.get("from_start", False)),
        tuple(timeline),
        expect,
        _text(raw, "bug", "") if "bug" in raw else "",
        seconds(raw.get("redial", 0), "redial"),
        tuple(raw.get("proxies", ())),
    )


def _settings(raw: Mapping[str, Any]) -> tuple[dict[str, Policy], Limits]:
    """The cases' ``settings`` hold for every cluster; a cluster may have some of its own."""
    common = dict(raw.get("settings") or {})
    limits = common.pop("limits", None)
    mode = common.pop("mode", None)
    clusters = raw.get("clusters")
    if clusters is None:
        clusters = {"runbook": {"nodes": raw.get("nodes", list(NODES))}}
    elif "nodes" in raw:
        raise BadCase("nodes: allowed only without clusters")
    given = {}
    for name, cluster in clusters.items():
        own = {**_ASKED, "minions": "db*", **common, **(cluster or {})}
        if isinstance(own.get("nodes"), list):
            own["nodes"] = {n: f"10.0.0.{i}" for i, n in enumerate(own["nodes"], 1)}
        given[name] = own
    try:
        settings = EngineSettings.model_validate(
            {
                "clusters": {n: ClusterSettings.model_validate(c) for n, c in given.items()},
                **({} if limits is None else {"limits": limits}),
                **({} if mode is None else {"mode": mode}),
            }
        )
    except ValidationError as exc:
        error = exc.errors(include_url=False)[0]
        where = ".".join(map(str, error["loc"]))
        raise BadCase(f"settings.{where}: found {error['input']!r}; {error['msg']}") from None
    policies = settings.policies()
    for policy in policies.values():
        if policy.poll_s != int(policy.poll_s):
            raise BadCase(f"settings.poll: found {policy.poll_s}; allowed here: whole seconds")
    return policies, settings.bounds()


# ---------------------------------------------------------------- playing


@dataclass(frozen=True)
class Played:
    """What step() returned, in order, and which rules and shut gates had a part in it."""

    effects: tuple[Mapping[str, Any], ...]
    rules: frozenset[str]
    gates: frozenset[str]


@dataclass
class Stage(World):
    """The world of one case: what stands in its files happens to it."""

    case: Case
    seen: list[Mapping[str, Any]] = field(default_factory=list)
    rules: set[str] = field(default_factory=set)
    shut: set[str] = field(default_factory=set)  #: names of gates that held something

    def __post_init__(self) -> None:
        self.zero = START + (0 if self.case.from_start else WARM_S)
        self.evidence: dict[tuple[str, str], str] = {}
        self.tables: dict[str, tuple[Table, ...]] = {}
        self.connected: dict[str, Mapping[str, list[str]]] = {}
        self.issues: dict[str, tuple[Issue, ...]] = {}
        self.system_tables: dict[str, tuple[ViewStatus, str]] = {}
        self.minions: dict[str, Mapping[str, Presence]] = {}  #: what the master knows of them
        self.observers: dict[str, tuple[str, ...]] = {}  #: by cluster: those that it finds there
        self.up, self.awake, self.probing, self.anew = True, True, True, False
        self.words = True  #: nodes that answer are heard
        self.doubted: dict[str, list[str]] = {}  #: nodes that are sent a canary in the next second
        self.canaries: dict[tuple[str, str], tuple[CanaryEnd, str]] = {}  #: if not answered
        self.answering: set[tuple[str, str]] = set()  #: ill nodes whose open connections answer
        self.leads: dict[tuple[str, str], str] = {}  #: whose server a node's address leads to
        self.titles: dict[str, str] = {}  #: names of servers, if not their node's
        #: Start times of servers, by node: a dead one that is mended has been started.
        self.starts = {n: START - 1000.0 for p in self.case.policies.values() for n in p.nodes}
        self.failing: set[tuple[str, str]] = set()  #: a dial has failed: each look dials
        self.asked: set[tuple[str, str]] = set()  #: to be dialled afresh at once
        self.proofs_due: list[Attempt] = []
        told = (
            item.get(key, "") for _, item in self.case.timeline for key in ("published", "returned")
        )
        self.scripted = {id for id in told if id}
        self.remembered: dict[str, ClusterState] = {}
        World.__init__(self, *self.case.policies.values(), limits=self.case.limits, now=START)
        self.truthful = False  # the player answers looks itself
        self._note(tuple(self.effects))

    def _note(self, effects: tuple[Effect, ...]) -> None:
        at = clock(self.now - self.zero)
        self.seen += [{"at": at, **in_words(e)} for e in effects]
        self.rules |= {i.rule for c in self.state.clusters.values() for i in c.incidents}
        for effect in effects:
            if isinstance(effect, (Announce, Answer)):
                self.rules.add(effect.rule)
            if isinstance(effect, Announce) and effect.rule in ("open.held", "open.budget-spent"):
                self.shut.update(re.findall(r"(?:^|; )([a-z- ]+): ", effect.why))

    def step(self, event: Event) -> tuple[Effect, ...]:
        effects = super().step(event)
        self._note(effects)
        for effect in effects:
            if isinstance(effect, Fire) and effect.attempt.action is Action.LOOK:
                if self._returned(effect.attempt) and effect.attempt.id not in self.scripted:
                    self.proofs_due.append(effect.attempt)
            elif isinstance(effect, Dial):
                self.asked |= {(effect.cluster, n) for n in effect.nodes}
        return effects

    def _returned(self, look: Attempt) -> bool:
        """It asks about a job of which these minions have said that it is over."""
        return any(
            late.attempt.id == look.of and not set(look.nodes) & set(looks.owed(late.attempt))
            for cluster in self.state.clusters.values()
            for late in cluster.late
        )

    # one second

    def pass_second(self) -> None:
        self.now += 1.0
        if not self.up or not self.awake:
            return
        self.step(Started() if self.anew else Tick())
        self.anew = False
        if self.cache_readable:
            for cluster in list(self.state.clusters.values()):
                for one in (cluster.attempt, cluster.look, *cluster.questions):
                    if one and one.published_at is None:
                        self.step(Missing(one.id))
        due, self.proofs_due = self.proofs_due, []
        for look in due:
            self.step(Published(look.id))
            for node in look.nodes:
                self.step(Returned(look.id, node, Outcome.DONE, "the job does not run"))
        if not self.probing:
            return
        for name, policy in self.policies.items():
            if (self.now - self.zero) % policy.poll_s == 0:
                self.poll(name)
            elif self.case.redial:
                for node in policy.nodes:
                    if (name, node) in self.asked:
                        self._probe(name, node)
        for name, policy in self.policies.items():
            if policy.canary and (self.now - self.zero) % CANARY_EVERY_S == 0:
                self.sing(name, policy.nodes)
            elif name in self.doubted:
                self.sing(name, self.doubted[name])
        self.doubted.clear()
        for name in self.policies:
            if (self.now - self.zero) % VIEW_EVERY_S == 0:
                self._look(name)

    def poll(self, cluster: str | None = None) -> None:
        for name, node in tuple(self.faults):
            if cluster in (None, name):
                self._probe(name, node)
        refused = (Fault.DEAD, Fault.CUT_OFF)
        for name in self.policies:
            if cluster in (None, name) and set(self.faults_of(name)) & set(refused):
                self.meet(name)

    def _probe(self, name: str, node: str) -> None:
        """One look, with a fresh dial if it is due."""
        place = (name, node)
        server = self.leads.get(place, node)
        fault = self.faults.get((name, server), self.faults[place])
        slow = fault is Fault.SLOW and self.policies[name].slow_above_s > 0
        shown = None if slow else fault
        if fault is Fault.CUT_OFF:
            shown = Fault.DEAD
        answers = place in self.answering
        redial = self.case.redial
        dials = not redial or place in self.asked | self.failing
        dials = dials or (self.now - self.zero) % redial == 0
        if shown is not None and not answers:
            dials = True
        if not dials:
            shown = None
        self.asked.discard(place)
        if dials:
            (self.failing.add if shown else self.failing.discard)(place)
        proxy = server in self.case.proxies
        self.step(
            Observed(
                Observation(
                    name,
                    node,
                    shown,
                    "answers" if shown is None else self.evidence[name, server],
                    latency_s=60.0 if slow else 0.001,
                    # Nobody says who he is before he lets one in.
                    server_id=f"id-{server}" if shown is None else None,
                    server_name=(
                        self.titles.get(server, server) if shown is None and not proxy else None
                    ),
                    dialled=dials,
                    answers=answers and shown is not None,
                    addresses=(f"{server}:28015",) if self.leads else (),
                    proxy=shown is None and proxy,
                )
            )
        )

    def meet(self, cluster: str = "runbook", **changes: Any) -> None:
        """Whom the nodes that answer are connected to."""
        away = (Fault.DEAD, Fault.UNREACHABLE, Fault.HUNG)
        names = self.policies[cluster].nodes
        told = self.connected.get(cluster, {})
        hidden = self.system_tables.get(cluster, (None, ""))[0] is ViewStatus.FORBIDDEN
        there = [
            n
            for n in names
            if n not in self.case.proxies
            and (self.faults[cluster, n] not in away or (cluster, n) in self.answering)
        ]
        asked = [
            n
            for n in names
            if self.faults[cluster, n] in (None, Fault.SLOW) or (cluster, n) in self.answering
        ]
        if not asked or not self.words or hidden:
            return
        everybody = there + [n for n in self.titles if n not in names]
        self.step(
            Met(
                cluster,
                {n: frozenset(f"id-{m}" for m in told.get(n, there)) for n in asked},
                {f"id-{n}": self.titles.get(n, n) for n in everybody},
                {f"id-{n}": at for n, at in self.starts.items() if n in there},
            )
        )

    def sing(self, name: str, nodes: Iterable[str]) -> None:
        """What comes of a canary through each of these nodes that answers."""
        for node in nodes:
            if self.faults[name, node] in (None, Fault.SLOW):
                end, why = self.canaries.get((name, node), (CanaryEnd.ANSWERED, ""))
                self.step(Canary(name, node, end, why))

    def _look(self, name: str) -> None:
        """The system tables, as one node that answers shows them; only where the case speaks of them.

        What the master knows of minions is told then, too.
        """
        self.meet(name)
        if name in self.minions:
            self.step(Present(name, self.minions[name]))
        if name in self.observers:
            self.step(Watchers(name, self.observers[name]))
        told_of = (self.tables, self.connected, self.issues, self.system_tables)
        if not any(name in of for of in told_of):
            return
        answering = [
            n for n in self.policies[name].nodes if self.faults[name, n] in (None, Fault.SLOW)
        ]
        if not answering:
            return
        status, why = self.system_tables.get(name, (ViewStatus.KNOWN, ""))
        told = self.connected.get(name, {})
        self.look(
            name,
            node=answering[0],
            status=status,
            why=why,
            tables=self.tables.get(name, ()),
            issues=self.issues.get(name, ()),
            connected={
                n: frozenset(f"id-{m}" for m in told.get(n, self.policies[name].nodes))
                for n in answering
            },
        )

    # what the timeline says

    def happen(self, item: Mapping[str, Any], where: str) -> None:
        kind = next(k for k in item if k in HAPPENS)
        try:
            _HAPPEN[kind](self, item, where)
        except (KeyError, ValueError, TypeError) as exc:
            if isinstance(exc, BadCase):
                raise
            raise BadCase(f"{where}: {kind}: {type(exc).__name__}: {exc}") from exc

    def cluster_of(self, item: Mapping[str, Any], where: str) -> str:
        name = item.get("cluster") or next(iter(self.policies))
        if name not in self.policies or ("cluster" not in item and len(self.policies) > 1):
            raise BadCase(f"{where}.cluster: found {item.get('cluster')!r}; {list(self.policies)}")
        return name

    def nodes_of(self, item: Mapping[str, Any], kind: str, where: str) -> tuple[str, list[str]]:
        name = self.cluster_of(item, where)
        nodes = item[kind] if isinstance(item[kind], list) else [item[kind]]
        for node in nodes:
            if (name, node) not in self.faults:
                raise BadCase(f"{where}.{kind}: no node {node!r} in {name}")
        return name, nodes

    def configure(self, item: Mapping[str, Any]) -> None:
        if {"settings", "nodes", "clusters"} & set(item):
            policies, limits = _settings(item)
            self.policies = policies
            self.state = replace(self.state, limits=limits)
            self.faults = {
                (p.name, n): self.faults.get((p.name, n))
                for p in policies.values()
                for n in p.nodes
            }


def _break(site: Stage, item: Mapping[str, Any], where: str) -> None:
    name, nodes = site.nodes_of(item, "break", where)
    fault = Fault(item.get("fault", "dead"))
    site.break_(*nodes, fault=fault, cluster=name)
    for node in nodes:
        (site.answering.add if item.get("answers") else site.answering.discard)((name, node))
        site.evidence[name, node] = item.get("evidence") or EVIDENCE.get(fault, fault.value)


def _mend(site: Stage, item: Mapping[str, Any], where: str) -> None:
    name, nodes = site.nodes_of(item, "mend", where)
    for node in nodes:
        if site.faults[name, node] is Fault.DEAD:
            site.starts[node] = site.now
        site.answering.discard((name, node))
    site.mend(*nodes, cluster=name)


def _published(site: Stage, item: Mapping[str, Any], where: str) -> None:
    site.step(Published(item["published"]))


def _returned(site: Stage, item: Mapping[str, Any], where: str) -> None:
    """From every minion of the attempt, if none is named; one that is not in flight must name them."""
    attempts = [
        a for c in site.state.clusters.values() for a in (c.attempt, c.look, *c.questions) if a
    ]
    named = item.get("from")
    if named is None:
        attempt = next((a for a in attempts if a.id == item["returned"]), None)
        if attempt is None:
            raise BadCase(f"{where}: {item['returned']} is not in flight: say `from` whom it comes")
        named = list(attempt.nodes)
    for node in named if isinstance(named, list) else [named]:
        outcome = Outcome(item["outcome"])
        site.step(Returned(item["returned"], node, outcome, item.get("detail", "")))


def _witness(site: Stage, item: Mapping[str, Any], where: str) -> None:
    """A minion answers the question that is in flight: ``says`` are parts of what ``selfheal.witness`` returns."""
    name, nodes = site.nodes_of(item, "witness", where)
    for node in nodes:
        asked = questions.in_flight(site.state.clusters[name], node)
        if asked is None:
            raise BadCase(f"{where}: {node}'s minion was not asked, or has answered")
        told = testimony.read({"version": 1, **item.get("says", {})})
        assert told is not None
        site.step(Returned(asked.id, node, Outcome.DONE, told.sentence, told))


def _foresees(site: Stage, item: Mapping[str, Any], where: str) -> None:
    """A minion answers what a highstate would change: ``states`` maps ``module.function id`` to its result."""
    name, nodes = site.nodes_of(item, "foresees", where)
    for node in nodes:
        asked = questions.in_flight(site.state.clusters[name], node, Action.TEST_HIGHSTATE)
        if asked is None:
            raise BadCase(f"{where}: no highstate is tested on {node}, or its minion has answered")
        states = item.get("states", {})
        result: Any = {_key(k): {"result": v} for k, v in states.items()}
        told = changes.read(result if states else "no answer", 0)
        site.step(Returned(asked.id, node, Outcome.DONE, told.sentence, told))


def _key(state: str) -> str:
    """The key that Salt gives to a state: ``file.managed /etc/motd`` → ``file_|-/etc/motd_|-/etc/motd_|-managed``."""
    function, _, name = state.partition(" ")
    module, _, function = function.partition(".")
    return f"{module}_|-{name}_|-{name}_|-{function}"


def _request(site: Stage, item: Mapping[str, Any], where: str) -> None:
    request = Request(
        item.get("id", "r1"),
        item.get("cluster") or next(iter(site.policies)),
        item["request"],
        tuple(item.get("nodes", ())),
        item.get("reason", ""),
        Door.RUNNER,
        item.get("by", "app"),
    )
    site.step(Requested(request))


def _command(site: Stage, item: Mapping[str, Any], where: str) -> None:
    site.commands += 1
    command = Command(
        item.get("id") or f"c{site.commands}",
        Verb(item["command"]),
        item.get("by", "ann"),
        item.get("cluster"),
        item.get("incident"),
        tuple(item.get("nodes", ())),
        float(seconds(item.get("for", 0), f"{where}.for")),
        item.get("reason", ""),
    )
    site.step(Commanded(command))


def _tables(site: Stage, item: Mapping[str, Any], where: str) -> None:
    """``{db.table: {reads, writes, replicas: {server: ready|…}, silent: [server]}}``; ``unseen``: no more."""
    name = site.cluster_of(item, where)
    if item["tables"] == "unseen":
        site.tables.pop(name)
        return
    tables = []
    for table, told in item["tables"].items():
        _keys(told, {"reads", "writes", "replicas", "silent"}, set(), f"{where}.tables.{table}")
        replicas = tuple(
            Replica(server, state, server not in told.get("silent", ()))
            for server, state in told.get("replicas", {}).items()
        )
        shards = (Shard(replicas),) if replicas else ()
        reads, writes = told.get("reads", True), told.get("writes", True)
        every = all(r.state == "ready" for r in replicas)
        tables.append(Table(table, reads, writes, reads and writes and every, shards))
    site.tables[name] = tuple(tables)


def _canary(site: Stage, item: Mapping[str, Any], where: str) -> None:
    """What comes of these nodes' canaries from now on: ``answered``, or ``unanswered`` and ``unasked`` with words."""
    name, nodes = site.nodes_of(item, "canary", where)
    if not site.policies[name].canary:
        raise BadCase(f"{where}: the settings of {name} have no canary")
    waited = {n: site.canaries.get((name, n), (None,))[0] is CanaryEnd.UNANSWERED for n in nodes}
    end = CanaryEnd(item["end"])
    for node in nodes:
        site.canaries[name, node] = (end, item.get("why", ""))
    site.sing(name, nodes)
    if any(was is not (end is CanaryEnd.UNANSWERED) for was in waited.values()):
        site.doubted[name] = [n for n in site.policies[name].nodes if n not in nodes]


def _connected(site: Stage, item: Mapping[str, Any], where: str) -> None:
    """``{db1: [db1], …}``: whom each node is connected to; ``all`` again."""
    name = site.cluster_of(item, where)
    site.connected[name] = {} if item["connected"] == "all" else item["connected"]


def _words(site: Stage, item: Mapping[str, Any], where: str) -> None:
    """Whether anybody is heard about whom he is connected to."""
    site.words = _one_of(item, "words", ("heard", "lost"), where)


def _leads(site: Stage, item: Mapping[str, Any], where: str) -> None:
    """A node's address leads to another node's server; to its own again."""
    name, (node,) = site.nodes_of(item, "leads", where)
    site.leads[name, node] = item["to"]


def _named(site: Stage, item: Mapping[str, Any], where: str) -> None:
    """A server, of a node or of none, has this name."""
    site.titles[item["named"]] = item["as"]


def _started(site: Stage, item: Mapping[str, Any], where: str) -> None:
    """A server's process is started now, as the system tables tell it."""
    site.starts[item["started"]] = site.now


def _issues(site: Stage, item: Mapping[str, Any], where: str) -> None:
    name = site.cluster_of(item, where)
    site.issues[name] = tuple(Issue(t, d) for t, d in item["issues"].items())


def _system_tables(site: Stage, item: Mapping[str, Any], where: str) -> None:
    name = site.cluster_of(item, where)
    site.system_tables[name] = (ViewStatus(item["system_tables"]), item.get("why", ""))


def _minions(site: Stage, item: Mapping[str, Any], where: str) -> None:
    """``{db2: not connected}``: what the master knows of minions; ``untold``: it tells nothing any more."""
    name = site.cluster_of(item, where)
    if item["minions"] == "untold":
        site.minions.pop(name)
        return
    site.minions[name] = {n: Presence(told) for n, told in item["minions"].items()}
    if site.up:
        site.step(Present(name, site.minions[name]))


def _foreign(site: Stage, item: Mapping[str, Any], where: str) -> None:
    """Somebody else's job, of this JID, begins on these nodes' minions; or it ends there."""
    name, nodes = site.nodes_of(item, "foreign", where)
    ended = bool(item.get("ended", False))
    what, by = item.get("does", ""), item.get("by", "")
    if site.up:
        site.step(Foreign(name, item["job"], what, by, tuple(nodes), ended))


def _observers(site: Stage, item: Mapping[str, Any], where: str) -> None:
    """``[app1, app2]``: the observers that the master finds."""
    name = site.cluster_of(item, where)
    site.observers[name] = tuple(item["observers"])
    if site.up:
        site.step(Watchers(name, site.observers[name]))


#: What an observer says of a node, in one word.
_SEES = {
    "up": {"well": True, "fault": None, "ours": False},
    "down": {"well": False, "fault": "hung", "ours": False, "evidence": "no handshake"},
    "nonsense": {"well": "perhaps"},
}


def _observed(site: Stage, item: Mapping[str, Any], where: str) -> None:
    """``observed: db2, says: {app1: up}``: observers answer the question about a node that is in flight."""
    name, (node,) = site.nodes_of(item, "observed", where)
    for who, word in item["says"].items():
        asked = questions.in_flight(site.state.clusters[name], node, Action.PROBE)
        if asked is None:
            raise BadCase(f"{where}: no observer was asked about {node}, or all have answered")
        told = sighting.read(_SEES[word])
        outcome = Outcome.DONE if told else Outcome.FAILED
        said = told.sentence if told else "this is no look at a node"
        site.step(Returned(asked.id, who, outcome, said, told))


def _one_of(item: Mapping[str, Any], kind: str, allowed: tuple[str, str], where: str) -> bool:
    """True for the first word, False for the second."""
    if item[kind] not in allowed:
        raise BadCase(f"{where}.{kind}: found {item[kind]!r}; allowed: {' or '.join(allowed)}")
    return item[kind] == allowed[0]


def _job_cache(site: Stage, item: Mapping[str, Any], where: str) -> None:
    site.cache_readable = _one_of(item, "job_cache", ("readable", "unreadable"), where)


def _probes(site: Stage, item: Mapping[str, Any], where: str) -> None:
    site.probing = _one_of(item, "probes", ("go on", "stop"), where)


def _probe_failed_here(site: Stage, item: Mapping[str, Any], where: str) -> None:
    name, policy = next(iter(site.policies.items()))
    failed = Observation(
        name, policy.nodes[0], Fault.UNREACHABLE, item["probe_failed_here"], ours=True
    )
    site.step(Observed(failed))


def _healer(site: Stage, item: Mapping[str, Any], where: str) -> None:
    """A stop loses all but what the ledger holds. What happens meanwhile is seen by nobody."""
    if _one_of(item, "healer", ("stops", "starts"), where):
        site.up = False
        return
    remembered = {**site.remembered, **site.state.clusters}
    site.configure(item)
    if item.get("ledger") == "lost":
        remembered = start.forgotten(site.policies, site.now, site.state.limits)
    gone = {
        n: start.remains(c, site.policies, site.now)
        for n, c in remembered.items()
        if n not in site.policies
    }
    site.up, site.remembered = True, gone
    site.state, effects = start.begin(site.policies, site.state.limits, remembered, site.now)
    site._note(effects)


def _machine(site: Stage, item: Mapping[str, Any], where: str) -> None:
    """A suspended machine: the healer wakes up, sees a gap in its own time, and looks anew."""
    if _one_of(item, "machine", ("sleeps", "wakes"), where):
        site.awake = False
        return
    site.awake, site.anew = True, True


_HAPPEN: dict[str, Callable[[Stage, Mapping[str, Any], str], None]] = {
    "break": _break,
    "mend": _mend,
    "published": _published,
    "returned": _returned,
    "witness": _witness,
    "foresees": _foresees,
    "request": _request,
    "command": _command,
    "tables": _tables,
    "canary": _canary,
    "connected": _connected,
    "words": _words,
    "leads": _leads,
    "named": _named,
    "started": _started,
    "issues": _issues,
    "system_tables": _system_tables,
    "minions": _minions,
    "foreign": _foreign,
    "observers": _observers,
    "observed": _observed,
    "job_cache": _job_cache,
    "probes": _probes,
    "probe_failed_here": _probe_failed_here,
    "healer": _healer,
    "machine": _machine,
    "wait": lambda site, item, where: None,
}


def in_words(effect: Effect) -> dict[str, Any]:
    """An effect as a case writes it."""
    if isinstance(effect, Fire):
        one = effect.attempt
        told: dict[str, Any] = {
            "fire": one.action.value,
            "nodes": list(one.nodes),
            "attempt": one.id,
        }
        return {**told, "firing": one.firings} if one.firings > 1 else told
    if isinstance(effect, Dial):
        told = {"dial": list(effect.nodes)}
        return told if effect.cluster == "runbook" else {**told, "cluster": effect.cluster}
    if isinstance(effect, Finish):
        return {
            "finish": effect.attempt.id,
            "outcome": effect.outcome.value,
            "why": effect.why,
        }
    if isinstance(effect, Announce):
        return {"said": effect.said, "incident": effect.incident.id, "why": effect.why}
    if isinstance(effect, Answer):
        told = {"answer": effect.reply.value, "to": effect.request.id}
        if effect.incident:
            told["incident"] = effect.incident
        if effect.told:
            told["explains"] = {
                str(one.incident or one.nodes[0]): [
                    gate.name for gate in one.gates if not gate.open
                ]
                for one in effect.told
            }
        return {**told, "why": effect.why}
    assert isinstance(effect, Tell)
    told = {"told": effect.what.value}
    for key in ("cluster", "node", "incident"):
        if getattr(effect, key):
            told[key] = getattr(effect, key)
    return {**told, "why": effect.why}


def play(case: Case) -> Played:
    """Let the case happen."""
    site = Stage(case)
    while site.now < site.zero:
        site.pass_second()
    for number, (at, item) in enumerate(case.timeline, 1):
        while site.now < site.zero + at:
            site.pass_second()
        site.happen(item, f"timeline {number}")
    return Played(tuple(site.seen), frozenset(site.rules), frozenset(site.shut))


@cache
def played(path: Path) -> Played:
    return play(load(path))


def differences(expected: tuple[Mapping[str, Any], ...], found: Played) -> Iterator[str]:
    """Where the plan is not the expected one, effect by effect; nothing if it is."""
    for number in range(max(len(expected), len(found.effects))):
        want = expected[number] if number < len(expected) else None
        got = found.effects[number] if number < len(found.effects) else None
        if want is None:
            yield f"effect {number + 1}: not expected: {line(got)}"
        elif got is None:
            yield f"effect {number + 1}: did not happen: {line(want)}"
        elif not _same(want, got):
            yield f"effect {number + 1}: expected {line(want)}\n   but there was {line(got)}"


def _same(want: Mapping[str, Any], got: Mapping[str, Any]) -> bool:
    def exact(effect: Mapping[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in effect.items() if k != "why"}

    at = clock(seconds(want["at"], "at"))
    return exact({**want, "at": at}) == exact(got) and want.get("why", "") in got.get("why", "")


# ---------------------------------------------------------------- the command line


def line(effect: Mapping[str, Any] | None) -> str:
    return yaml.safe_dump(
        effect, default_flow_style=True, sort_keys=False, width=float("inf"), allow_unicode=True
    ).strip()


def expectation(found: Played, before: tuple[Mapping[str, Any], ...] = ()) -> str:
    """As YAML. What was expected and has happened stays as it was written, with its shorter sentences."""
    if not found.effects:
        return "expect: []\n"
    kept = [next((old for old in before if _same(old, e)), e) for e in found.effects]
    return "expect:\n" + "".join(f"  - {line(e)}\n" for e in kept)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.proofs.golden", description="What really happens in golden cases."
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--write", action="store_true", help="put it into the file as `expect`")
    chosen = parser.parse_args(arguments)
    for path in chosen.files:
        try:
            case = load(path)
            text = expectation(play(case), case.expect)
        except BadCase as exc:
            name = "" if path.name in str(exc) else f"{path.name}: "
            sys.stderr.write(f"{name}{exc}\n")
            return 1
        if not chosen.write:
            sys.stdout.write(f"# {path.name}\n{text}")
        elif case.bug:
            sys.stderr.write(f"{path.name}: names a bug: its expectation is written by hand\n")
            return 1
        else:
            above = re.split(r"^expect:", path.read_text(encoding="utf-8"), flags=re.M)[0]
            path.write_text(f"{above.rstrip()}\n{text}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
