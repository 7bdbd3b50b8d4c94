"""What the tests of the application's side share: nodes to connect to, servers that answer as told, a salt-api."""

import asyncio
import contextlib
import http.server
import json
import signal
import threading
import time

import pytest
from rethinkdb import RethinkDB
from rethinkdb.errors import ReqlDriverError, ReqlOpFailedError

from saltext_selfheal import app

TIMEOUT_S = 0.4
SLACK_S = 0.4  #: a busy machine may wake the test late
SECRET = "whsec_" + "c2VjcmV0IHNlY3JldCBzZWNyZXQ="

r = RethinkDB()


def connect(server, **changes):
    values = {"password": "secret", "timeout": TIMEOUT_S, "deadline": TIMEOUT_S}
    return app.connect([(server.host, server.port)], **{**values, **changes})


async def aconnect(server, **changes):
    values = {"password": "secret", "timeout": TIMEOUT_S, "deadline": TIMEOUT_S}
    return await app.aconnect([(server.host, server.port)], **{**values, **changes})


def aconnect_once(server, **changes):
    async def go():
        conn = await aconnect(server, **changes)
        conn.abort()
        return conn

    return asyncio.run(go())


BOTH = pytest.mark.parametrize("connecting", [connect, aconnect_once])


class SoftLimit(Exception):
    """As Celery's: raised by a signal, wherever the program stands."""


@contextlib.contextmanager
def signalled(exc, after_s=0.1):
    def raising(*_):
        raise exc

    before = signal.signal(signal.SIGALRM, raising)
    signal.setitimer(signal.ITIMER_REAL, after_s)
    began = time.monotonic()
    try:
        with pytest.raises(type(exc)) as caught:
            yield
        assert caught.value is exc
        assert time.monotonic() - began < after_s + SLACK_S
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def raised(function):
    try:
        function()
    except Exception as exc:
        return exc


class Server:
    """Connections whose queries answer or fail as told; remembers what was asked."""

    def __init__(self, *script):
        self.script = list(script)
        self.ran = []
        self.opened = 0

    def connect(self):
        self.opened += 1
        return Conn(self)


class Conn:
    def __init__(self, server):
        self.server = server
        self.closed = False

    def _start(self, term, **_):
        assert not self.closed
        self.server.ran.append((id(self), term))
        outcome = self.server.script.pop(0) if self.server.script else "done"
        outcome = outcome() if callable(outcome) else outcome
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def close(self, noreply_wait=True):
        assert noreply_wait is False
        self.closed = True


LOST = ReqlDriverError("Connection is closed.")
NOT_NOW = ReqlOpFailedError("Cannot perform write: primary replica not available")
READ = r.db("d").table("t").get(1)
WRITE = r.db("d").table("t").insert({"id": 1})
LOOP = r.expr([1, 2]).for_each(lambda row: r.db("d").table("t").insert({"id": row}))


class Api:
    """A salt-api that answers as told: (status, body) by path; remembers what it got."""

    elsewhere = "http://elsewhere.invalid/"

    def __init__(self, tls=None):
        self.answers = {
            "/login": (200, {"return": [{"token": "t0k", "expire": time.time() + 3600}]}),
            "/": (200, {"return": [{"reply": "accepted", "why": "", "incident": "runbook-1"}]}),
        }
        self.got = []
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                api.got.append((self.path, dict(self.headers), body))
                answer = api.answers.get(self.path, (404, "no"))
                status, said = answer.pop(0) if isinstance(answer, list) else answer
                data = said.encode() if isinstance(said, str) else json.dumps(said).encode()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", api.elsewhere)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.scheme = "https" if tls else "http"
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.server.server_port}"

    def door(self, **options):
        return app.SaltAPI(self.url, "runbook-web", "pass-word", "file", **options)
