"""
A whole site on one machine: a Salt master with salt-api, minions, and a RethinkDB cluster that Salt starts and keeps.

The demo, the integration tests and the benchmarks all hold one ``Site``. Here stands what it consists of, in which
order that comes and goes, and how one talks to it. How each part works stands in the part's own file.

    with Site(settings=Site.cluster_settings) as site:
        site.nodes["db1"].kill()

``python -m tests.lab.site`` starts one without the healer, for trying things by hand.
"""

import argparse
import base64
import contextlib
import datetime
import importlib.util
import json
import os
import shutil
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import ClassVar

import psutil
import requests
import salt.client
import salt.config
import salt.loader
import salt.utils.event
from rethinkdb.errors import ReqlError
from standardwebhooks import Webhook

from saltext_selfheal.doctor.master import Master
from saltext_selfheal.ledger.file import lock_path
from tests.lab import daemons
from tests.lab.engine import children, lock_holder
from tests.lab.guard import Guard, GuardError
from tests.lab.listening import Events
from tests.lab.node import USER, Node
from tests.lab.ports import LOOPBACK, free_port
from tests.lab.reading import relevant
from tests.lab.reading import tail as _tail
from tests.lab.supervisor import SERVICE, Supervisor

DATABASES = ("db1", "db2", "db3")
CLUSTER = "runbook"
TABLE = ("runbook", "runbook")
CHECKOUT = Path(__file__).resolve().parents[2]

REAL, SIMULATED = "real", "simulated"


class SiteError(Exception):
    """The site could not be built, or something done to it failed."""


def server_command(server=None):
    """
    Which database server a site would run: ("real" | "simulated", argument list before the config file).

    ``server`` or SELFHEAL_LAB_SERVER forces one of the two; else the real one is taken where the variable RETHINKDB
    names it or it stands in PATH.
    """
    wanted = server or os.environ.get("SELFHEAL_LAB_SERVER") or None
    if wanted not in (None, REAL, SIMULATED):
        raise SiteError(f"unknown database server {wanted!r}: {REAL!r} and {SIMULATED!r} exist")
    named = os.environ.get("RETHINKDB")
    found = shutil.which(named or "rethinkdb")
    if named and not found and wanted != SIMULATED:
        raise SiteError(f"RETHINKDB names {named!r}, and there is no such program")
    if wanted == REAL and not found:
        raise SiteError(
            "a real RethinkDB server was asked for, and there is none: install it, or set RETHINKDB to its path, "
            f"or take SELFHEAL_LAB_SERVER={SIMULATED}"
        )
    if found and wanted != SIMULATED:
        return REAL, [found, "--config-file"]
    return SIMULATED, [sys.executable, "-m", "tests.lab.simulated", "--config-file"]


