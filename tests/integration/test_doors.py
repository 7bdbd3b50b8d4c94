"""Through each door: who is let in, what comes of it, and what the history says of who asked."""

import json
import os
import re
import shutil
import subprocess
import sys
import uuid

import pytest
import requests

from tests.integration.conftest import GRANTED, acts, secrets_told, wait_healed, wait_order
from tests.integration.test_healing import returned, started_jobs
from tests.lab.demo import TIMES
from tests.lab.site import CHECKOUT, Site

ARTICLE = "its key's owner"


@pytest.fixture(scope="module")
def open_site():
    """A site whose doors are all open: hooks, the article's interface, and `peer_run` for one minion."""
    plenty = {**TIMES, "budget": "off", "requests": {"rate": "60/m"}}
    plenty["highstate"] = {"test_first": False}  # on nodes that are well it would be left out
    made = Site(
        settings=lambda s: s.cluster_settings(engine={"limits": "off"}, **plenty),
        hooks=True,
        # Both halves are patterns for the beginning only, hence the `$`.
        master={"peer_run": {"app1$": ["selfheal.trigger$"]}},
    )
    with made, made.events("selfheal/*") as made.heard:
        yield made


@pytest.fixture
def site(open_site):
    open_site.wait_until_quiet()
    return open_site


def entry(site, request):
    """The request's row in the history."""
    rows = site.run_runner("selfheal.history", limit=100)
    return next((row for row in rows if row.get("request") == request), None)


def of_article(site):
    """What the history tells of the article's interface, newest first."""
    rows = site.run_runner("selfheal.history", limit=100)
    return [row for row in rows if row.get("door") == "article"]


def unique():
    return uuid.uuid4().hex


# ---------------------------------------------------------------- the signed webhook


def test_a_signed_hook_joins_what_is_being_healed_and_can_be_looked_up(site):
    id = unique()
    with site.events("selfheal/*", "salt/job/*") as events:
        site.nodes["db2"].kill()
        events.wait("selfheal/incident/runbook/suspected", timeout=30)
        answer = site.hook(
            "selfheal/runbook/restart", {"reason": "no answer"}, secret=site.webhook_secret, id=id
        )
        assert (answer.status_code, answer.json()) == (200, {"success": True})
        events.wait(f"selfheal/decision/runbook-web:{id}")
        wait_healed(events)
        assert len(returned(events, "service.restart")) == 1
        assert started_jobs(events, "state.highstate") == []
    row = entry(site, f"runbook-web:{id}")
    assert (row["door"], row["asker"], row["reply"]) == ("webhook", "runbook-web", "joined")
    assert row["reason"] == "no answer"
    told = site.run_runner("selfheal.incident", f"runbook-web:{id}")
    assert told["reply"] == "joined"
    assert told["incident"]["phase"] == "resolved"
    assert [one["outcome"] for one in acts(told["incident"])] == ["done"]


def test_a_signed_hook_gets_its_highstate_once_however_often_it_is_sent(site):
    id = unique()
    body = {"nodes": ["db3"], "reason": "the config drifted"}
    site.nodes["db3"].drift_config()
    with site.events("selfheal/*", "salt/job/*") as events:
        for _ in range(2):
            site.hook("selfheal/runbook/highstate", body, secret=site.webhook_secret, id=id)
        wait_healed(events)
        site.hook("selfheal/runbook/highstate", body, secret=site.webhook_secret, id=id)
        # One that comes later and is answered tells that the repetition has been seen.
        after = unique()
        site.hook("selfheal/runbook/restart", {}, secret=site.webhook_secret, id=after)
        events.wait(f"selfheal/decision/runbook-web:{after}")
        (job,) = started_jobs(events, "state.highstate")
        assert job["tgt"] == ["db3"]
        assert len(events.matching(f"selfheal/decision/runbook-web:{id}")) == 1
    assert site.nodes["db3"].config_is_right()
    told = site.run_runner("selfheal.incident", f"runbook-web:{id}")
    assert told["reply"] in GRANTED
    assert (told["incident"]["fault"], told["incident"]["phase"]) == ("requested", "resolved")
    assert entry(site, f"runbook-web:{after}")["reply"] == "refused"


