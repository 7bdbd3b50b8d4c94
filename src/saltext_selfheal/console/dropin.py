"""Makes a complete drop-in for ``master.d``, with the real paths of this installation.

What somebody has named is printed in quotes, whatever it is. YAML reads ``on``, ``no``, ``101``, ``0777`` and ``a: b`` as
no text, and such names are allowed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .. import config
from ..doors.arguments import BadRequest, shown
from ..driver.tags import ENGINE, REMEDIATE

EXAMPLE: dict[str, str] = {"db1": "10.0.0.11", "db2": "10.0.0.12", "db3": "10.0.0.13"}
#: The lists in the drop-in. They replace lists of these names in the main configuration file.
LISTS = ("engines", "reactor")
#: A number is not taken for its digits: YAML has read 0777 and 1:30 already, and what was written is lost.
AS_TEXT = """a name, quoted twice if YAML reads it as something else: cluster="'101'\""""
_REACTOR = Path(__file__).parents[1] / "reactor"
#: The reactor file that is for no action. At a heartbeat it lets the reactor load what the first order will need.
HEARTBEAT = "heartbeat"
_DROP_IN = """\
# Self-healing for RethinkDB. Put this into a file of master.d, and restart the salt-master.
{warnings}
reactor:
{reactor}

engines:
  - reactor: {{}}
  - selfheal:
      mode: {mode}# off | shadow | approve | auto; shadow only tells what it would do
      clusters:
        {cluster}:
          minions: {minions}
          nodes:                  # minion id: address[:port of the driver, default 28015]
{nodes}
          service: rethinkdb
          user: {user}
          password: ''            # any sdb:// URI works
          poll: 2s
          timeout: 2s
          confirm: {{dead: 3s, hung: 20s, default: 10s}}
          witness: {{timeout: 5s}}  # a node's own minion is asked what it sees; off asks nobody
          highstate: {{test_first: true, timeout: 60s}}  # one that would change nothing is left out
          foreign: {{grace: 30s, most: 15m}}  # other people's jobs are waited for; off waits for nobody
          # Minions elsewhere that look, too, before anything is done about an unreachable or hung node:
          # observers: {{minions: 'app*', quorum: 2, timeout: 3s}}
          starting: 10m           # so long a process may run without listening
          stable: 30s
          attempt: {{timeout: 5m, verify: 60s, stop_timeout: 30s}}
          cooldown: {{min: 2m, max: 1h}}
          budget: {{attempts: 3, per: 1h}}
          # The canary finds nodes that answer and serve nobody: a small document is read and written through each of them.
          # It needs a table of its own, and rights there:
          #   r.dbCreate('selfheal')
          #   r.db('selfheal').tableCreate('canary', {{replicas: {replicas}}})
{grant}
          # canary: {{read: selfheal.canary, write: selfheal.canary, every: 10s, timeout: 5s}}
      limits: {{attempts: 10, per: 1h, storm: 34%}}
"""


def _grant(user: str) -> str:
    """The comment that says which rights the canary needs. The user admin has them all, and none can be given to it."""
    if user == "admin":
        return "          #   (the user admin has all rights)"
    told = (
        f"r.db('selfheal').table('canary').grant({json.dumps(user)}, {{read: true, write: true}})"
    )
    return f"          #   {told}"


def packaged(name: str) -> Path:
    """The reactor file of an action, or of the heartbeat, in this installation."""
    return _REACTOR / f"{name}.sls"


def tag_of(name: str) -> str:
    """The tag that leads to this reactor file."""
    return f"{ENGINE if name == HEARTBEAT else REMEDIATE}{name}"


def reference(name: str) -> str:
    """The path of this reactor file as it is written into the settings.

    Salt expands patterns there. So the path can stay valid when the onedir's Python has another version.
    """
    parts = packaged(name).parts
    return str(Path(*("extras-3.*" if one.startswith("extras-3.") else one for one in parts)))


def replaced(opts: Mapping[str, Any]) -> list[str]:
    """The lists in these options that the drop-in would replace. None if the engine is configured already."""
    return [key for key in LISTS if opts.get(key) and config.entry(opts) is None]


def quoted(text: str) -> str:
    """The text as YAML in quotes, on one line and in ASCII. YAML 1.1 and 1.2 read the same text."""
    if re.fullmatch("[ -~]*", text):
        return "'" + text.replace("'", "''") + "'"
    signs = (
        "\\" + sign if sign in '"\\' else sign if " " <= sign <= "~" else f"\\U{ord(sign):08x}"
        for sign in text
    )
    return f'"{"".join(signs)}"'


def render(
    cluster: Any,
    minions: Any,
    nodes: Any = None,
    replaces: Iterable[str] = (),
    *,
    mode: Any = "shadow",
    user: Any = "admin",
) -> str:
    """The text of the drop-in. ``nodes``: minion id → address, None for an example; ``replaces``: see `replaced`.

    Raises BadRequest if nodes are no such mapping; config.ConfigError if such settings cannot be used.
    """
    nodes = EXAMPLE if nodes is None else nodes
    if not isinstance(nodes, dict) or not nodes:
        raise BadRequest(f"nodes: found {shown(nodes)}; allowed: {{minion id: address}}")
    if not isinstance(cluster, str):
        raise BadRequest(f"cluster: found {shown(cluster)}; allowed: {AS_TEXT}")
    draft = {
        "mode": mode,
        "clusters": {cluster: {"minions": minions, "nodes": nodes, "user": user}},
    }
    made = config.load({"engines": [{"selfheal": draft}]})
    mapped = {tag_of(path.stem): reference(path.stem) for path in _REACTOR.glob("*.sls")}
    width = max(map(len, mapped)) + 1
    return _DROP_IN.format(
        warnings="\n".join(
            f"# NOTE: this replaces the `{key}:` of the main configuration file; move what stands there into a file "
            "of master.d, too: lists of several files there are joined."
            for key in replaces
        ),
        reactor="\n".join(
            f"  - {tag + ':':<{width}} [{quoted(path)}]" for tag, path in sorted(mapped.items())
        ),
        mode=f"{made.mode.value:<22}",
        cluster=quoted(cluster),
        minions=quoted(minions),
        nodes="\n".join(
            f"            {quoted(node)}: {quoted(address)}" for node, address in nodes.items()
        ),
        user=quoted(user),
        grant=_grant(user),
        replicas=min(3, len(nodes)),
    )
