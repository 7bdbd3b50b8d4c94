"""
Salt's ``service`` module for minions of the lab: services are programs of the site's supervisord.

Service ``rethinkdb`` on minion ``db1`` is the program ``db1:rethinkdb``; the minion's config names the socket
(``lab_supervisor``). Nothing of the lab is imported here: Salt's loader reads this file inside a minion.

supervisord sleeps up to a second in its loop, and ``wait=True`` of its interface is answered from that loop. So
nothing here waits inside supervisord: each request is answered at once, and each request also turns the loop once,
which reaps dead children and sends an overdue SIGKILL.

With ``lab_init_script`` in the minion's config a stop waits for ever for a process that does not end.
"""

import time
import xmlrpc.client
from pathlib import Path

from salt.exceptions import CommandExecutionError

try:
    from supervisor.xmlrpc import Faults, SupervisorTransport

    HAS_SUPERVISOR = True
except ImportError:
    HAS_SUPERVISOR = False

__virtualname__ = "service"

# A service counts as started when it says that it serves, or when it has lived this long without saying so: a
# RethinkDB that loads, or whose `join` peers are all down, does not open its driver port, and that is no failed start.
SETTLED_S = 1.0
SAYS_IT_SERVES = "Server ready"

STOP_TIMEOUT_S = 15.0
INIT_SCRIPT_S = 1.0  #: so often the packaged init script looks whether the process has ended
PAUSE_S = 0.005
LAST_WORDS_S = 3.0


def __virtual__():
    if not HAS_SUPERVISOR:
        return False, "supervisor is not installed"
    if not __opts__.get("lab_supervisor"):
        return False, "lab_supervisor is not set: this is no minion of the lab"
    return __virtualname__


