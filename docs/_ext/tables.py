"""Pages that the code writes: settings, faults, gates, transitions.

Before Sphinx reads a page, this writes ``reference/_*.md``, which pages include. What the code cannot tell (what proves
a fault, what a gate means to an operator, what this release does not yet act on) stands here, and a build fails if the
code knows a name that is missing here or the other way round.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from saltext_selfheal import config
from saltext_selfheal.healing import escalation, gates, observers, presence, remedies, table
from saltext_selfheal.config import texts, values
from saltext_selfheal.healing.model import BESIDES, ENDED, Action, Fault, Mode

#: In the example in place of each sdb:// URI, which only a master can resolve: good as a password and as a webhook's secret.
STAND_IN = "whsec_LY6PPA5S0jov2fVWxeme+A=="

#: Settings that are read and checked, and that nothing acts on so far.
WITHOUT_EFFECT: set[str] = set()

#: Whether this release's probe looks for a fault, and what proves it.
EVIDENCE: dict[Fault, tuple[bool, str]] = {
    Fault.DEAD: (True, "The node refuses the connection."),
    Fault.HUNG: (
        True,
        "TCP is accepted, then TLS, the handshake or the answer does not come in time.",
    ),
    Fault.STALLED: (
        True,
        "The node answers the probe and lets its canary wait, or cannot do what the canary asks, while another node "
        "answers its own; only with `canary`.",
    ),
    Fault.UNREACHABLE: (True, "No answer to TCP, no route, or a name that does not resolve."),
    Fault.STARTING: (
        True,
        "The node refuses the connection, and its own minion says that its process runs and does not listen. After "
        "`starting` it is `dead`.",
    ),
    Fault.UNAVAILABLE: (
        True,
        "Every node answers, but a table is not ready for reads or writes, or no node answers its canary; and `settle` "
        "has passed.",
    ),
    Fault.PARTITIONED: (True, "Nodes that answer disagree about who is connected to whom."),
    Fault.CUT_OFF: (
        True,
        "The node refuses the connection, and another node is connected to it; or it refuses new connections while "
        "one that was open answers. It may serve everybody but this master.",
    ),
    Fault.MISTAKEN: (
        True,
        "Whose server answers is in doubt: two nodes lead to one server, two servers have one name, or a node answers "
        "as another one.",
    ),
    Fault.AUTH: (True, "The login is refused: wrong password, unknown user."),
    Fault.TLS: (True, "The TLS handshake fails: certificate, host name, protocol."),
    Fault.ALIEN: (True, "Something answers on the port that does not speak as RethinkDB does."),
    Fault.SLOW: (
        True,
        "So many of the last answers took longer than `slow` allows; off by default.",
    ),
    Fault.ISSUE: (
        True,
        "The database itself reports an issue; each type is an incident of its own, `issue:log_write_error` for example.",
    ),
}

#: Gate → what it asks.
GATES: dict[str, str] = {
    "mode": (
        "May the healer act at all? Not in the modes `off` and `shadow`; the more careful of the cluster's and the "
        "step's counts."
    ),
    "paused": ("Has nobody paused the cluster? A pause ends by itself."),
    "warm-up": (
        f"Has the engine run for {gates.WARM_UP_S:.0f} s and probed each node concerned {gates.WARM_UP_POLLS} times?"
    ),
    "target": (
        "Is at least one node named, and is every one of them configured and inside `minions`?"
    ),
    "minion": (
        "Is no minion concerned known to be gone? Its key is not accepted on this master then, or it was connected "
        "since the engine's start and is not any more. What is not known, or was read more than "
        f"{presence.KNOWN_FOR_S:.0f} s ago, forbids nothing."
    ),
    "blind": (
        "Does the engine trust its own eyes? Not if every node of every cluster is unreachable at once, or if its own "
        "process can open no connection."
    ),
    "fresh": ("Was each node concerned probed lately, within three intervals and timeouts?"),
    "flapping": (
        "Are the nodes concerned calm? One that came and went by itself more often than `flapping` allows is left "
        "alone until it is quiet, or steadily faulty."
    ),
    "confirmed": ("Has the fault lasted for `confirm` on every node concerned?"),
    "identity": (
        "Is it clear whose server each node concerned is? Not where two nodes lead to one server, two servers have one name, "
        "or a node answers as another one; and not where nothing that speaks as RethinkDB was ever seen."
    ),
    "settings": (
        "Against a refused login or certificate: has any node of the cluster taken the healer's own since its start? If none "
        "has, the settings may be wrong, and a highstate cannot mend those."
    ),
    "agreed": (
        "Does more than a refused dial speak for a node's death? A node that answers says that it is not connected to it, or "
        f"none answers. Where that is to be heard it is waited for, for {gates.WORD_WITHIN_S:.0f} s; where nobody can "
        "say so, dead nodes go one at a time, as nodes that may serve."
    ),
    "witness": (
        "Has the node's own minion told what it sees, or has `witness.timeout` passed? And is no process on its way up, and no "
        "server heard by its own machine of which the engine hears nothing? Asked when a node is dead, hung, stalled or "
        "unreachable, for faults that have steps, and when it is cut off."
    ),
    "observers": (
        "Where `observers` are configured, and the node is unreachable or hung (with `always` also dead): do as many of them as "
        "`quorum` says find that they cannot reach it either, and does none reach it? Asked when no other gate is shut, and "
        f"again every {observers.AGAIN_S:.0f} s. A word counts for {observers.COUNTS_FOR_S:.0f} s, and not beyond an attempt."
    ),
    "helps": (
        "Can the step help against what the minion has found? If a later step can, that one is due. If none can, there is one "
        "try, and then the incident is locked."
    ),
    "tested": (
        "Before a highstate: has the minion told in test mode what it would change, or has `highstate.timeout` passed? And "
        "would it change something? What changes nothing is left out."
    ),
    "decided": (
        "Before the first attempt on dead nodes: is every suspected node of the cluster decided, so that all "
        "dead ones are started together?"
    ),
    "in flight": ("Has the cluster's previous attempt ended?"),
    "look": (
        "Does no job of ours still run on these minions, or, while a step goes from node to node, on those that had their "
        "turn? What opens it is a look, under a JID of its own, that finds no such job, or a new start time of the server "
        "after a restart, or `ack` of the incident that it was for. A result alone does not."
    ),
    "foreign": (
        "Does nobody else work on these nodes, by a job of `state`, `service` or `pkg`, and has nobody done so within "
        "`foreign.grace`? One job counts for no longer than `foreign.most`, and one incident waits for no longer than that. What "
        "an operator forces is not held."
    ),
    "locked": ("Is no locked incident open on these nodes?"),
    "after": (
        "Has the step's `after` passed since the incident opened, and any pause after a step that was repeated, lost, busy or forbidden?"
    ),
    "forbidden": (
        "Has nobody forbidden the action on the minion, by a disabled highstate or a blackout, as its last result says? It is "
        "tried again now and then."
    ),
    "cooldown": (
        "Has each node rested since an attempt of another incident? Counted from that attempt's end."
    ),
    "budget": ("Has each node attempts left in its sliding window?"),
    "limits": ("Are attempts left over all clusters?"),
    "storm": (
        "With three clusters or more: do few enough of them show a fault, or closed tables, for the cause to lie in each?"
    ),
    "one at a time": (
        "Is at most one node concerned that may still serve, and has this step left none worse than it was? And, as long as "
        "the tables' replicas are not known: are all nodes well but for those that show this very fault?"
    ),
    "quorum": (
        "Does every shard that serves now keep the majority of its voting replicas, ready ones, without the node? Judged by "
        "a table map that is newer than the last change and not one side's of a partition; a node that does not answer "
        "serves nobody."
    ),
    "approval": (
        f"In mode `approve`: has a person said yes to this step within the last {gates.APPROVED_FOR_S / 60:.0f} minutes?"
    ),
}

_UNITS = [("d", 86400), ("h", 3600), ("m", 60), ("s", 1)]


def duration(seconds: float) -> str:
    """As an operator writes it."""
    if seconds and seconds < 1:
        return f"{seconds * 1000:g}ms"
    unit, size = next((u for u in _UNITS if seconds and seconds % u[1] == 0), ("s", 1))
    return f"{seconds / size:g}{unit}"


# ---------------------------------------------------------------- settings: forms and defaults


def _is(alias: Any, field: FieldInfo) -> bool:
    """Whether the field was declared with this Annotated alias of `config`."""
    return get_args(alias)[1] in field.metadata or alias in get_args(field.annotation)


_FORMS: list[tuple[Any, str]] = [
    (values.Pace, f"duration, at least {values.SHORTEST_PACE}"),
    (values.Span, f"duration, at least {values.SHORTEST_SPAN}"),
    (values.SpanOrOff, f"duration, at least {values.SHORTEST_SPAN}, or `off`"),
    (values.WaitOrOff, "duration, or `off`"),
    (values.KeptOrOff, f"duration, at least {values.SHORTEST_KEPT}, or `off`"),
    (values.Count, "whole number, 0 or more"),
    (values.PositiveCount, "whole number, 1 or more"),
    (texts.OneTable, "text, `db.table`"),
    (texts.ObserverMinions, "glob, or list of minion ids"),
    (values.Share, "share in percent, or `off`"),
    (values.Rate, "number per `s`, `m` or `h`, or `off`"),
    (values.Confirm, "duration, or a duration per fault"),
    (values.Escalation, "list of steps, or a list of steps per fault"),
    (values.WebhookAction, f"list: {', '.join(f'`{name}`' for name in remedies.webhook_names())}"),
    (values.ModeSetting, ", ".join(f"`{m.value}`" for m in Mode)),
]


def _form(field: FieldInfo) -> str:
    for alias, form in _FORMS:
        if _is(alias, field):
            return form
    kind = field.annotation
    if type(None) in get_args(kind):
        kind = next(one for one in get_args(kind) if one is not type(None))
    if get_origin(kind) is dict and get_args(kind)[1] is values.NodeAddress:
        return "mapping of minion id to address"
    if get_origin(kind) is list:
        of = get_args(kind)[0]
        words = f": {_words(of)}" if get_origin(of) is Literal else ""
        return f"list{words}"
    if get_origin(kind) is Literal:
        return _words(kind)
    if kind in (str, SecretStr):
        return "text"
    if kind is bool:
        return "`true` or `false`"
    raise ExtensionError(f"tables.py does not know how to describe a setting of type {kind}")


def _words(literal: Any) -> str:
    return ", ".join(f"`{word}`" for word in get_args(literal))


def _plain(value: Any, field: FieldInfo) -> str:
    """A default value as it would stand in the file."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, SecretStr):
        return repr(value.get_secret_value())
    if isinstance(value, Enum):
        return str(value.value)
    if _is(values.Confirm, field):
        return _confirm(value)
    if _is(values.Rate, field):
        number, per_s = value
        return f"{number}/{duration(per_s)[1:]}"
    if _is(values.Share, field):
        return f"{value:.0%}"
    durations = (values.Pace, values.Span, values.SpanOrOff, values.WaitOrOff, values.KeptOrOff)
    if any(_is(a, field) for a in durations):
        return duration(value)
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, dict):
        return "{}" if not value else ""
    return str(value)


