"""Sessions of this project: tests, lint, docs, demo, bench, changelog; proofs and tests-matrix on request.

Here stands in which environment what runs. `make` brings nox and calls these; ``nox -l`` lists them.

Salt takes more than a minute to install, so tests, demo and bench share one environment, which nox offers no way to
say. They and all others but the matrix therefore run with ``venv_backend="none"`` in environments made here:
``.nox/<name>-<python version>``, on the interpreter that nox itself runs on. An environment is made anew when this
checkout has moved, and gets another ``pip install`` when setup.cfg, pyproject.toml or the requirements have changed;
else it is taken as it is, which needs no network. ``make clean`` is the way to newer versions of what is installed.
"""

from __future__ import annotations

import configparser
import hashlib
import os
import re
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["tests"]

#: Tests that share nothing run in as many processes as there are cores, but no more than pays.
SIDE_BY_SIDE = ("-n", "auto", "--maxprocesses", "4")
ROOT = Path(__file__).resolve().parent
#: Another Salt than the newest: SALT_REQUIREMENT='salt==3006.*' nox -s tests
SALT = os.environ.get("SALT_REQUIREMENT", "").strip()
#: Where each LTS release of Salt can run, of the Pythons that this extension supports.
MATRIX = [("3.10", "3006"), ("3.11", "3006")] + [
    (python, "3008") for python in ("3.10", "3.11", "3.12", "3.13", "3.14")
]


class Environment:
    """A virtual environment that outlives its session."""

    def __init__(
        self, session: nox.Session, name: str, *requirements: str, takes: str = ""
    ) -> None:
        self._session = session
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        self._place = ROOT / ".nox" / f"{name}-{version}"
        self._stamp = self._place / "installed"
        self._python = self._place / "bin" / "python"
        # Written last: a first line for the checkout, which console scripts and the editable install point to.
        wanted = f"{ROOT}\n{_digest(*requirements)}\n"
        found = self._stamp.read_text() if self._stamp.exists() else ""
        if found == wanted and self._python.exists():
            return
        session.log(f"Installing into .nox/{self._place.name}{takes}")
        if found.partition("\n")[0] != str(ROOT) or not self._python.exists():
            self._external(sys.executable, "-m", "virtualenv", "--quiet", "--clear", self._place)
        self._stamp.unlink(missing_ok=True)
        self.python("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)
        self._stamp.write_text(wanted)

    def python(self, *arguments: str) -> None:
        """Run Python there, from the top of the checkout. `-m` throughout: scripts do not survive a move."""
        path = f"{self._place / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        self._external(self._python, *arguments, VIRTUAL_ENV=str(self._place), PATH=path)

    def _external(self, *command: str | Path, **env: str) -> None:
        self._session.run(*command, env=env, external=True)


def _digest(*requirements: str) -> str:
    read = [(ROOT / name).read_bytes() for name in ("setup.cfg", "pyproject.toml")]
    return hashlib.sha256(b"\0".join([*read, *map(str.encode, requirements)])).hexdigest()


def lab(session: nox.Session) -> Environment:
    """This package, editable, with Salt and the test tools."""
    name = "-".join(["lab", *filter(None, [re.sub(r"[^\w.]+", "-", SALT).strip("-.")])])
    return Environment(
        session,
        name,
        *("-e", ".[tests]", *filter(None, [SALT])),
        takes=": Salt, the RethinkDB driver and the test tools. Once, and it takes a minute or two",
    )


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run the tests: unit, functional and proofs, then integration; or what the arguments say."""
    _pytest(session, lab(session).python)


@nox.session(name="tests-matrix")
@nox.parametrize("python,salt", MATRIX)
def tests_matrix(session: nox.Session, salt: str) -> None:
    """Run the tests on every supported Python and LTS release of Salt."""
    session.install("-e", ".[tests]", f"salt=={salt}.*")
    _pytest(session, lambda *arguments: session.run("python", *arguments))


def _pytest(session: nox.Session, python) -> None:
    if session.posargs:
        python("-m", "pytest", *session.posargs)
        return
    python(
        "-m", "pytest", *SIDE_BY_SIDE, "tests/unit", "tests/lab", "tests/functional", "tests/proofs"
    )
    python("-m", "pytest", "tests/integration")


@nox.session(venv_backend="none")
def proofs(session: nox.Session) -> None:
    """Prove the core at length: all interleavings of small models, 5,000 incidents, each rule broken once."""
    python = lab(session).python
    python("-m", "tests.proofs.exhaustive")
    python("-m", "tests.proofs.incidents")
    session.env["SELFHEAL_EXAMPLES"] = "300"
    python("-m", "pytest", *SIDE_BY_SIDE, "tests/proofs/test_stateful.py")
    python("-m", "tests.proofs.mutations")


@nox.session(venv_backend="none")
def demo(session: nox.Session) -> None:
    """Show the whole thing on this machine."""
    lab(session).python("-m", "tests.lab.demo", *session.posargs)


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """Measure on the lab's site."""
    lab(session).python("-m", "tests.bench", *session.posargs)


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Run every hook of .pre-commit-config.yaml over every file that git knows."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        session.error(
            "lint works on the files that git knows: it needs git, and a clone of the repository"
        )
    tools = Environment(session, "lint", "pre-commit>=3.5")
    tools.python("-m", "pre_commit", "run", "--all-files", *session.posargs)


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    place = Environment(session, "docs", "-e", ".[docs]", takes=": Sphinx, Salt and this package")
    options = session.posargs or ["-W", "--keep-going", "--nitpicky"]
    place.python("-m", "sphinx", "-b", "html", *options, "docs", "docs/_build/html")
    session.log("see docs/_build/html/index.html")


@nox.session(venv_backend="none")
def changelog(session: nox.Session) -> None:
    """Show what the fragments make (default), or write it: -- --yes"""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    tools = Environment(session, "changelog", "towncrier>=23.11")
    version = setup["metadata"]["version"]
    tools.python(
        "-m", "towncrier", "build", "--version", version, *(session.posargs or ["--draft"])
    )