def of_the_docs(name):
    """The code that stands between two comments of the page about requests."""
    text = (CHECKOUT / "docs" / "requests.md").read_text()
    block = text.split(f"<!-- {name} -->")[1].split(f"<!-- end {name} -->")[0]
    return block.split("```")[1].partition("\n")[2]


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_the_docs_call_of_the_runner_gets_the_decision(site):
    """With curl, as an application on any machine would; the site has no TLS, and its account is in a file."""
    words = {
        "https://master:8000": site.api_url,
        "runbook-app": site.api_credentials["username"],
        "…": site.api_credentials["password"],
        "pam": site.api_credentials["eauth"],
    }
    call = of_the_docs("run.sh")
    for theirs, ours in words.items():
        assert theirs in call
        call = call.replace(theirs, ours)
    with site.events("selfheal/*") as events:
        done = subprocess.run(
            ["bash", "-c", call], capture_output=True, text=True, timeout=30, check=False
        )
        (told,) = json.loads(done.stdout)["return"]
        assert told["reply"] in GRANTED
        order = wait_order(events)
        assert (order["incident"], order["action"]) == (told["incident"], "highstate")
    assert entry(site, told["request"])["asker"] == "runbook-web"


@pytest.mark.parametrize(
    ("example", "needs", "run"),
    [
        ("hook.py", (), [sys.executable, "-c"]),
        ("hook.sh", ("bash", "openssl", "curl", "od", "base64"), ["bash", "-c"]),
    ],
)
def test_the_examples_of_the_docs_are_understood(site, example, needs, run):
    missing = [program for program in needs if not shutil.which(program)]
    if missing:
        pytest.skip(f"there is no {', '.join(missing)}")
    environ = {"HOOKS_URL": site.hooks_url, "HOOKS_SECRET": site.webhook_secret}
    with site.events("selfheal/decision/*") as events:
        done = subprocess.run(
            [*run, of_the_docs(example)],
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        (id,) = re.findall(r"[0-9a-f-]{36}", done.stdout)
        events.wait(f"*/runbook-web:{id}")
    row = entry(site, f"runbook-web:{id}")
    assert (row["reply"], row["reason"]) == ("refused", "no connection for 10 minutes")


# ---------------------------------------------------------------- the article's application


class Article:
    """What the article's application does when its database is away: it asks, and takes 200 for yes."""

    def __init__(self, site, key=None):
        self._url = site.hooks_url
        self._key = site.formula_key if key is None else key

    def highstate(self, tgt="db*"):
        return self.ask("states/highstate", tgt=tgt)

    def restart(self, tgt="db*", args="rethinkdb"):
        return self.ask("services/restart", tgt=tgt, args=args)

    def ask(self, path, **fields):
        self.answer = requests.post(
            f"{self._url}/hook/{path}",
            data={"matcher": "glob", "secretkey": self._key, **fields},
            headers={"Accept": "application/json"},
            timeout=30,
        )
        return self.answer.status_code == 200


def test_the_articles_application_gets_its_highstate_on_configured_nodes_only(site):
    site.nodes["db1"].drift_config()
    with site.events("selfheal/*", "salt/job/*") as events:
        assert Article(site).highstate(tgt="*")
        wait_healed(events)
        jobs = started_jobs(events, "state.highstate")
        assert sorted(job["tgt"] for job in jobs) == [["db1"], ["db2"], ["db3"]]
    assert site.nodes["db1"].config_is_right()
    row = of_article(site)[0]
    assert (row["asker"], row["action"]) == (ARTICLE, "highstate")
    assert row["reply"] in GRANTED
    assert sorted(row["nodes"]) == ["db1", "db2", "db3"]


def test_the_articles_application_gets_its_restart_when_the_database_is_down(site):
    with site.events("selfheal/*", "salt/job/*") as events:
        site.nodes["db3"].kill()
        events.wait("selfheal/incident/runbook/suspected", timeout=30)
        assert Article(site).restart()
        wait_healed(events)
        ran = returned(events, "service.restart") + returned(events, "state.highstate")
        assert [minion for minion, _ in ran] == ["db3"]
    assert (of_article(site)[0]["action"], of_article(site)[0]["reply"]) == ("restart", "joined")


def test_what_the_articles_application_must_not_do_is_answered_alike_and_does_nothing(site):
    before = len(of_article(site))
    with site.events("selfheal/*", "salt/job/*/new") as events:
        right, wrong = Article(site), Article(site, key="not the key")
        assert wrong.highstate(tgt="*")
        assert wrong.restart()
        assert right.ask("cmd/run", tgt="*", args="touch never")
        assert right.ask("cmd/script", tgt="*", args="salt://x")
        assert right.restart(tgt="app1")
        assert right.restart(args="sshd")
        assert right.ask("services/stop", tgt="db*", args="rethinkdb")
        assert right.answer.content == wrong.answer.content
        events.wait("selfheal/decision/*")
        assert len(events.matching("selfheal/decision/*")) == 1
        assert events.matching("salt/job/*/new") == []
    assert len(of_article(site)) == before + 1
    row = of_article(site)[0]
    assert (row["action"], row["reply"]) == ("stop", "refused")
    assert "pause the cluster, and use Salt" in row["why"]


# ---------------------------------------------------------------- an application's minion


def test_a_minions_own_shell_asks(site):
    shell = site.minions["app1"].salt_call_cli(timeout=60)
    with site.events("selfheal/decision/*") as events:
        done = shell.run("selfheal.restart", "runbook", reason="from the shell")
        assert done.returncode == 0
        assert done.data["sent"]
        events.wait(f"*/bus:{done.data['request']}")
    row = entry(site, f"bus:{done.data['request']}")
    assert (row["door"], row["asker"]) == ("bus", "app1 (claimed)")
    assert (row["reason"], row["reply"]) == ("from the shell", "refused")
    # The id works as the minion knows it.
    assert site.run_runner("selfheal.incident", done.data["request"])["reply"] == "refused"


def test_a_plain_event_asks(site):
    id = unique()
    shell = site.minions["app1"].salt_call_cli(timeout=60)
    with site.events("selfheal/decision/*") as events:
        data = f"{{action: restart, reason: plain, request: {id}}}"
        assert shell.run("event.send", "selfheal/request/runbook", data).data is True
        events.wait(f"*/bus:{id}")
    assert (entry(site, f"bus:{id}")["asker"], entry(site, f"bus:{id}")["reason"]) == (
        "app1 (claimed)",
        "plain",
    )


def publish_runner(site, minion, function, *args):
    return site.call(minion, "publish.runner", function, list(args))[minion]["ret"]


def test_where_peer_run_allows_it_the_master_vouches_for_the_minion(site):
    answer = publish_runner(
        site, "app1", "selfheal.trigger", "runbook", "action=restart", "reason=vouched for"
    )
    assert answer["reply"] == "refused"
    assert "the probe sees nothing wrong" in answer["why"]
    row = entry(site, answer["request"])
    assert (row["door"], row["asker"], row["reason"]) == ("runner", "minion app1", "vouched for")


def test_peer_run_lets_no_other_minion_ask_and_no_other_function(site):
    before = site.run_runner("selfheal.history", limit=1)
    for minion, function, args in (
        ("app1", "selfheal.force", ["runbook", "restart", "db1", "because"]),
        ("app1", "selfheal.pause", ["runbook", "1h", "reason=because"]),
        ("app1", "selfheal.status", []),
        ("db1", "selfheal.trigger", ["runbook"]),
    ):
        assert publish_runner(site, minion, function, *args) == {}
    assert site.run_runner("selfheal.history", limit=1) == before


def test_another_minions_name_does_not_help_where_the_master_vouches(site):
    before = site.run_runner("selfheal.history", limit=1)
    stolen = {
        "cmd": "minion_runner",
        "fun": "selfheal.trigger",
        "arg": ["runbook", "action=restart", "reason=stolen"],
        "id": "app1",
    }
    site.call("db1", "event.fire_master", {}, "lab/stolen", preload=stolen)
    assert site.run_runner("selfheal.history", limit=1) == before


# ---------------------------------------------------------------- operators


def test_force_acts_where_a_request_is_refused_and_is_no_applications(site):
    low = {
        "client": "runner",
        "fun": "selfheal.force",
        "kwarg": {"cluster": "runbook", "action": "restart", "nodes": ["db2"], "reason": "memory"},
    }
    assert site.api(**low).status_code == 401
    pid = site.nodes["db2"].pid()
    with site.events("selfheal/*", "salt/job/*") as events:
        answer = site.run_runner("selfheal.force", **low["kwarg"])
        assert answer["reply"] in GRANTED
        wait_healed(events)
        (job,) = started_jobs(events, "service.restart")
        assert job["tgt"] == ["db2"]
    assert (
        site.run_runner("selfheal.incident", answer["incident"])["attempts"][0]["jid"] == job["jid"]
    )
    assert site.nodes["db2"].pid() != pid
    row = entry(site, answer["request"])
    assert (row["door"], row["reason"]) == ("force", "memory")


def test_the_chain_of_the_audit_holds(site):
    assert site.run_runner("selfheal.audit")["ok"] is True


def test_no_secret_is_in_anything_that_was_written(open_site):
    assert secrets_told(open_site, open_site.heard) == []
