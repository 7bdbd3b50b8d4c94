"""
A minion that lies: it sends to its master what it likes, with its own key and over its own channel.

A process of its own, as a program on that minion's machine would be. It reads no more than the minion's configuration
and speaks with nobody but the lab's own master on loopback.

    with Liar(site, "app1") as liar:
        liar.send(by_resource(jid, "db2", result))
"""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import salt.channel.client
import salt.config
import salt.crypt
import salt.serializers.msgpack

from tests.lab.ports import LOOPBACK

CHECKOUT = Path(__file__).resolve().parents[2]
BY_RESOURCE, BY_SYNDIC, BY_SYNDIC_RESOURCE = "resource", "syndic", "syndic_resource"
#: The ways by which Salt 3008 lets a minion put a result into the job cache under another's name.
ROUTES = (BY_RESOURCE, BY_SYNDIC, BY_SYNDIC_RESOURCE)


def results(jid, fun, node, told, retcode=0):
    """What a minion says when it has done its job; ``told`` is what the function returned."""
    return {
        "jid": jid,
        "id": node,
        "fun": fun,
        "fun_args": [],
        "return": told,
        "retcode": retcode,
        "success": not retcode,
    }


def forged(route, liar, result):
    """One request that makes the master store this result under the node's name, sent by the minion ``liar``."""
    jid, node = result["jid"], result["id"]
    if route == BY_RESOURCE:
        # The master compares the id with the key, and then puts the resource's id in its place.
        return {"cmd": "_return", **result, "id": liar, "resource_id": node}
    inner = {key: value for key, value in result.items() if key not in ("jid", "id")}
    whose = node
    if route == BY_SYNDIC_RESOURCE:
        # A signature is asked of whom the result names, and that may be the liar.
        inner, whose = {**inner, "resource_id": node}, liar
    return {
        "cmd": "_syndic_return",
        "load": [{"id": liar, "jid": jid, "fun": result["fun"], "return": {whose: inner}}],
    }


class Liar:
    """The process, from ``__enter__`` to ``__exit__``."""

    def __init__(self, site, minion="app1"):
        self.minion = minion
        self._environ = site.environ
        self._config = site.minions[minion].config_file
        self._process = None

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.lab.liar", str(self._config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environ,
            cwd=CHECKOUT,
        )
        self._answer()  # it is there
        return self

    def __exit__(self, *_):
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()
        self._process.stderr.close()

    def send(self, load, sign=False):
        """Send it and wait until the master has dealt with it: what it answers, as text."""
        self._process.stdin.write(json.dumps({"load": load, "sign": sign}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def lie(self, route, jid, fun, node, told, retcode=0, sign=False):
        """Store a result under the name of another minion."""
        result = results(jid, fun, node, told, retcode)
        return self.send(forged(route, self.minion, result), sign=sign)

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the lying minion has ended: {self._process.stderr.read()[-2000:]}")
        return json.loads(line)


def _signed(opts, inner):
    """As minions of ``minion_sign_messages`` sign what they send."""
    key = str(Path(opts["pki_dir"]) / "minion.pem")
    text = salt.serializers.msgpack.serialize(inner)
    return salt.crypt.sign_message(key, text, algorithm=opts["signing_algorithm"])


def main():
    """Answer each line of JSON on stdin with one on stdout."""
    opts = salt.config.minion_config(sys.argv[1])
    opts["master_uri"] = f"tcp://{LOOPBACK}:{opts['master_port']}"
    told = sys.stdout
    sys.stdout = sys.stderr
    # Open before they are needed: who lies about a look must be quicker than who tells the truth.
    channels = {
        sign: salt.channel.client.ReqChannel.factory({**opts, "minion_sign_messages": sign})
        for sign in (False, True)
    }
    print(json.dumps("here"), file=told, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        load = asked["load"]
        if asked["sign"] and load["cmd"] == "_syndic_return":
            for one in load["load"]:
                for whose, inner in one["return"].items():
                    # The master puts these together, in this order, before it looks at the signature.
                    whole = {"jid": one["jid"], "id": whose, **inner, "fun": one["fun"]}
                    inner["sig"] = _signed(opts, whole)
        answer = channels[asked["sign"]].send(load, timeout=20, tries=1)
        print(json.dumps(repr(answer)), file=told, flush=True)
    for channel in channels.values():
        channel.close()


if __name__ == "__main__":
    main()
