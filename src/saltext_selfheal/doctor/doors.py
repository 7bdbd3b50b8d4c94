"""Checks who may ask the healer for what, and by which way: permission lists, salt-api, and its hooks."""

from __future__ import annotations

import fnmatch
import grp
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..driver.tags import NETAPI
from . import permissions
from .master import CLIENTS, Api, Finding, Master, fail, may_read, ok, warn

#: The routes of the article's interface. Their callers send the key in the body.
WITH_KEY = (
    "states/highstate",
    "services/restart",
    "services/start",
    "services/stop",
    "services/reload",
    "cmd/run",
    "cmd/script",
)
SHADOW = Path("/etc/shadow")

# ---------------------------------------------------------------- who may ask for what


def check_permissions(master: Master) -> Iterator[Finding]:
    yield from _backends(master)
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


def _backends(master: Master) -> Iterator[Finding]:
    """Ways to log in that let in too many people, or nobody."""
    listed = permissions.backends(master.opts)
    if "auto" in listed:
        yield fail(
            "external_auth: auto lets in whoever comes, with any name and any password",
            "Remove auto, and give each application an account by another eauth, such as pam or file.",
        )
    if "sharedsecret" in listed:
        if master.opts.get("sharedsecret"):
            yield warn(
                "external_auth: sharedsecret lets whoever knows the one secret come with any name",
                "Give each application an account by another eauth, such as pam or file.",
            )
        else:
            yield fail(
                "external_auth: sharedsecret without the option sharedsecret lets in whoever gives no password",
                "Remove sharedsecret from external_auth.",
            )
    if listed.get("pam") and SHADOW.exists() and not may_read(master.user, SHADOW):
        yield warn(
            f"external_auth: pam refuses the password of every local account while the master runs as "
            f"{master.user}, who cannot read {SHADOW}",
            _shadow_remedy(master.user),
        )


def _shadow_remedy(user: str) -> str:
    about = SHADOW.stat()
    group = grp.getgrgid(about.st_gid).gr_name
    if about.st_mode & stat.S_IRGRP and group != "root":  # as on Debian, a group may read the file
        return f"usermod -a -G {group} {user} && systemctl restart salt-master salt-api"
    return "Use another eauth, such as file, or run the master as root (`user: root`)."


def _concerns(who: str, grants: list[permissions.Grant]) -> Iterator[Finding]:
    """Findings about rights that somebody has and an application does not need."""
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
        grants = permissions.peers(master.opts, option)
        for who in dict.fromkeys(grant.who for grant in grants):
            if not permissions.is_pattern(who):
                good = False
                yield warn(
                    f"{option}: {who!r} is no regular expression, and while it stands there no minion is answered",
                    "Name minions by regular expressions, such as app1$ or app.*.",
                )
            elif not permissions.says_its_end(who):
                good = False
                yield warn(
                    f"{option}: {who!r} also means every minion whose id begins so",
                    "It is a regular expression: end it with $, or with .* if all of these are meant.",
                )
        for grant in grants:
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
    yield from _shut_out(master)


def _api(master: Master, api: Api) -> Iterator[Finding]:
    of = f"{api.name}: " if api.name else ""
    if not api.rest:
        other = "; rest_tornado is, and is not looked at" if api.opts.get("rest_tornado") else ""
        yield ok(f"{of}no rest_cherrypy is configured{other}")
        return
    yield from _clients(api, of)
    yield from _start(api, of)
    if api.rest.get("disable_ssl") and not api.on_loopback:
        yield fail(
            f"{of}disable_ssl on {api.host}: passwords and tokens travel in clear",
            "Set ssl_crt and ssl_key, or host: 127.0.0.1 with a proxy that speaks TLS in front.",
        )
    if api.opts.get("sock_dir") != master.opts.get("sock_dir"):
        yield fail(
            f"{of}its sock_dir is {api.opts.get('sock_dir')}, the master's is {master.opts.get('sock_dir')}: "
            "what it hears never reaches the master",
            _sock_dir_remedy(master.opts, api.opts),
        )
    if master.takes_formula and api.opts.get("external_auth"):
        yield warn(
            f"{of}whoever can log in can read formula_secretkey from /events",
            "Keep /events behind a proxy that does not let it pass, or use signed webhooks instead.",
        )


def _clients(api: Api, of: str) -> Iterator[Finding]:
    clients = ", ".join(api.clients)
    if not isinstance(api.listed, list):
        yield warn(
            f"{of}netapi_enable_clients is no list; what Salt finds in it: {clients or 'nothing'}",
            f"Write a list, such as netapi_enable_clients: [{clients or 'runner'}], and restart salt-api.",
        )
        return
    unknown = [str(one) for one in api.listed if one not in CLIENTS]
    if unknown:
        yield warn(
            f"{of}netapi_enable_clients names what is no client: {', '.join(unknown)}",
            f"Allowed: {', '.join(CLIENTS)}.",
        )
    yield ok(
        of + (f"clients: {clients}" if clients else "no client is enabled: nobody can ask by /run")
    )


