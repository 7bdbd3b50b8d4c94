"""Who may ask the healer for what, and by which way they come in: permission lists, salt-api, its hooks.

Checks of the doctor's, as those in `doctor`.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import permissions
from .patient import Api
from .patient import Finding
from .patient import Master
from .patient import fail
from .patient import ok
from .patient import warn

# ---------------------------------------------------------------- who may ask for what


def check_permissions(master: Master) -> Iterator[Finding]:
    by_who: dict[str, list[permissions.Grant]] = {}
    for grant in permissions.external(master.opts):
        by_who.setdefault(grant.who, []).append(grant)
    for who, grants in by_who.items():
        concerns = list(_concerns(who, grants))
        yield from concerns
        if not concerns:
            yield ok(f"{who} may {', '.join(sorted({n for g in grants for n in g.names}))}")
    if not by_who:
        yield ok("external_auth lets nobody call the healer")


def _concerns(who: str, grants: list[permissions.Grant]) -> Iterator[Finding]:
    """What somebody may do that an application need not."""
    for whole in sorted({g.whole for g in grants if g.whole}):
        yield warn(
            f"{who} may call {whole}, not only the healer's",
            "Give an application no more than '@selfheal': ['trigger$', 'status$'].",
        )
    some = [g for g in grants if not g.whole]
    orders = {n for g in some for n in g.names if n in permissions.FOR_OPERATORS}
    if orders:
        yield warn(
            f"{who} may {', '.join(n for n in permissions.FOR_OPERATORS if n in orders)}",
            "Leave these to people: an application needs trigger$ and status$ only.",
        )
    loose = [g.pattern for g in some if g.loose and not orders.intersection(g.names)]
    if loose:
        yield warn(
            f"{who}: {', '.join(loose)} also allows every function that begins so",
            "End such a pattern with $, as in trigger$.",
        )


def check_peers(master: Master) -> Iterator[Finding]:
    good = True
    for option in ("peer", "peer_run"):
        for grant in permissions.peers(master.opts, option):
            if grant.whole or grant.loose or set(grant.names) - {"trigger"}:
                good = False
                yield warn(
                    f"{option}: minions {grant.who!r} may call {grant.pattern}, which is more than selfheal.trigger",
                    "Allow minions selfheal.trigger$ and no more of the healer.",
                )
    if good:
        yield ok("no minion may call more of the healer than selfheal.trigger")


# ---------------------------------------------------------------- salt-api and its hooks


def _called(api: Api) -> str:
    return f"salt-api of {api.name}" if api.name else "salt-api"


def check_salt_api(master: Master) -> Iterator[Finding]:
    if master.api_config and len(master.apis) == 1:
        yield fail(
            f"there is no {master.api_config}",
            "Give api_config the path of that salt-api's master configuration file.",
        )
    for api in master.apis:
        yield from _api(master, api)


def _api(master: Master, api: Api) -> Iterator[Finding]:
    of = f"{api.name}: " if api.name else ""
    if not api.rest:
        yield ok(f"{of}no rest_cherrypy is configured")
        return
    clients = ", ".join(api.clients)
    told = f"clients: {clients}" if clients else "no client is enabled: nobody can ask by /run"
    yield ok(of + told)
    if api.rest.get("disable_ssl") and not api.on_loopback:
        yield fail(
            f"{of}disable_ssl on {api.host}: passwords and tokens travel in clear",
            "Set ssl_crt and ssl_key, or host: 127.0.0.1 with a proxy that speaks TLS in front.",
        )
    if api.opts.get("sock_dir") != master.opts.get("sock_dir"):
        yield fail(
            f"{of}its sock_dir is {api.opts.get('sock_dir')}, the master's is {master.opts.get('sock_dir')}",
            "Give both the same sock_dir, or what this salt-api hears never reaches the master.",
        )
    if master.takes_formula and api.opts.get("external_auth"):
        yield warn(
            f"{of}whoever can log in can read formula_secretkey from /events",
            "Keep /events behind a proxy that does not let it pass, or use signed webhooks instead.",
        )


def check_hooks(master: Master) -> Iterator[Finding]:
    taking = [api for api in master.apis if api.rest]
    serving = [api for api in taking if api.open_to_all] or taking
    if not master.takes_hooks and not any(api.open_to_all for api in taking):
        yield ok("no webhooks are configured")
        return
    found = [*_open_hooks(taking), *_threads(master, serving), *_traces_of_key(master)]
    if not serving:
        found.append(
            warn(
                "webhooks are configured, and no salt-api that would take them is known",
                "Name its configuration: salt-run selfheal.doctor api_config=/etc/salt/hooks/master.",
            )
        )
    yield from found
    if not found:
        yield ok("served by a salt-api for hooks only")


def _open_hooks(taking: list[Api]) -> Iterator[Finding]:
    for api in taking:
        if not api.open_to_all:
            continue
        if api.clients:
            yield fail(
                f"{_called(api)} has webhook_disable_auth together with the clients {', '.join(api.clients)}",
                "Serve hooks by a salt-api of their own, with netapi_enable_clients: [].",
            )
        if not api.on_loopback:
            yield warn(
                f"{_called(api)} takes hooks without a login on {api.host}",
                "Set host: 127.0.0.1, with a proxy in front that lets only /hook/selfheal/ pass.",
            )


def _threads(master: Master, serving: list[Api]) -> Iterator[Finding]:
    for api in serving if master.takes_hooks else ():
        threads = api.rest.get("thread_pool", 100)
        if threads != 1:
            yield warn(
                f"{_called(api)} has thread_pool {threads}: hooks that come together get a 500, though they were heard",
                "Set thread_pool: 1 for the salt-api that serves hooks.",
            )


def _traces_of_key(master: Master) -> Iterator[Finding]:
    """Salt fires a hook with its body, and the key of the formula's routes stands in there."""
    if not master.takes_formula:
        return
    opts = master.opts
    remedy = "{}, or remove formula_secretkey: every call puts the key on the event bus."
    if opts.get("event_return"):
        yield warn(
            "event_return stores every event, and formula_secretkey with it",
            remedy.format("Exclude salt/netapi/hook/* by event_return_blacklist"),
        )
    for option in ("log_level", "log_level_logfile"):
        if str(opts.get(option) or "").lower() in ("debug", "trace", "garbage", "all"):
            yield warn(
                f"`{option}: {opts[option]}` may log events, and formula_secretkey with them",
                remedy.format(f"Set {option} to info"),
            )
