"""Checks whether each remediation event of the healer leads to its reactor file, and to nothing else."""

from __future__ import annotations

import fnmatch
import glob
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from ..console import dropin
from ..driver.tags import DECISION, NETAPI, OURS, REMEDIATE, REQUEST
from ..healing.model import Action
from .master import Finding, Master, fail, ok, warn

UNKNOWN_JID = "20000101000000000000"  #: a JID of the right form that no attempt can have


def check_reactor(master: Master) -> Iterator[Finding]:
    if any(not isinstance(one, dict) or len(one) != 1 for one in master.reactor_entries):
        yield fail(
            "`reactor:` has an entry that is not one tag with its files, and Salt skips it without a word",
            "Write each tag as an entry of its own, with a `-` before it.",
        )
    good = []
    for action in Action:
        found = list(_reaction(master, action))
        yield from found
        if not found:
            good.append(action.value)
    if good:
        proven = "; an event without an order renders to nothing" if master.can_render else ""
        yield ok(f"mapped: {', '.join(good)}{proven}")
    yield from _heartbeat(master)
    yield from _foreign(master)


def _heartbeat(master: Master) -> Iterator[Finding]:
    """Whether the reactor is warmed. Without that all is well, too."""
    tag = dropin.tag_of(dropin.HEARTBEAT)
    patterns = [
        (pattern, files) for pattern, files in master.mappings if fnmatch.fnmatch(tag, pattern)
    ]
    if not any(
        _warms(path) for _, files in patterns for one in files for path in _paths(master, one)
    ):
        yield ok(
            f"the first order after a start takes a quarter of a second longer: {tag} is not mapped to "
            f"{dropin.reference(dropin.HEARTBEAT)}"
        )


def _warms(path: str) -> bool:
    """Whether this is the reactor file of the heartbeat. It does nothing but load."""
    return "selfheal.warm" in _text(path) and not _ours(path)


def _paths(master: Master, reference: str) -> list[str]:
    """The files that a reference stands for, found as the reactor finds them."""
    if reference.startswith("salt://"):
        reference = master.reactor.minion.functions["cp.cache_file"](reference) or ""
    return sorted(glob.glob(reference))  # noqa: PTH207 - absolute, as Salt takes it


def _text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")


def _ours(path: str) -> bool:
    """Whether a reactor file is the packaged one or a copy of it, so that it asks the ledger what it may do."""
    return "selfheal.attempt" in _text(path)


def _reaction(master: Master, action: Action) -> Iterator[Finding]:
    """What is wrong between the event of this action and its reactor file. Nothing if all is well."""
    tag = f"{REMEDIATE}{action.value}"
    references = [
        one for pattern, files in master.mappings if fnmatch.fnmatch(tag, pattern) for one in files
    ]
    found = []
    for reference in references:
        paths = _paths(master, reference)
        found += paths
        if not paths:
            yield fail(
                f"{tag}: there is no file {reference}",
                f"Correct the path, the one of this installation is {dropin.reference(action.value)}, and restart the salt-master.",
            )
    ours = [path for path in found if _ours(path)]
    if not references:
        yield fail(
            f"{tag} is not mapped: nothing would happen",
            f"Add `- {tag}: ['{dropin.reference(action.value)}']` to `reactor:` and restart the salt-master.",
        )
    elif found and not ours:
        yield fail(
            f"{tag} leads to no file of the healer's: nothing would come of its order",
            f"Map it to {dropin.reference(action.value)} and restart the salt-master.",
        )
    elif len(ours) > 1:
        yield fail(
            f"{tag} has {len(ours)} files where one publishes the job: {', '.join(ours)}",
            "Leave one of them under this tag.",
        )
    for path in ours:
        yield from _file(master, action, path)


def _file(master: Master, action: Action, path: str) -> Iterator[Finding]:
    tag = f"{REMEDIATE}{action.value}"
    text = _text(path)
    if not re.search(rf"""['"]{action.value}['"]""", text):
        yield fail(
            f"{tag} leads to {path}, which is for another action",
            f"Map it to {dropin.reference(action.value)} and restart the salt-master.",
        )
        return
    if not master.can_render:
        return
    try:
        rendered = master.reactor.render_template(path, tag=tag, data={"jid": UNKNOWN_JID})
    except Exception as exc:
        yield fail(
            f"{path} does not render: {type(exc).__name__}",
            f"Map {tag} to {dropin.reference(action.value)}, or reinstall the extension for this Salt.",
        )
        return
    if rendered:
        yield fail(
            f"{path} acts on an event that the healer did not send",
            f"Map {tag} to {dropin.reference(action.value)}: any minion can forge such an event.",
        )
    elif text != _text(str(dropin.packaged(action.value))):
        yield warn(
            f"{path} is not the file of this release",
            f"Map {tag} to {dropin.reference(action.value)}, which an update replaces.",
        )


def _foreign(master: Master) -> Iterator[Finding]:
    """Other people's reactor files that react to the healer's tags or hear its webhooks."""
    told = []
    for pattern, references in master.mappings:
        orders = [
            t for t in (f"{REMEDIATE}{a.value}" for a in Action) if fnmatch.fnmatch(t, pattern)
        ]
        if orders or pattern.startswith((REMEDIATE, REQUEST.rstrip("/"), DECISION.rstrip("/"))):
            paths = itertools.chain.from_iterable(_paths(master, one) for one in references)
            strange = [path for path in paths if not _ours(path)]
            if strange:
                yield warn(
                    f"{pattern} also leads to {', '.join(strange)}",
                    "Listen to selfheal/incident/* instead, and never act on such an event: any minion can forge it.",
                )
        elif pattern.startswith(OURS):
            paths = itertools.chain.from_iterable(_paths(master, one) for one in references)
            if not all(map(_warms, paths)):
                told.append(pattern)
        if _hears_hooks(pattern) and (
            master.takes_hooks or any(a.open_to_all for a in master.apis)
        ):
            yield fail(
                f"{pattern} reacts to webhooks, and this master's are open to whoever reaches them",
                "Remove this mapping, or move it to a master without these webhooks.",
            )
    if told:
        yield ok(f"reactions of your own on {', '.join(told)}")


def _hears_hooks(pattern: str) -> bool:
    tags = ("selfheal/runbook/restart", "states/highstate", "services/restart")
    return pattern.startswith(NETAPI) or any(fnmatch.fnmatch(f"{NETAPI}{t}", pattern) for t in tags)