class Site:
    """
    settings
        The engine's settings: a dict, or a callable that takes the site (its nodes have their addresses by then) and
        returns one, ``Site.cluster_settings`` being the plainest. None: a master without the healer's engine.
    reactor
        The master's ``reactor`` list. By default one line per SLS of the package if there are settings.
    server
        "real", "simulated" or None, see ``server_command``.
    apps
        Minions beside the three database minions.
    hooks
        Whether a second salt-api takes webhooks. ``cluster_settings`` opens the engine's doors for them then.
    log_level
        Of the daemons' log files.
    master, minion
        More overrides for the master's and every minion's config. A callable for minions takes a minion's name.
    tell
        Called with one line of text at each stage of the start and the end.
    """

    #: Those that are up, for who tells of a failure.
    alive: ClassVar[list] = []

    def __init__(
        self,
        settings=None,
        reactor=None,
        server=None,
        apps=("app1",),
        hooks=False,
        log_level="info",
        master=None,
        minion=None,
        tell=None,
    ):
        self.settings = settings
        self.reactor = reactor
        self.server, self._command = server_command(server)
        self.apps = tuple(apps)
        self.hooks = hooks
        self.log_level = log_level
        self.tell = tell or (lambda line: None)
        self.password = os.urandom(9).hex()
        self.webhook_secret = new_webhook_secret()
        self.formula_key = os.urandom(16).hex()
        self.nodes = {}
        self.minions = {}
        self.root = None
        self.master = None
        self.api_daemon = None
        self.api_url = None
        self.hooks_daemon = None
        self.hooks_url = None
        self.supervisor = None
        self.environ = None
        self.took = {}
        self._more_master = dict(master or {})
        self._more_minion = minion if callable(minion) else lambda name: dict(minion or {})
        self._guard = None
        self._listener = None
        self._closing = False
        self._api_password = None
        self._api_token = None
        self._engine_seen = {}

    # -- coming and going ----------------------------------------------------------------------------------------

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            # Also for Ctrl-C. The folder goes with the site, so the logs must be told now.
            with contextlib.suppress(Exception):
                self._tell_logs()
            self.close()
            raise
        Site.alive.append(self)
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ValueError):
            Site.alive.remove(self)
        self.close()

    def start(self):
        """Bring everything up, the databases by a highstate. Whoever calls this must call ``close()``."""
        begin = time.monotonic()
        self._guard = Guard()
        self.root = self._guard.root
        self.environ = {**os.environ, **self._guard.environ}
        self._lay_out()

        self.tell(f"salt-master and supervisord start in {self.root}")
        self._together(self.master.start, self.supervisor.start)
        self.engine_pid()
        self._note("master", begin)

        self.tell(f"{len(self.minions)} minions and salt-api start")
        with self.events("salt/minion/*/start") as events:
            later = [self.api_daemon, self.hooks_daemon, *self.minions.values()]
            self._together(*(daemon.start for daemon in later if daemon is not None))
            for minion_id in self.minions:
                events.wait(f"salt/minion/{minion_id}/start", timeout=120)
        self.engine_pid()
        self._note("minions", begin)

        self.tell(f"a highstate installs and starts the {self.server} RethinkDB nodes")
        self.highstate()
        for node in self.nodes.values():
            node.remember_config()
            node.wait_serving(60)
        self._note("nodes", begin)
        if self.server == REAL:
            self.tell("the nodes join, the table gets its replicas")
            self._create_table()
        self._note("up", begin)
        self.tell(f"the site is up after {self.took['up']:.1f} s")

    def _note(self, what, begin):
        self.took[what] = time.monotonic() - begin

    def close(self):
        """Bring everything down: politely, and what does not go by the guard. Twice does no harm."""
        if self._guard is None or self._closing:
            return
        self._closing = True
        begin = time.monotonic()
        self.tell("the site goes down")
        try:
            self._end_daemons()
        finally:
            self._guard.release()
            # all are dead by now, this only takes their exit codes
            for daemon in self._daemons():
                with contextlib.suppress(Exception):
                    daemon.terminate()
            if self.supervisor is not None:
                self.supervisor.reap()
            self.took["down"] = time.monotonic() - begin
        self.tell(f"the site is down after {self.took['down']:.1f} s")

    def _end_daemons(self):
        """
        SIGTERM to all, and a short wait. Whoever needs longer is not waited for: the guard is next.

        Minions get SIGKILL: after SIGTERM one sleeps for 5 s (salt/minion.py, 3008), and has nothing to save.
        """
        asked = []
        for daemon in self._daemons():
            with contextlib.suppress(psutil.Error):
                if daemon.is_running():
                    process = psutil.Process(daemon.pid)
                    if daemon in self.minions.values():
                        process.kill()
                    else:
                        process.terminate()
                    asked.append(process)
        ends = [lambda: psutil.wait_procs(asked, timeout=2.5)]
        if self.supervisor is not None:
            ends.append(self.supervisor.stop)
        if self._listener is not None:
            ends.append(self._listener.stop)
        _run_together(ends)

    def _daemons(self):
        daemons_now = (*self.minions.values(), self.hooks_daemon, self.api_daemon, self.master)
        return [d for d in daemons_now if d is not None]

    def _together(self, *starts):
        def start_unless_closing(start):
            if not self._closing:
                return start()

        _run_together([lambda start=start: start_unless_closing(start) for start in starts])

    # -- what it consists of -------------------------------------------------------------------------------------

    def _lay_out(self):
        """Write every config. Starts nothing but the factories' event listener."""
        manager, self._listener = daemons.factories(self.root, self._guard.environ)
        self.supervisor = Supervisor(
            self.root / "init",
            {name: [*self._command, str(self._config_path(name))] for name in DATABASES},
            self.environ,
            CHECKOUT,
        )
        for name in DATABASES:
            self.nodes[name] = Node(
                minion_id=name,
                driver_port=free_port(),
                cluster_port=free_port(),
                config_path=self._config_path(name),
                directory=self.root / "data" / name,
                password=self.password,
                _supervisor=self.supervisor,
            )
        # RethinkDB makes its own directory, but not the one above
        (self.root / "data").mkdir()

        settings = self.settings(self) if callable(self.settings) else self.settings
        engines = []
        reactor = self.reactor
        if settings is not None:
            engines.append({"selfheal": settings})
            reactor = package_reactor() if reactor is None else reactor
        if reactor:
            # named, or `salt-run reactor.*` says that it does not run
            engines.insert(0, {"reactor": {}})
        api_port = free_port()
        config, self._api_password = daemons.master_config(
            self.root, self.log_level, api_port, self.apps, engines, reactor
        )
        config.update(self._more_master)
        self.master = manager.salt_master_daemon(
            "master", overrides=config, factory_class=daemons.LabMaster, max_start_attempts=1
        )
        self._write_pillar()
        self.api_url = f"http://{LOOPBACK}:{api_port}"
        self.api_daemon = manager.salt_api_daemon(
            self.master, factory_class=daemons.LabApi, max_start_attempts=1
        )
        if self.hooks:
            hooks_port = free_port()
            self.hooks_url = f"http://{LOOPBACK}:{hooks_port}"
            self.hooks_daemon = manager.hooks_daemon(
                daemons.hooks_config(self.root, self.master, hooks_port)
            )
        for name in (*DATABASES, *self.apps):
            socket, witness = None, None
            if name in DATABASES:
                socket = self.supervisor.socket
                witness = {
                    "config": str(self._config_path(name)),
                    "log": str(self.supervisor.errors(name)),
                }
            config = daemons.minion_config(self.log_level, socket, witness)
            overrides = {**config, **self._more_minion(name)}
            self.minions[name] = manager.salt_minion_daemon(
                name,
                master=self.master,
                overrides=overrides,
                factory_class=daemons.LabMinion,
                max_start_attempts=1,
            )

    def _config_path(self, name):
        return self.root / "etc" / f"{name}.conf"

    def _write_pillar(self):
        tree = Path(self.master.config["pillar_roots"]["base"][0])
        top = {"base": {name: [name] for name in self.nodes}}
        (tree / "top.sls").write_text(json.dumps(top))
        for name, node in self.nodes.items():
            peers = [
                f"{LOOPBACK}:{peer.cluster_port}" for peer in self.nodes.values() if peer != node
            ]
            values = {
                "config_path": str(node.config_path),
                "directory": str(node.directory),
                "driver_port": node.driver_port,
                "cluster_port": node.cluster_port,
                "server_name": name,
                "join": peers,
                "password": node.password,
            }
            (tree / f"{name}.sls").write_text(json.dumps({"rethinkdb": values}))

    def _create_table(self):
        """Once the nodes have joined; again where a healer that took the site's start for an outage came between."""
        give_up_at = time.monotonic() + 90
        while True:
            try:
                driver, connection = self.nodes["db1"].connect()
                try:
                    self._create_table_through(driver, connection, give_up_at)
                finally:
                    connection.close(noreply_wait=False)
                return
            except ReqlError as exc:
                if time.monotonic() > give_up_at:
                    raise SiteError(f"the table could not be made: {exc}") from exc
                time.sleep(0.2)

    def _create_table_through(self, driver, connection, give_up_at):
        database, table = TABLE
        status = driver.db("rethinkdb").table("server_status")
        while status.count().run(connection) < len(self.nodes):
            if time.monotonic() > give_up_at:
                raise SiteError("the RethinkDB nodes did not join each other in time")
            time.sleep(0.05)
        if database not in driver.db_list().run(connection):
            driver.db_create(database).run(connection)
        if table not in driver.db(database).table_list().run(connection):
            driver.db(database).table_create(table, replicas=len(self.nodes)).run(connection)
        made = driver.db(database).table(table)
        made.wait(wait_for="all_replicas_ready", timeout=30).run(connection)

    def cluster_settings(self, engine=None, **overrides):
        """
        Settings of the engine for this site: one cluster ``runbook`` with these nodes; on a site with hooks also the
        caller ``runbook-web``, who signs with ``webhook_secret``, and the article's interface with ``formula_key``.

        ``overrides`` go into the cluster (``poll="500ms"``), ``engine`` beside it (``{"mode": "shadow"}``).
        """
        cluster = {
            "minions": "db*",
            "nodes": {name: node.address for name, node in self.nodes.items()},
            "service": SERVICE,
            "user": USER,
            "password": self.password,
            # The site's own highstates and starts are somebody else's work. They must not hold up what comes next.
            "foreign": {"grace": "1s", "most": "1m"},
            **overrides,
        }
        doors = {}
        if self.hooks:
            caller = {"secret": self.webhook_secret, "clusters": [CLUSTER]}
            doors = {
                "webhooks": {daemons.API_USER: caller},
                "formula_secretkey": self.formula_key,
            }
        return {"clusters": {CLUSTER: cluster}, **doors, **(engine or {})}

    # -- talking to it -------------------------------------------------------------------------------------------

    @property
    def master_config_path(self):
        return Path(self.master.config_file)

    def master_opts(self):
        """The master's options as the master itself loads them; a fresh copy."""
        return salt.config.master_config(str(self.master_config_path))

    def local_client(self):
        """A ``LocalClient`` of one's own: it is not thread-safe."""
        return salt.client.LocalClient(mopts=self.master_opts())

    def call(self, target, function, *args, timeout=30, **kwargs):
        """Run a function on minions: minion id → the full return (``ret``, ``retcode``, ``jid``)."""

        def publish_and_wait():
            with self.local_client() as client:
                return client.cmd(
                    target, function, args, timeout=timeout, kwarg=kwargs or None, full_return=True
                )

        return _in_a_thread(publish_and_wait)

    def publish(self, target, function, *args, **kwargs):
        """Let minions run a function, and do not wait for it: the JID."""

        def publish_only():
            with self.local_client() as client:
                return client.cmd_async(target, function, args, kwarg=kwargs or None)

        return _in_a_thread(publish_only)

    def highstate(self, target="db*", timeout=120):
        """A highstate that must succeed. Minion id → {state id: result}."""
        returned = self.call(target, "state.highstate", timeout=timeout)
        if not returned:
            raise SiteError(f"no minion answered a highstate on {target!r}")
        failed = {}
        for minion_id, answer in returned.items():
            states = answer.get("ret")
            if answer.get("retcode") or not isinstance(states, dict):
                if isinstance(states, dict):
                    states = [s["comment"] for s in states.values() if s["result"] is False]
                failed[minion_id] = states
        if failed:
            raise SiteError(f"highstate failed: {failed}")
        return {
            minion_id: {state["__id__"]: state for state in answer["ret"].values()}
            for minion_id, answer in returned.items()
        }

    def events(self, *globs):
        """Collect events of the master's bus: ``with site.events("selfheal/*") as events: events.wait(…)``."""
        return Events(self.master_opts(), *globs)

    def fire(self, tag, data=None):
        """Fire an event on the master's bus."""
        opts = self.master_opts()
        with salt.utils.event.get_master_event(opts, opts["sock_dir"], listen=False) as bus:
            return bus.fire_event(dict(data or {}), tag)

    def run_runner(self, function, *args, **kwargs):
        """A runner's function in this process, through Salt's loader: its return value, or what it raised."""
        # Not RunnerClient: it would store a job for each call, and 3008 complains at exit of what that leaves open.
        return _in_a_thread(
            lambda: salt.loader.runner(self.master_opts())[function](*args, **kwargs)
        )

    def salt_run(self, *args, timeout=60, **kwargs):
        """``salt-run`` as an operator types it: ``returncode``, ``stdout``, ``stderr``, ``data``."""
        return self.master.salt_run_cli(timeout=timeout).run(*args, **kwargs)

    def api_login(self):
        """Log in as ``runbook-web``; the token for ``X-Auth-Token``."""
        answer = requests.post(
            f"{self.api_url}/login",
            json={"eauth": "file", "username": daemons.API_USER, "password": self._api_password},
            headers={"Accept": "application/json"},
            timeout=30,
        )
        answer.raise_for_status()
        self._api_token = answer.json()["return"][0]["token"]
        return self._api_token

    @property
    def api_credentials(self):
        """What ``/run`` and ``/login`` want: eauth, username, password."""
        return {"eauth": "file", "username": daemons.API_USER, "password": self._api_password}

    def api(self, timeout=60, **low):
        """One low state through salt-api, as ``runbook-web``: the ``requests`` response, whatever its status."""
        token = self._api_token or self.api_login()
        return requests.post(
            f"{self.api_url}/",
            json=[low],
            headers={"Accept": "application/json", "X-Auth-Token": token},
            timeout=timeout,
        )

    def hook(self, path, body=b"", secret=None, id=None, at=None, headers=None, timeout=30):
        """
        POST to ``/hook/<path>``: the ``requests`` response, whatever its status.

        ``body``: bytes, text, or what becomes JSON; a dict gets the cluster and the action of the path. With a
        ``secret`` it is signed as Standard Webhooks says, as
        message ``id`` (default: a new one) of the time ``at``; ``headers`` come on top.
        """
        if isinstance(body, dict):
            body = {**addressed(path), **body}
        if not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
        given = {"Content-Type": "application/json", "Accept": "application/json"}
        if secret is not None:
            given.update(sign(secret, text, id, at))
        return requests.post(
            f"{self.hooks_url}/hook/{path}",
            data=text.encode() if isinstance(body, str) else body,
            headers={**given, **(headers or {})},
            timeout=timeout,
        )

    def engine_pid(self):
        """
        Pid of the healer's engine among the master's children: of the one that holds the ledger's lock. None if none
        does: there is no healer, or it has not begun, or it waits for a ledger that another holds.
        """
        lock = lock_path(Master(self.master_opts()).ledger_path)
        pid = lock_holder(lock, children(self.master.pid))
        if pid is not None:
            self._engine_seen.setdefault(pid, time.monotonic())
        return pid

    def engine(self):
        """The engine's process. SiteError if there is none: psutil takes None for the caller's own process."""
        pid = self.engine_pid()
        if pid is None:
            raise SiteError("no engine holds the ledger")
        return psutil.Process(pid)

    def wait_until_warm(self):
        """Wait until the engine has held the ledger for so long that it may act."""
        give_up_at = time.monotonic() + 60
        while (pid := self.engine_pid()) is None:
            if time.monotonic() > give_up_at:
                raise TimeoutError("no engine has taken the ledger within 60 s")
            time.sleep(0.1)
        # Not the process's age: that of one that has waited for the ledger says nothing.
        held_s = time.monotonic() - self._engine_seen[pid]
        time.sleep(max(0.0, 18.0 - held_s))

    def wait_until_quiet(self):
        """Wait until the engine is warm, every node serves and no incident is open."""
        self.wait_until_warm()
        with self.events("selfheal/incident/*") as events:
            for node in self.nodes.values():
                node.wait_serving(60)
            # It saw the site's own start as an outage, too.
            while any(
                c["incidents"] for c in self.run_runner("selfheal.status")["clusters"].values()
            ):
                ended = len(events.matching("*/resolved"))
                events.wait("*/resolved", count=ended + 1, timeout=60)

    def logs(self):
        """Name → path of every log file there is."""
        paths = [*self.root.glob("*/logs/*.log"), *self.root.glob("init/*.log")]
        paths += [*self.root.glob("init/*.err"), *self.root.glob("init/*.out")]
        return {str(path.relative_to(self.root)): path for path in sorted(paths)}

    def last_lines(self, since=None, most=30):
        """
        At most so many lines of the logs that may say why something failed, in the order of time: warnings, errors,
        and what the healer says. ``since``: none that is older, by the wall clock.
        """
        return relevant({name: _tail(path) for name, path in self.logs().items()}, since, most)

    def _tell_logs(self):
        for line in self.last_lines():
            self.tell(line)


