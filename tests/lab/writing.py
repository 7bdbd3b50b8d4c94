"""
An application that writes through outages: ``python -m tests.lab.writing SETTINGS.json``.

It inserts one numbered document every 100 ms into the lab's table, on one node, through `healing`, and says in the
file ``log`` of its settings, a JSON object a line, what became of each and of every call for help. SIGTERM ends it.
"""

import functools
import json
import signal
import sys
import threading
from pathlib import Path

import rethinkdb
from rethinkdb.errors import ReqlOpIndeterminateError

from saltext_selfheal import app

EVERY_S = 0.1


def main(path):
    """Write until SIGTERM."""
    settings = json.loads(Path(path).read_text(encoding="utf-8"))
    stop, alone = threading.Event(), threading.Lock()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with Path(settings["log"]).open("a", encoding="utf-8") as log:

        def say(**what):
            with alone:
                log.write(json.dumps(what) + "\n")
                log.flush()

        def helped(told):
            say(help=told.ok, request=told.request, told=str(told))

        help = app.Help(
            app.SaltAPI(**settings["api"]), settings["cluster"], **settings["help"], on_help=helped
        )
        factory = functools.partial(app.connect, **settings["connect"], stop=stop)
        database, table = settings["table"]
        table, number = rethinkdb.r.db(database).table(table), 0
        with app.healing(factory, help=help, stop=stop) as conn:
            while not stop.wait(EVERY_S):
                number += 1
                key = f"{settings['name']}-{number}"
                try:
                    answer = table.insert({"id": key}).run(conn)
                except ReqlOpIndeterminateError:
                    say(unknown=key)
                except app.Stopped:
                    break
                else:
                    say(**{"acknowledged" if answer["inserted"] else "repeated": key})
        say(end=True)


if __name__ == "__main__":
    main(sys.argv[1])
