"""For applications: connect to RethinkDB through an outage, heal queries, and call for help when that is not enough.

    conn = connect(["db1", "db2"], db="shop", help=Help(SaltAPI(…), cluster="runbook"))

What an application may use is listed in ``__all__``. Neither Salt nor pydantic may be imported here.
"""

from .connecting import Attempt, aconnect, connect
from .doors import SaltAPI, Webhook
from .errors import (
    ConnectError,
    LoginRefused,
    NotConnected,
    OutcomeUnknown,
    Stopped,
    TlsFailed,
)
from .failures import Failure
from .help import Help, Helped
from .queries import healing, heals
from .settings import BadSettings

__all__ = [
    "Attempt",
    "BadSettings",
    "ConnectError",
    "Failure",
    "Help",
    "Helped",
    "LoginRefused",
    "NotConnected",
    "OutcomeUnknown",
    "SaltAPI",
    "Stopped",
    "TlsFailed",
    "Webhook",
    "aconnect",
    "connect",
    "healing",
    "heals",
]