def package_reactor():
    """The ``reactor`` list of a master that heals: one line per SLS file shipped in the package."""
    package = importlib.util.find_spec("saltext_selfheal")
    if package is None:
        raise SiteError(
            "saltext_selfheal is not installed in this environment: pip install -e '.[tests]'"
        )
    folder = Path(package.submodule_search_locations[0]) / "reactor"
    return [{reactor_tag(sls): [str(sls)]} for sls in sorted(folder.glob("*.sls"))]


def reactor_tag(sls):
    """The tag that leads to this SLS file of the package."""
    return f"selfheal/{'engine' if sls.stem == 'heartbeat' else 'remediate'}/{sls.stem}"


def new_webhook_secret():
    """A secret as the settings want it."""
    return f"whsec_{base64.b64encode(os.urandom(24)).decode()}"


def addressed(path):
    """What a signed body must say of the path ``selfheal/<cluster>/<action>`` that it goes to."""
    parts = path.split("/")
    return {"cluster": parts[1], "action": parts[2]} if len(parts) == 3 else {}


def sign(secret, text, id=None, at=None):
    """The three headers of a signed webhook."""
    id = id or uuid.uuid4().hex
    at = at or datetime.datetime.now(tz=datetime.timezone.utc)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(id, at, text),
    }


def _run_together(functions):
    """
    Run each in a thread, wait for all, raise the first error. Daemon threads, no pool: after Ctrl-C nobody waits for
    them, neither here nor at the interpreter's exit.
    """
    errors = []

    def run(function):
        try:
            function()
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=run, args=(f,), daemon=True) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _in_a_thread(function):
    """
    Call it in a thread and wait: Salt's clients catch a KeyboardInterrupt that hits their event loop and go on waiting
    for minions that no longer exist; a thread is never hit.
    """
    values = []
    _run_together([lambda: values.append(function())])
    return values[0]


def main():
    """A site for trying things by hand."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.site", description=main.__doc__)
    parser.add_argument("--server", choices=[REAL, SIMULATED], help="default: real where it exists")
    parser.add_argument("--log-level", default="info")
    options = parser.parse_args()
    try:
        with Site(server=options.server, log_level=options.log_level, tell=print) as site:
            print(f"\nfolder     {site.root}   (gone at the end)")
            print(
                f"salt       salt -c {site.master_config_path.parent} 'db*' service.status rethinkdb"
            )
            print(f"salt-api   {site.api_url}   {json.dumps(site.api_credentials)}")
            for node in site.nodes.values():
                print(f"{node.minion_id:10} {node.address}   {site.server}, pid {node.pid()}")
            print(f"{'':10} user {USER}, password {site.password}")
            print("\nCtrl-C ends it.")
            threading.Event().wait()
    except KeyboardInterrupt:
        print()
    except (SiteError, GuardError) as exc:
        raise SystemExit(f"error: {exc}") from exc


if __name__ == "__main__":
    main()