class _Program:
    """One program of supervisord, over one connection."""

    def __init__(self, name):
        self.service = name
        self.name = f"{__opts__['id']}:{name}"
        self._transport = SupervisorTransport(serverurl=f"unix://{__opts__['lab_supervisor']}")
        self._supervisor = xmlrpc.client.ServerProxy(
            "http://localhost", transport=self._transport
        ).supervisor

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._transport.close()

    def ask(self, method, *args):
        try:
            return getattr(self._supervisor, method)(self.name, *args)
        except OSError as exc:
            raise CommandExecutionError(f"supervisord does not answer: {exc}") from exc

    def exists(self):
        try:
            self.ask("getProcessInfo")
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == Faults.BAD_NAME:
                return False
            raise
        return True

    def info(self):
        try:
            return self.ask("getProcessInfo")
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == Faults.BAD_NAME:
                raise CommandExecutionError(
                    f"service {self.service!r} is not known here (supervisord has no {self.name!r})"
                ) from fault
            raise

    def lives(self):
        """Whether its process really runs. supervisord may not have noticed yet that it was killed."""
        info = self.info()
        return info["statename"] in ("STARTING", "RUNNING", "STOPPING") and _lives(info["pid"])

    def written(self, stream):
        """How many bytes its log holds."""
        return self.ask(f"tailProcess{stream}Log", 0, 0)[1]

    def said_since(self, stream, offset):
        return self.ask(f"readProcess{stream}Log", offset, 0)

    def stop(self):
        info = self.info()
        if info["statename"] in ("STARTING", "RUNNING"):
            try:
                self.ask("stopProcess", False)
            except xmlrpc.client.Fault as fault:
                # it ended by itself in the meantime
                if fault.faultCode not in (Faults.NOT_RUNNING, Faults.FAILED):
                    raise
        give_up_at = time.monotonic() + STOP_TIMEOUT_S
        while self.info()["statename"] in ("STARTING", "RUNNING", "STOPPING"):
            if time.monotonic() > give_up_at:
                raise CommandExecutionError(
                    f"service {self.service!r} did not stop within {STOP_TIMEOUT_S:.0f} s"
                )
            time.sleep(PAUSE_S)

    def stop_as_the_init_script(self):
        """What RethinkDB's packaged init script does (2.4.4): it asks the process to end, and waits for ever."""
        try:
            self.ask("signalProcess", "INT")
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Faults.NOT_RUNNING:
                raise
        while self.lives():
            time.sleep(INIT_SCRIPT_S)

    def start(self):
        out, err = self.written("Stdout"), self.written("Stderr")
        try:
            self.ask("startProcess", False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Faults.ALREADY_STARTED:
                raise CommandExecutionError(
                    f"service {self.service!r} did not start: {fault.faultString}"
                ) from fault
        settled_at = time.monotonic() + SETTLED_S
        while True:
            info = self.info()
            if info["statename"] not in ("STARTING", "RUNNING"):
                break
            if SAYS_IT_SERVES in self.said_since("Stdout", out) or time.monotonic() > settled_at:
                return
            time.sleep(PAUSE_S)
        raise CommandExecutionError(
            f"service {self.service!r} did not start: {self.last_words(err) or info['description']}"
        )

    def last_words(self, offset):
        """What a process that has ended said last on stderr. supervisord may still be reading it."""
        said, give_up_at = None, time.monotonic() + LAST_WORDS_S
        while (more := self.said_since("Stderr", offset)) != said and time.monotonic() < give_up_at:
            said = more
            time.sleep(10 * PAUSE_S)
        lines = [line.strip() for line in more.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()]
        return "; ".join((errors or lines)[-3:])


def _lives(pid):
    if not pid:
        return False
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def start(name, **_kwargs):
    """
    Start the service. True, or an error with what its process last said.

    CLI Example:

    .. code-block:: bash

        salt db1 service.start rethinkdb
    """
    with _Program(name) as program:
        if not program.lives():
            program.stop()
            program.start()
    return True


def stop(name, **_kwargs):
    """
    Stop the service: SIGTERM, and SIGKILL by supervisord when that does not help.

    CLI Example:

    .. code-block:: bash

        salt db1 service.stop rethinkdb
    """
    with _Program(name) as program:
        _stop(program)
    return True


def _stop(program):
    if __opts__.get("lab_init_script"):
        program.stop_as_the_init_script()
    program.stop()


def restart(name, **_kwargs):
    """
    Stop the service if it runs, dead, paused or well, and start it. True, or an error with what it last said.

    CLI Example:

    .. code-block:: bash

        salt db1 service.restart rethinkdb
    """
    with _Program(name) as program:
        _stop(program)
        program.start()
    return True


def status(name, *_args, **_kwargs):
    """
    Whether the service's process runs.

    CLI Example:

    .. code-block:: bash

        salt db1 service.status rethinkdb
    """
    with _Program(name) as program:
        return program.exists() and program.lives()


def available(name):
    """
    Whether there is such a service.

    CLI Example:

    .. code-block:: bash

        salt db1 service.available rethinkdb
    """
    with _Program(name) as program:
        return program.exists()


def missing(name):
    """
    Whether there is no such service.

    CLI Example:

    .. code-block:: bash

        salt db1 service.missing rethinkdb
    """
    return not available(name)


def get_all():
    """
    The services of this minion.

    CLI Example:

    .. code-block:: bash

        salt db1 service.get_all
    """
    transport = SupervisorTransport(serverurl=f"unix://{__opts__['lab_supervisor']}")
    try:
        proxy = xmlrpc.client.ServerProxy("http://localhost", transport=transport)
        programs = proxy.supervisor.getAllProcessInfo()
    finally:
        transport.close()
    return sorted(item["name"] for item in programs if item["group"] == __opts__["id"])


def enabled(name, **_kwargs):
    """
    Whether the service starts at boot. The lab has no boot: what exists counts as enabled.

    CLI Example:

    .. code-block:: bash

        salt db1 service.enabled rethinkdb
    """
    return available(name)


def disabled(name, **_kwargs):
    """
    The opposite of ``service.enabled``.

    CLI Example:

    .. code-block:: bash

        salt db1 service.disabled rethinkdb
    """
    return not enabled(name)


def enable(name, **_kwargs):
    """
    Does nothing, see ``service.enabled``.

    CLI Example:

    .. code-block:: bash

        salt db1 service.enable rethinkdb
    """
    return available(name)


def disable(name, **_kwargs):
    """
    Refused, see ``service.enabled``.

    CLI Example:

    .. code-block:: bash

        salt db1 service.disable rethinkdb
    """
    return False
