"""The command ``python -m saltext_selfheal.app``: it connects as an application does, and prints each attempt."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from .connecting import TIMEOUT_S, connect
from .dial import discard
from .doors import SaltAPI, Webhook
from .errors import ConnectError, LoginRefused, TlsFailed
from .help import Help
from .settings import BadSettings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m saltext_selfheal.app",
        description="Connect to RethinkDB as an application does, and tell each attempt in a line.",
        epilog="Passwords and secrets are read from the environment: SELFHEAL_DB_PASSWORD, SELFHEAL_API_PASSWORD, "
        "SELFHEAL_WEBHOOK_SECRET. Exit codes: 0 connected, 1 not within the deadline, 2 bad arguments, 3 login or TLS.",
    )
    parser.add_argument("--hosts", required=True, help="host or host:port, separated by commas")
    parser.add_argument("--db", help="the default database")
    parser.add_argument("--user", default="admin", help="RethinkDB user (default: admin)")
    parser.add_argument("--ca", metavar="PATH", help="TLS, trusting this certificate authority")
    parser.add_argument("--tls", action="store_true", help="TLS, trusting what the system trusts")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="of one attempt, seconds")
    parser.add_argument("--deadline", type=float, default=60.0, help="of all (60); 0: none")
    helping = parser.add_argument_group("calling for help")
    helping.add_argument("--cluster", help="the cluster's name in the healer's settings")
    helping.add_argument("--salt-api", metavar="URL", help="call by salt-api")
    helping.add_argument("--api-user", metavar="NAME")
    helping.add_argument("--eauth", default="pam", help="(default: pam)")
    helping.add_argument("--minion", help="call by this minion instead of the runner")
    helping.add_argument("--webhook", metavar="URL", help="call by the signed webhook")
    helping.add_argument("--api-ca", metavar="PATH", help="the doors' certificate authority")
    helping.add_argument("--insecure", action="store_true", help="take any certificate there")
    helping.add_argument("--highstate-after", type=float, default=300.0, metavar="SECONDS")
    helping.add_argument("--restart-after", type=float, default=600.0, metavar="SECONDS")
    helping.add_argument("--again-after", type=float, default=600.0, metavar="SECONDS")
    return parser


def _say(line: object) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _asked_help(options: argparse.Namespace) -> Help | None:
    if not options.salt_api and not options.webhook:
        return None
    if options.salt_api and options.webhook:
        raise BadSettings("--salt-api and --webhook: allowed: one of them")
    if not options.cluster:
        raise BadSettings("--cluster: needed to call for help")
    verify: bool | str = False if options.insecure else options.api_ca or True
    via: SaltAPI | Webhook
    if options.webhook:
        secret = os.environ.get("SELFHEAL_WEBHOOK_SECRET", "")
        via = Webhook(options.webhook, secret, verify=verify)
    else:
        password = os.environ.get("SELFHEAL_API_PASSWORD", "")
        if not options.api_user or not password:
            raise BadSettings("--api-user and SELFHEAL_API_PASSWORD: needed with --salt-api")
        client = "local" if options.minion else "runner"
        via = SaltAPI(
            options.salt_api, options.api_user, password, options.eauth, verify=verify, client=client,
            minion=options.minion,
        )  # fmt: skip
    return Help(
        via,
        options.cluster,
        highstate_after=options.highstate_after,
        restart_after=options.restart_after,
        again_after=options.again_after,
        on_help=lambda helped: _say(f"    help  {helped}"),
    )


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit code."""
    options = _parser().parse_args(arguments)
    if options.ca and not Path(options.ca).is_file():
        _parser().error(f"--ca: there is no file {options.ca}")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    help = None
    try:
        help = _asked_help(options)
        conn = connect(
            options.hosts,
            db=options.db,
            user=options.user,
            password=os.environ.get("SELFHEAL_DB_PASSWORD", ""),
            ssl=options.ca or options.tls or None,
            timeout=options.timeout,
            deadline=options.deadline or None,
            help=help,
            on_attempt=_say,
            stop=stop,
        )
    except BadSettings as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    except ConnectError as exc:
        sys.stderr.write(f"{exc.message}\n")
        return 3 if isinstance(exc, (LoginRefused, TlsFailed)) else 1
    finally:
        if help is not None:
            # A call for help runs on a daemon thread, which would end with this process.
            help.wait(15.0)
    discard(conn)
    return 0


if __name__ == "__main__":
    sys.exit(main())
