"""Gives RethinkDB one account with a password and rights, as a file of JSON wants it.

Called by the SLS `rethinkdb.users`. Passwords come out of that file only, and are never printed. With ``--check`` nothing
is changed, and the exit code tells: 0, all is as wanted; 1, something is not; 2, it cannot be told, and one line says why.
Rights that the account has beyond those are left alone.
"""

import argparse
import json
import sys
import time
from pathlib import Path

try:
    from rethinkdb import RethinkDB
    from rethinkdb.errors import ReqlAuthError, ReqlDriverError, ReqlError
except ImportError:
    sys.exit(
        f"{sys.executable} has no RethinkDB driver: install rethinkdb there, or name another Python in"
        " rethinkdb:account:python"
    )

#: A server that was started a moment ago takes a while until it listens.
PATIENCE_S = 30
r = RethinkDB()


def connect(wanted, user, password):
    tls = {"ssl": {"ca_certs": wanted["ca_certs"]}} if wanted["ca_certs"] else {}
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            return r.connect(
                wanted["host"], wanted["port"], user=user, password=password, timeout=10, **tls
            )
        except ReqlAuthError:
            raise
        except ReqlDriverError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.5)


def admits(wanted):
    """Whether the account is let in with its password."""
    try:
        connect(wanted, wanted["name"], wanted["password"]).close(noreply_wait=False)
    except ReqlAuthError:
        return False
    return True


def scope(right):
    found = r.db(right["db"])
    return found.table(right["table"]) if right["table"] else found


def lacking(wanted, connection):
    """The rights that the account does not have yet."""
    rows = r.db("rethinkdb").table("permissions").filter({"user": wanted["name"]}).run(connection)
    have = {(row.get("database"), row.get("table")): row["permissions"] for row in rows}
    return [
        right
        for right in wanted["rights"]
        if any(
            have.get((right["db"], right["table"]), {}).get(name) is not granted
            for name, granted in right["rights"].items()
        )
    ]


def account(wanted, check):
    """What is lacking, in words; done as well, unless only `check` is wanted."""
    connection = connect(wanted, "admin", wanted["admin_password"])
    users = r.db("rethinkdb").table("users")
    told = []
    if not admits(wanted):
        told.append(f"account {wanted['name']} with its password")
        if not check:
            document = {"id": wanted["name"], "password": wanted["password"]}
            users.insert(document, conflict="update").run(connection)
    for right in lacking(wanted, connection):
        where = ".".join(filter(None, [right["db"], right["table"]]))
        told.append(f"{wanted['name']} may {' and '.join(right['rights'])} {where}")
        if not check:
            scope(right).grant(wanted["name"], right["rights"]).run(connection)
    connection.close(noreply_wait=False)
    return told


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("wanted", type=Path)
    arguments = parser.parse_args()
    try:
        told = account(json.loads(arguments.wanted.read_text(encoding="utf-8")), arguments.check)
    except (OSError, ValueError, ReqlError) as exc:
        sys.stderr.write(f"{' '.join(str(exc).split())}\n")
        return 2
    sys.stdout.write("".join(f"{line}\n" for line in told))
    return 1 if told and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
