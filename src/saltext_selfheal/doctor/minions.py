"""Checks of the minions: whether each node's key is accepted, and whether a minion can use another minion's name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..healing.model import Mode
from ..loop.minions import Key, keys
from . import returns
from .master import Finding, Master, fail, ok, warn


def check_minions(master: Master) -> Iterator[Finding]:
    if master.settings is None:
        return
    policies = master.settings.policies()
    found = keys(master.opts, [node for policy in policies.values() for node in policy.nodes]).of
    accepted = 0
    for cluster, policy in policies.items():
        acts = policy.mode in (Mode.AUTO, Mode.APPROVE)
        for node in policy.nodes:
            key = found[node]
            if key is Key.ACCEPTED:
                accepted += 1
                continue
            yield (fail if acts else warn)(
                f"{cluster}: {node} has no accepted key"
                f"{'' if key is Key.NONE else ', it ' + key.value}: an action would reach nobody",
                f"Accept the minion's key (salt-key -a {node}), or name the node by the minion id that it has.",
            )
    if accepted:
        yield ok(f"{accepted} nodes have an accepted key")


def check_results(master: Master) -> Iterator[Finding]:
    """Whether a minion can store a result under another minion's name."""
    opts = master.opts
    if opts.get("ext_job_cache"):
        yield warn(
            f"minions write their results into {opts['ext_job_cache']} themselves: whoever can write there can write "
            "any minion's",
            "Remove ext_job_cache, so that results pass through the master; in any case a result is only a hint to "
            "the healer (docs/security.md).",
        )
        return
    if not returns.honest_is_stored(opts):
        yield fail(
            f"require_minion_sign_messages without {returns.ALGORITHM}: this Salt stores no result at all",
            f"Set {returns.ALGORITHM} to what the minions have, such as {returns.SIGNED[returns.ALGORITHM]}, and "
            "restart the salt-master.",
        )
    found = returns.open_routes(opts)
    old = returns.Route.OLD_PROTOCOL
    if old in found:
        yield warn(
            f"any minion can store a result under another's name, by {old.value}",
            f"Set minimum_auth_version: {returns.COMPARED_SINCE}, and restart the salt-master; update a Salt that does "
            "not know that option.",
        )
    others = [route for route in found if route is not old]
    if others:
        yield warn(
            "any minion can store a result under another's name, by "
            + " and ".join(route.value for route in others),
            _results_remedy(opts, others),
        )
    if not found:
        yield ok("this Salt stores what a minion says under its own name only")


def _results_remedy(opts: Mapping[str, Any], found: list[returns.Route]) -> str:
    settings = ", ".join(
        f"{k}: {str(v).lower() if v is True else v}" for k, v in returns.SIGNED.items()
    )
    left = returns.open_routes({**opts, **returns.SIGNED})
    if not set(found) & set(left):
        return (
            f"Set {settings}, and minion_sign_messages: true on every minion, try it on one job, and restart the "
            "salt-master."
        )
    return (
        "No setting of this Salt stops it. Keep minions that you do not trust on a master of their own. A result is "
        "only a hint to the healer: docs/security.md says what such a lie can do."
    )