def _start(api: Api, of: str) -> Iterator[Finding]:
    """Reasons why Salt would not start rest_cherrypy with these options."""
    if "port" not in api.rest:
        yield fail(
            f"{of}rest_cherrypy has no port, and is not started",
            "Set a port, such as port: 8000, and restart salt-api.",
        )
    if api.rest.get("disable_ssl"):
        return
    lacking = [option for option in ("ssl_crt", "ssl_key") if not api.rest.get(option)]
    if lacking:
        yield fail(
            f"{of}rest_cherrypy has no {' and no '.join(lacking)}, and is not started",
            "Set ssl_crt and ssl_key, or disable_ssl: true with host: 127.0.0.1 and a proxy that speaks TLS in front.",
        )
        return
    for option in ("ssl_crt", "ssl_key"):
        path = Path(str(api.rest[option]))
        if not path.exists():
            yield fail(
                f"{of}{option}: {api.user} finds no {path}, and rest_cherrypy is not started",
                f"Put the file there, or correct the path, and let {api.user} into its folder; restart salt-api.",
            )
        elif not may_read(api.user, path):
            yield fail(
                f"{of}{option}: {api.user} cannot read {path}, and rest_cherrypy is not started",
                f"chgrp {api.user} {path} && chmod 640 {path} && systemctl restart salt-api",
            )


def _sock_dir_remedy(wanted: Mapping[str, Any], opts: Mapping[str, Any]) -> str:
    remedy = f"Set sock_dir: {wanted.get('sock_dir')} there"
    # Salt 3006 to 3008 takes this for a sock_dir that is more than ten characters longer than cachedir.
    if any(str(one.get("sock_dir")).endswith("/.salt-unix") for one in (wanted, opts)):
        remedy += f", and cachedir: {wanted.get('cachedir')}: Salt replaces a sock_dir that is much longer than cachedir"
    return f"{remedy}; restart that salt-api."


def _shut_out(master: Master) -> Iterator[Finding]:
    """Rights that nobody can use, because no salt-api takes such calls.

    Rights to call everything are left out: those who have them are no applications.
    """
    # Rest_tornado has no list of clients.
    if any(api.opts.get("rest_tornado") for api in master.apis):
        return
    serving = [api for api in master.apis if api.rest]
    enabled = {client.partition("_")[0] for api in serving for client in api.clients}
    some = [g for g in permissions.external(master.opts) if "trigger" in g.names and not g.whole]
    for client in permissions.NAMES:
        who = ", ".join(sorted({g.who for g in some if g.client == client}))
        if who and not serving:
            yield warn(
                f"{who} may ask by the client {client}, and no salt-api is configured",
                f"Set rest_cherrypy, and netapi_enable_clients: [{client}]; if another configuration has it, name "
                "that: salt-run selfheal.doctor api_config=….",
            )
        elif who and client not in enabled:
            yield warn(
                f"{who} may ask by the client {client}, which is not enabled: salt-api answers 400",
                f"Add {client} to netapi_enable_clients and restart salt-api.",
            )


def check_hooks(master: Master) -> Iterator[Finding]:
    serving = [api for api in master.apis if api.rest and api.open_to_all]
    if not master.takes_hooks and not serving:
        yield ok("no webhooks are configured")
        return
    found = [*_open_hooks(serving), *_traces_of_key(master)]
    if master.takes_hooks:
        found += _threads(serving) if serving else _not_looked_at(master)
    yield from found
    if not found:
        yield ok("served by a salt-api for hooks only")


def _not_looked_at(master: Master) -> Iterator[Finding]:
    named = master.apis[1:]
    if named:
        yield warn(
            f"{_called(named[0])} takes no hooks without a login, and who sends a signed one has none",
            "Set webhook_disable_auth: true below its rest_cherrypy, and restart that salt-api.",
        )
        return
    beside = Path(str(master.opts.get("conf_file") or "/etc/salt/master")).parent
    yield warn(
        "webhooks are configured, and their salt-api has a configuration of its own, which has not been looked at",
        f"Name it: salt-run selfheal.doctor api_config={beside / 'hooks' / 'master'}",
    )


def _open_hooks(serving: list[Api]) -> Iterator[Finding]:
    for api in serving:
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


def _threads(serving: list[Api]) -> Iterator[Finding]:
    for api in serving:
        threads = api.rest.get("thread_pool", 100)
        if threads != 1:
            yield warn(
                f"{_called(api)} has thread_pool {threads}: hooks that come together get a 500, though they were heard",
                "Set thread_pool: 1 for the salt-api that serves hooks.",
            )


def _stored(opts: Mapping[str, Any], tag: str) -> bool:
    """Whether ``event_return`` stores this event, by the same rules as in Salt (3006 to 3008)."""
    wanted, unwanted = (
        [str(one) for one in opts.get(f"event_return_{which}") or []]
        for which in ("whitelist", "blacklist")
    )
    taken = not wanted or any(fnmatch.fnmatch(tag, one) for one in wanted)
    return taken and not any(fnmatch.fnmatch(tag, one) for one in unwanted)


def _traces_of_key(master: Master) -> Iterator[Finding]:
    """Places where the article's key is left behind: Salt fires a hook with its body, and the key is in the body."""
    if not master.takes_formula:
        return
    remedy = "{}, or remove formula_secretkey: every call puts the key on the event bus."
    if master.opts.get("event_return") and any(
        _stored(master.opts, f"{NETAPI}{route}") for route in WITH_KEY
    ):
        yield warn(
            "event_return stores hooks, and formula_secretkey with them",
            remedy.format(f"Add {NETAPI}* to event_return_blacklist and restart the salt-master"),
        )
    for api in master.apis:  # the first one has the master's own options
        of = f"{api.name}: " if api.name else ""
        for option in ("log_level", "log_level_logfile"):
            if str(api.opts.get(option) or "").lower() in ("debug", "trace", "garbage", "all"):
                yield warn(
                    f"{of}`{option}: {api.opts[option]}` may log events, and formula_secretkey with them",
                    remedy.format(f"Set {option} to info"),
                )