def _confirm(lasting: values.Lasting) -> str:
    usual = Counter(lasting.faults.values()).most_common(1)[0][0]
    own = [f"{f.value}: {duration(s)}" for f, s in lasting.faults.items() if s != usual]
    seen = f"{values.WITNESSED}: {duration(lasting.dead_witnessed)}"
    return f"{{{', '.join([*own, seen, f'default: {duration(usual)}'])}}}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        raise ExtensionError(f"no default for {field}")
    if _is(values.Escalation, field):
        return "per fault"
    return f"`{_plain(value, field)}`"


# ---------------------------------------------------------------- settings: the page


def _group(field: FieldInfo) -> type[config.Settings] | None:
    """The settings inside this one, if it is a group or a mapping of groups."""

    def inside(kind: Any) -> type[config.Settings] | None:
        if isinstance(kind, type) and issubclass(kind, config.Settings):
            return kind
        return next((found for one in get_args(kind) if (found := inside(one))), None)

    return inside(field.annotation)


def _fields(model: type[config.Settings], above: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Each setting with its path, groups before what is in them."""
    for name, field in model.model_fields.items():
        path = f"{above}{name}"
        yield path, field
        group = _group(field)
        if group is not None:
            by_name = ".<name>" if get_origin(field.annotation) is dict else ""
            yield from _fields(group, f"{path}{by_name}.")


def _without_effect(path: str) -> bool:
    return any(path == one or path.startswith(f"{one}.") for one in WITHOUT_EFFECT)


def settings_page(example: Path) -> str:
    fields = dict(_fields(config.EngineSettings))
    _check_example(example, fields)
    unknown = WITHOUT_EFFECT - set(fields)
    if unknown:
        raise ExtensionError(f"tables.py names settings that do not exist: {sorted(unknown)}")
    groups: dict[str, list[str]] = {}
    for path in fields:
        groups.setdefault(path.rpartition(".")[0], []).append(path)
    parts = []
    for group, paths in groups.items():
        parts += [f"## `{group}`" if group else "## The engine", ""]
        for path in paths:
            parts += _entry(path, fields[path], path in groups or f"{path}.<name>" in groups)
    return "\n".join(parts) + "\n"


def _entry(path: str, field: FieldInfo, group: bool) -> list[str]:
    name = path.rpartition(".")[2]
    if group:
        by_name = get_origin(field.annotation) is dict
        form = "mapping of name to group" if by_name else "group"
        below = f"`{path}.<name>`" if by_name else f"`{path}`"
        default = "required" if field.is_required() else f"see {below}"
        if not by_name and any("_off_is" in repr(m) for m in field.metadata):
            form = "group, or `off`"
        if not field.is_required() and field.get_default() in (None, {}):
            default = "none"
    else:
        form, default = _form(field), _default(field)
    text = f"{field.description}"
    if _without_effect(path):
        text += " *Checked, but without effect in this release.*"
    told = "**required**" if default == "required" else f"default: {default}"
    return [f"`{name}`", f": {form} · {told}", "", f"  {text}", ""]


def _check_example(example: Path, fields: dict[str, FieldInfo]) -> None:
    """The example is one the engine accepts, and it sets everything that has an effect."""
    # What an sdb:// URI stands for is known to a master only; this serves for passwords and webhook secrets alike.
    text = re.sub(r"sdb://\S+", STAND_IN, example.read_text())
    opts = yaml.safe_load(text)
    try:
        config.load(opts)
    except config.ConfigError as exc:
        raise ExtensionError(f"{example.name} is refused: {exc}") from exc
    given = set(_paths(config.EngineSettings, config.entry(opts)))
    missing = [path for path in fields if not _without_effect(path) and path not in given]
    if missing:
        raise ExtensionError(f"{example.name} does not show: {', '.join(missing)}")


def _paths(model: type[config.Settings], given: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, value in given.items():
        field = model.model_fields[name]
        yield f"{above}{name}"
        group = _group(field)
        if group is None or not isinstance(value, dict):
            continue
        if get_origin(field.annotation) is dict:
            for one in value.values():
                yield from _paths(group, one, f"{above}{name}.<name>.")
        else:
            yield from _paths(group, value, f"{above}{name}.")


# ---------------------------------------------------------------- faults, gates, transitions


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines) + "\n"


def _same(ours: set[Any], theirs: set[Any], what: str) -> None:
    if ours != theirs:
        raise ExtensionError(f"tables.py and the code disagree about {what}: {ours ^ theirs}")


def faults_table() -> str:
    _same(set(EVIDENCE), set(Fault), "faults")
    rows = []
    for fault, (looked_for, evidence) in EVIDENCE.items():
        steps = " → ".join(s.action.value for s in escalation.DEFAULT[fault])
        helps = f"{steps} → lock" if steps else "none: announced, left to people"
        never = ", ".join(sorted(a.value for a in remedies.forbidden(fault)))
        mark = "" if looked_for else " *Not looked for in this release.*"
        rows.append([f"`{fault.value}`", evidence + mark, helps, never and f"`{never}`"])
    # Not seen, but told in the same place.
    asked = "Somebody asked for healing while the probe saw nothing wrong."
    rows.append(["`requested`", asked, "the action asked for, once", ""])
    rows.append(["`lock`", "A person has locked the nodes.", "none: `ack` ends it", ""])
    return _table(["fault", "evidence", "steps by default", "never"], rows)


def actions_table() -> str:
    rows = []
    for action, row in remedies.TABLE.items():
        argument = " with the service's name" if row.takes_service else ""
        asks = "steps and requests" if row.asked else "the healer itself"
        never = ", ".join(f"`{fault.value}`" for fault in Fault if fault in row.never)
        risk = "yes" if row.takes_away else "no"
        does = f"{row.says}: `{row.runs}`{argument}"
        rows.append([f"`{action.value}`", does, asks, risk, never])
    head = ["action", "what it does", "named by", "can take a serving node away", "never against"]
    return _table(head, rows)


def gates_table() -> str:
    _same(set(GATES), set(gates.GATES), "gates")
    return _table(
        ["gate", "asks; a yes is open"], [[f"`{name}`", GATES[name]] for name in gates.GATES]
    )


def _condition(row: table.Row) -> str:
    """The row's condition in two or three words, or the command that it waits for."""
    return row.verb.value if row.verb else row.when.__name__.strip("_").replace("_", " ")


def transitions_table() -> str:
    rows = []
    for row in table.TRANSITIONS:
        why = re.sub(r"\{(\w+)\}", r"*\1*", row.why)
        announced = {table.Tells.PHASE: f"`{row.leads_to.value}`", table.Tells.HELD: "`held`"}
        said = announced.get(row.tells, "—")
        when = f"`{row.verb.value}`" if row.verb else _condition(row)
        rows.append([f"`{row.id}`", row.leaves.value, when, row.leads_to.value, said, why])
    head = ["rule", "from", "when", "to", "announced as", "why, in the words an operator reads"]
    return _table(head, rows)


def besides_table() -> str:
    """Rules that are recorded as transitions are, and are none."""
    rows = [[f"`{rule}`", when] for rule, when in BESIDES.items()]
    return _table(["rule", "when"], rows)


def diagram() -> str:
    """The phases and what leads from one to another; what stays within a phase is left to the table."""
    edges: dict[tuple[str, str], list[str]] = {}
    for row in table.TRANSITIONS:
        if row.leaves is not row.leads_to:
            edge = (row.leaves.value, row.leads_to.value)
            edges.setdefault(edge, []).append(_condition(row))
    lines = [
        "stateDiagram-v2",
        "    [*] --> suspected : a fault is seen",
        "    [*] --> locked : lock",
    ]
    lines += [f"    {a} --> {b} : {'<br/>'.join(words)}" for (a, b), words in edges.items()]
    lines += [f"    {phase.value} --> [*]" for phase in ENDED]
    return "```{mermaid}\n" + "\n".join(lines) + "\n```\n"


def reactor_files(folder: Path) -> str:
    files = {path.stem: path for path in folder.glob("*.sls")}
    _same(set(files), {*(action.value for action in Action), "heartbeat"}, "reactor files")
    return "\n".join(
        f"## {name}.sls\n\n```{{literalinclude}} ../../reactor/{name}.sls\n:language: jinja\n```\n"
        for name in sorted(files)
    )


def write(app: Sphinx) -> None:
    docs = Path(app.srcdir)
    pages = {
        "settings": settings_page(docs / "reference" / "selfheal.conf"),
        "faults": faults_table(),
        "actions": actions_table(),
        "gates": gates_table(),
        "transitions": transitions_table(),
        "besides": besides_table(),
        "diagram": diagram(),
        "reactor": reactor_files(docs.parent / "reactor"),
    }
    for name, text in pages.items():
        path = docs / "reference" / f"_{name}.md"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
