"""The formula, rendered for a machine that is only described: its grains and its pillar.

``python -m tests.functional.formula --write`` writes what it renders to now into ``data/formula/``, for a person to read
in the difference. A file there is right when somebody has judged it so, not when it was written by this.
"""

import argparse
import sys
import tempfile
from copy import deepcopy
from pathlib import Path

import salt.config
import salt.loader
import salt.utils.yaml
import yaml

FORMULA = Path(__file__).resolve().parents[2] / "formula"
GOLDEN = Path(__file__).parent / "data" / "formula"
SECRETS = ("first-word-of-admin", "word-of-the-healer")

_SYSTEMD = {
    "kernel": "Linux",
    "init": "systemd",
    "shell": "/bin/sh",
    "pythonexecutable": "/opt/saltstack/salt/bin/python3",
}
GRAINS = {
    "debian-12": {
        **_SYSTEMD, "os_family": "Debian", "os": "Debian", "oscodename": "bookworm", "osmajorrelease": 12,
    },
    "ubuntu-22.04": {
        **_SYSTEMD, "os_family": "Debian", "os": "Ubuntu", "oscodename": "jammy", "osmajorrelease": 22,
    },
    "ubuntu-24.04": {
        **_SYSTEMD, "os_family": "Debian", "os": "Ubuntu", "oscodename": "noble", "osmajorrelease": 24,
    },
    "rocky-9": {
        **_SYSTEMD, "os_family": "RedHat", "os": "Rocky", "oscodename": "Blue Onyx", "osmajorrelease": 9,
    },
    "rhel-9": {
        **_SYSTEMD, "os_family": "RedHat", "os": "RedHat", "oscodename": "Plow", "osmajorrelease": 9,
    },
}  # fmt: skip
#: Uses most of what the pillar knows.
PILLAR = {
    "config": {
        "bind": "all",
        "cache-size": 4096,
        "join": ["10.0.0.11:29015", "10.0.0.12:29015"],
        "cluster-tls-key": "/etc/rethinkdb/tls/key.pem",
        "cluster-tls-cert": "/etc/rethinkdb/tls/cert.pem",
        "cluster-tls-ca": "/etc/rethinkdb/tls/ca.pem",
    },
    "node_alive": True,
    "instances": {
        "main": {"config": {"server-name": "db1", "initial-password": SECRETS[0]}},
        "second": {
            "running": False,
            "unit": {"TimeoutStopSec": 60, "Restart": False, "MemoryHigh": "8G"},
            "config": {
                "bind": "127.0.0.1",
                "port-offset": 10,
                "directory": "/srv/second",
                "no-http-admin": False,
            },
        },
    },
    "account": {
        "managed": True,
        "instance": "main",
        "password": SECRETS[1],
        "canary_write": "selfheal.canary",
    },
}
ALL_SLS = sorted(
    ".".join(path.relative_to(FORMULA).with_suffix("").parts).removesuffix(".init")
    for path in (FORMULA / "rethinkdb").rglob("*.sls")
)


class Minion:
    """Salt's functions on a machine with these grains and this pillar, below a folder of its own."""

    def __init__(self, root, grains, pillar):
        root = Path(root)
        root.mkdir(parents=True, exist_ok=True)
        conf = root / "minion"
        conf.write_text(f"root_dir: {root}\nfile_client: local\nid: db1\n")
        self.opts = salt.config.minion_config(str(conf))
        self.opts["file_roots"] = {"base": [str(FORMULA)]}
        self.opts["grains"] = deepcopy(grains)
        self.opts["pillar"] = {} if pillar is None else {"rethinkdb": deepcopy(pillar)}
        # The state functions compile the pillar anew, out of files.
        self.opts["pillar_roots"] = {"base": [str(root / "pillar")]}
        (root / "pillar").mkdir(exist_ok=True)
        (root / "pillar" / "top.sls").write_text("base: {'*': [all]}\n")
        (root / "pillar" / "all.sls").write_text(yaml.safe_dump(self.opts["pillar"]))
        Path(self.opts["cachedir"]).mkdir(parents=True, exist_ok=True)
        utils = salt.loader.utils(self.opts, context={})
        self.functions = salt.loader.minion_mods(self.opts, context={}, utils=utils)
        self._root = root

    def low(self, sls):
        """The low chunks of an SLS; or a list of errors."""
        return self.functions["state.show_low_sls"](sls)

    def file(self, source, **context):
        """A template of the formula, as `file.managed` would write it."""
        place = self._root / "rendered"
        self.functions["cp.get_template"](
            f"salt://rethinkdb/files/{source}", str(place), template="jinja", **context
        )
        return place.read_text()

    def apply(self, sls, **more):
        """{id of a state: its return}"""
        answer = self.functions["state.sls"](sls, **more)
        assert isinstance(answer, dict), answer
        return {one["__id__"]: one for one in answer.values()}


def told(chunk):
    """A low chunk as a person reads it, without what only the compiler needs."""
    rest = {
        key: value
        for key, value in chunk.items()
        if not key.startswith("__") and key not in ("state", "fun", "order", "name")
    }
    return {
        "do": f"{chunk['state']}.{chunk['fun']}",
        "id": chunk["__id__"],
        "name": chunk["name"],
        **rest,
    }


def rendered(root, grains):
    """All that the formula makes of one machine, as a golden file has it."""
    minion = Minion(root, grains, PILLAR)
    chunks = minion.low("rethinkdb")
    assert all(isinstance(chunk, dict) for chunk in chunks), chunks
    return {
        "states": [told(chunk) for chunk in chunks],
        "clean": [told(chunk) for chunk in minion.low("rethinkdb.clean")],
        "files": {
            f"{name}.{kind}": minion.file(source, instance=name)
            for name in PILLAR["instances"]
            for kind, source in (
                ("conf", "rethinkdb.conf.jinja"),
                ("service", "rethinkdb.service.jinja"),
            )
        },
    }


class _Dumper(yaml.SafeDumper):
    """Files in blocks, as they will stand on the disk."""

    def ignore_aliases(self, data):
        return True


def _text(dumper, text):
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def as_yaml(what):
    # Salt's own kinds of mappings become plain ones by the way of Salt's own writer.
    plain = yaml.safe_load(salt.utils.yaml.safe_dump(what))
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    for name, grains in GRAINS.items():
        with tempfile.TemporaryDirectory() as root:
            text = as_yaml(rendered(root, grains))
        if write:
            (GOLDEN / f"{name}.yaml").write_text(text)
        else:
            sys.stdout.write(f"# {name}\n{text}\n")


if __name__ == "__main__":
    main()
