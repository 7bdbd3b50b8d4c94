"""Ending and starting a database server on its own machine, where an orderly stop may never return.

`force.force_restart` does it in this order, under one deadline:

1. Refuse what must not be done (`order`, `turn`, `examine`): an order that is too old, a service that this minion does not
   know, a process that may not be the service's. So far nothing was touched.
2. Hold the server's processes by pidfds (`grip`, `family`), then ask the service manager to stop the service.
3. If the server lives when the time for that is over: on systemd have the unit killed (`services`), elsewhere send SIGTERM
   and then SIGKILL through the pidfds.
4. Start it only if all that was held is dead (`begin`). A pid file goes first if its process is dead (`leftovers`).

The service manager's word that a service runs is never believed: RethinkDB's own init script says so of a dead server,
too, and its `restart` waits for ever for a stopped one (2.4.4). What runs is what the witness' search finds in /proc.

Linux only, and no Salt: its functions come as plain functions that the caller hands in. Each is called in a thread of
its own, because it may never return.
"""
