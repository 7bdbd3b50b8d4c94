"""The errors that applications catch when there is no connection."""

from __future__ import annotations

from rethinkdb.errors import ReqlAuthError, ReqlDriverError, ReqlOpIndeterminateError

from .failures import Failure


class ConnectError(ReqlDriverError):
    """There is no connection; ``failure`` says why. It is a `ReqlDriverError`, which applications catch already."""

    def __init__(self, message: str, failure: Failure | None = None) -> None:
        ReqlDriverError.__init__(self, message)
        self.failure = failure


class NotConnected(ConnectError):
    """No connection was made within the deadline."""


class Stopped(ConnectError):
    """The stop event was set."""


class LoginRefused(ConnectError, ReqlAuthError):
    """User, password or permission is wrong. Neither waiting nor a restart cures that."""


class TlsFailed(ConnectError):
    """On no host TLS works: no certificate can be trusted, or nothing there speaks TLS."""


class OutcomeUnknown(ReqlOpIndeterminateError, ReqlDriverError):
    """The connection ended during a write. The write may have been done or not, and it was not repeated."""


_FINAL = {Failure.AUTH: LoginRefused, Failure.TLS: TlsFailed}


def one_failed(host: object, failure: Failure, error: str) -> ConnectError:
    """The error of a single dial that is not tried again."""
    return _FINAL.get(failure, NotConnected)(f"{host}: {error}", failure)
