"""
The Salt daemons of a site: their configuration, and pytest-salt-factories' classes made to fit one shared folder.

Only what a daemon needs to know stands here; when it starts and what it is for is ``site.py``'s business.
"""

import json
import logging
import os
import shutil
import time
from pathlib import Path

from pytestshellutils.utils import ports
from saltfactories.daemons.api import SaltApi
from saltfactories.daemons.master import SaltMaster
from saltfactories.daemons.minion import SaltMinion
from saltfactories.manager import FactoriesManager
from saltfactories.plugins.event_listener import EventListener

from tests.lab.ports import LOOPBACK, free_port

LAB = Path(__file__).resolve().parent
STATES = LAB / "salt" / "states"
FORMULA = LAB.parents[1] / "formula"
#: The formula comes after the lab's own states, which so take the place of its SLS of the same name and use its files.
STATE_TREE = [str(STATES), str(FORMULA)]
MODULES = LAB / "salt"

API_USER = "runbook-web"

# Neither side needs to know its graphics card, its names in the DNS or a mine, and four minions share a machine.
_FRUGAL = {
    "enable_gpu_grains": False,
    "enable_fqdns_grains": False,
}

# Salt's loader adds the functions of every module that calls itself `service`: systemd's `service.offline` beside
# our own would make `service.running` say "OFFLINE mode, nothing to do" wherever systemd is installed but not running.
OTHER_INITS = [
    "debian_service",
    "gentoo_service",
    "openrc",
    "rh_service",
    "runit",
    "systemd_service",
    "upstart_service",
]


class _OfTheLab:
    """What the lab's daemons have in common: a session of their own, and no long sleeps while they start."""

    def cmdline(self, *args):
        # Ctrl-C goes to the terminal's whole process group. What it means is decided by who holds the site, and not
        # by daemons dying under that program's hands. setsid executes in place: the pid stays.
        setsid = shutil.which("setsid")
        return [*([setsid] if setsid else []), *super().cmdline(*args)]

    def get_check_events(self):
        # The site itself waits for start events on the bus. The factories look into a store that an engine in the
        # master fills once a second, and sleep 1.5 s between two looks.
        return []

    def _check_listening_ports(self, timeout_at):
        # the factories' own check sleeps 1.5 s between two looks
        waiting_for = set(self.get_check_ports())
        while waiting_for and self.is_running() and time.time() <= timeout_at:
            waiting_for -= ports.get_connectable_ports(waiting_for)
            if waiting_for:
                time.sleep(0.05)
        return not waiting_for


class LabMaster(_OfTheLab, SaltMaster):
    """salt-master."""

    def get_check_ports(self):
        return [self.config["ret_port"], self.config["publish_port"]]


class LabMinion(_OfTheLab, SaltMinion):
    """salt-minion."""


class LabApi(_OfTheLab, SaltApi):
    """salt-api."""


class LabFactories(FactoriesManager):
    """pytest-salt-factories without what is only for pytest: no log server, no engine in the minions."""

    def hooks_daemon(self, config):
        """A salt-api with a config of its own; the factories know only one that has the master's."""
        return self._get_factory_class_instance("salt-api", config, LabApi, 1, None)

    def final_common_config_tweaks(self, config, role):
        super().final_common_config_tweaks(config, role)
        # without a log server the handler only costs: daemons log into their own files
        config[f"pytest-{role}"]["log"]["disabled"] = True
        config["log_handlers_dirs"] = []
        if role == "minion":
            # it forwards the minion's own bus, which nobody here reads, from a process of its own
            config["engines"].remove("pytest")


def factories(root, environ):
    """A factories manager that puts everything below ``root``, and its event listener (started, to be stopped)."""
    # it warns of its own creation, with all its attributes
    logging.getLogger("saltfactories.manager").setLevel(logging.ERROR)
    listener = EventListener()
    listener.host = LOOPBACK
    listener.start()
    manager = LabFactories(
        root_dir=root,
        log_server_host=LOOPBACK,
        log_server_port=0,
        log_server_level="error",
        event_listener=listener,
        environ={**os.environ, **environ},
        cwd=root,
    )
    return manager, listener


def master_config(root, log_level, api_port, app_minions, engines, reactor):
    """
    Overrides for the master. It writes the file with the API's account, too.
    """
    users = root / "api-users"
    users.touch(mode=0o600)
    # one line per account, `name:password`, as salt/auth/file.py reads it
    password = os.urandom(9).hex()
    users.write_text(f"{API_USER}:{password}\n")
    # Patterns are `re.match` prefixes, hence the `$`
    allowed = [
        {app: ["selfheal.trigger$", "selfheal.highstate$", "selfheal.restart$"]}
        for app in app_minions
    ]
    allowed.append({"@selfheal": ["trigger$", "status$"]})
    allowed.append({"@test": ["arg$"]})  # a call that does nothing, to measure others by
    config = {
        **_FRUGAL,
        "interface": LOOPBACK,
        "publish_port": free_port(),
        "ret_port": free_port(),
        "auto_accept": True,
        "worker_threads": 3,
        "timeout": 15,
        "log_level_logfile": log_level,
        "file_roots": {"base": STATE_TREE},
        "external_auth": {"file": {"^filename": str(users), API_USER: allowed}},
        "netapi_enable_clients": ["local", "runner"],
        "rest_cherrypy": {"host": LOOPBACK, "port": api_port, "disable_ssl": True},
        "engines": engines,
    }
    if reactor:
        config["reactor"] = reactor
    return config, password


def hooks_config(root, master, port):
    """
    The config of a salt-api that takes hooks and nothing else, written into a folder of its own.

    It needs the master's event bus, and gets nothing that it does not need: no account, no settings of the healer.
    """
    conf = root / "hooks" / "conf"
    conf.mkdir(parents=True)
    (root / "hooks" / "logs").mkdir()
    shared = (
        "root_dir",
        "sock_dir",
        "cachedir",
        "pki_dir",
        "user",
        "ipc_mode",
        "log_level_logfile",
    )
    config = {
        **{key: master.config[key] for key in shared},
        "interface": LOOPBACK,
        "api_pidfile": str(root / "hooks" / "api.pid"),
        "api_logfile": str(root / "hooks" / "logs" / "api.log"),
        "netapi_enable_clients": [],
        "rest_cherrypy": {
            "host": LOOPBACK,
            "port": port,
            "disable_ssl": True,
            "webhook_disable_auth": True,
            # With more, its threads share one event object and answer 500 (3006 to 3008).
            "thread_pool": 1,
        },
    }
    path = conf / "master"
    path.write_text(json.dumps(config))
    return {**config, "conf_file": str(path), "id": "hooks"}


def minion_config(log_level, supervisor_socket=None, witness=None):
    """Overrides for a minion; one with a socket has services. ``witness``: the paths that `selfheal.witness` is told."""
    config = {
        **_FRUGAL,
        "master": LOOPBACK,
        "log_level_logfile": log_level,
        "mine_enabled": False,
        # the factories' 0.05 s would wake each minion twenty times a second
        "loop_interval": 1,
        "random_reauth_delay": 1,
        "recon_default": 100,
        "recon_max": 1000,
        "recon_randomize": False,
    }
    if supervisor_socket is not None:
        config["module_dirs"] = [str(MODULES)]
        config["lab_supervisor"] = str(supervisor_socket)
        config["disable_modules"] = OTHER_INITS
    if witness:
        config["selfheal"] = {"witness": witness}
    return config
