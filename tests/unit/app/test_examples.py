"""The examples of the docs, run as they stand there."""

import time
from pathlib import Path
from unittest import mock

import pytest
from rethinkdb.ast import RqlQuery

from saltext_selfheal import app
from tests.lab.simulated import SimulatedNode
from tests.unit.app.world import NOT_NOW, SLACK_S


def example(name):
    """A block of Python from docs/application.md, by its first line."""
    page = (Path(__file__).parents[3] / "docs" / "application.md").read_text(encoding="utf-8")
    blocks = [block.partition("```")[0] for block in page.split("```python\n")[1:]]
    (found,) = [block for block in blocks if block.startswith(f"# {name}")]
    return found


def run_example(name, server, monkeypatch):
    """Its names, with the node of the test in place of the example's hosts, and shorter times."""
    real = app.connect

    def here(hosts, **options):
        assert options["query_timeout"]
        return real([(server.host, server.port)], **{**options, "password": "secret", "timeout": 1})

    monkeypatch.setattr(app, "connect", here)
    for variable in ("SELFHEAL_API_PASSWORD", "DB_PASSWORD"):
        monkeypatch.setenv(variable, "p")
    names = {"__name__": "example"}
    code = example(name).replace("=5", "=1").replace("query_timeout=2", "query_timeout=0.2")
    exec(compile(code, name, "exec"), names)
    return names


@pytest.fixture
def users():
    with SimulatedNode(password="secret", tables=("shop.users",)) as made:
        yield made


def test_the_flask_example(users, monkeypatch):
    pytest.importorskip("flask")
    names = run_example("shop.py", users, monkeypatch)
    client = names["app"].test_client()
    assert client.get("/users").json == []
    users.drop_connections()
    assert client.get("/users").json == []
    users.set_fault("stall", stall_at="query")
    began = time.monotonic()
    assert client.get("/users").status_code == 503
    assert time.monotonic() - began < 1 + 0.2 + SLACK_S
    users.clear()
    assert client.get("/users").status_code == 200
    with mock.patch.object(RqlQuery, "run", side_effect=NOT_NOW):
        assert client.get("/users").status_code == 503


def test_the_celery_example(users, monkeypatch):
    pytest.importorskip("celery")
    names = run_example("tasks.py", users, monkeypatch)
    assert names["count_users"]() == 0
    users.drop_connections()
    assert names["count_users"]() == 0


def test_the_script_example(users, monkeypatch, capsys):
    run_example("report.py", users, monkeypatch)
    assert capsys.readouterr().out == ""
