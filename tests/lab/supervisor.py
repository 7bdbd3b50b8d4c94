"""
The init system of the lab: one supervisord for the site, one program ``<minion id>:rethinkdb`` per database node.

It starts what it is told to start and restarts nothing by itself: a node that dies stays dead until Salt acts, which
is what the lab is for. What Salt asks of it goes through ``salt/modules/service.py``; the lab itself asks here.
"""

import contextlib
import getpass
import os
import re
import shlex
import subprocess
import sys
import textwrap
import time
import xmlrpc.client

from supervisor.xmlrpc import SupervisorTransport

SERVICE = "rethinkdb"

# supervisord sends SIGKILL this long after SIGTERM (whole seconds): what a paused server costs at a restart
STOP_PATIENCE_S = 2

_CONFIG = """
    [supervisord]
    nodaemon=true
    silent=true
    logfile={folder}/supervisord.log
    loglevel=info
    pidfile={folder}/supervisord.pid
    childlogdir={folder}
    identifier=selfheal-lab
    {user}

    [unix_http_server]
    file={socket}
    chmod=0700

    [rpcinterface:supervisor]
    supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""

# startsecs=0: a process counts as started once it runs; the service module watches it from there.
_PROGRAM = """
    [program:{minion_id}]
    process_name={service}
    command={command}
    directory={directory}
    autostart=false
    autorestart=false
    startsecs=0
    startretries=0
    stopsignal=TERM
    stopwaitsecs={patience_s}
    stdout_logfile={folder}/{minion_id}.out
    stderr_logfile={folder}/{minion_id}.err
    stdout_logfile_maxbytes=0
    stderr_logfile_maxbytes=0
"""


class Supervisor:
    """
    ``commands``: minion id → argument list of its server. ``directory``: where the servers start.
    """

    def __init__(self, folder, commands, environ, directory):
        self.folder = folder
        self.socket = folder / "supervisor.sock"
        self._environ = environ
        self._process = None
        folder.mkdir()
        user = f"user={getpass.getuser()}" if os.geteuid() == 0 else ""
        text = textwrap.dedent(_CONFIG).format(
            folder=_literal(folder), socket=_literal(self.socket), user=user
        )
        # By a link: no sign can protect a blank and a semicolon in this option's value.
        start = folder / "start"
        start.symlink_to(directory, target_is_directory=True)
        for minion_id, command in commands.items():
            text += textwrap.dedent(_PROGRAM).format(
                minion_id=minion_id,
                service=SERVICE,
                command=_literal(_line(command)),
                directory=_literal(start),
                patience_s=STOP_PATIENCE_S,
                folder=_literal(folder),
            )
        self._config = folder / "supervisord.conf"
        self._config.write_text(text)

    def start(self, timeout_s=15.0):
        """Start supervisord and wait until it answers. No node starts."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._config)],
            cwd=self.folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "supervisord.err").open("wb"),
            start_new_session=True,
        )
        give_up_at = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(OSError, xmlrpc.client.Error):
                self.call("getState")
                return
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                said = (self.folder / "supervisord.err").read_text().strip()
                raise RuntimeError(f"supervisord did not start: {said or self._process.returncode}")
            time.sleep(0.02)

    def call(self, method, *args):
        """One call of supervisord's documented XML-RPC interface, on a connection of its own."""
        transport = SupervisorTransport(serverurl=f"unix://{self.socket}")
        try:
            proxy = xmlrpc.client.ServerProxy("http://localhost", transport=transport)
            return getattr(proxy.supervisor, method)(*args)
        finally:
            transport.close()

    def pid(self, minion_id):
        """Pid of the node's server as supervisord remembers it, 0 if it knows of none."""
        return self.call("getProcessInfo", f"{minion_id}:{SERVICE}")["pid"]

    def errors(self, minion_id):
        """The file that keeps what the node's server writes to stderr."""
        return self.folder / f"{minion_id}.err"

    def stop(self, timeout_s=3.0):
        """Stop supervisord, which first stops the nodes. What does not stop in time is left to the guard."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)

    def reap(self):
        """Take the exit code, so that no zombie stays with the lab's process."""
        if self._process is not None:
            self._process.wait()


def _literal(text):
    # supervisord expands %(…)s in its config
    return str(text).replace("%", "%%")


def _line(command):
    """
    A command as supervisord splits it: as a shell does, and it starts none.

    It first takes for a comment what follows a blank and then `;` or `#`, in quotes too. So a pair of quotes stands
    between the two, where shlex.join has put all into quotes anyway.
    """
    return re.sub(r"(?<=\s)(?=[;#])", "''", shlex.join(map(str, command)))
