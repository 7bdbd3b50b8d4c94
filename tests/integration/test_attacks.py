"""What a hostile minion and a stranger who reaches the hooks can send. None of it may run, end or mislead anything.

One site takes it all, in this order; the last test counts what has run on it.
"""

import datetime
import http.client
import json
import time
import urllib.parse
import uuid
from pathlib import Path

import pytest
import requests

from saltext_selfheal.doors import bus, forms
from saltext_selfheal.ledger import records
from saltext_selfheal.loop import jobs
from tests.integration.conftest import (
    ASKING,
    MARK,
    acts,
    reactor_with_mark,
    secrets_told,
    wait_healed,
    wait_order,
)
from tests.lab.demo import TIMES
from tests.lab.site import CLUSTER, Site, new_webhook_secret, sign

MADE_UP = "20261231235959000000"
SHOP = new_webhook_secret()
TRICKS = (
    "{{ salt['cmd.run']('id') }}",
    "{% raw %}",
    "!!python/object/apply:os.system [id]",
    "- a: &x [*x]\n---\n",
    "' \" ` $(id) ; | \\",
    "\N{FIRE}\u202e\x00\x1b[2J",
    "*",
    "db*",
    "db[12]",
    "db.*",
    "(a+)+$",
    "../../etc/passwd",
    "G@os:* or db*",
)


def settings(site):
    shop = {"secret": SHOP, "clusters": [CLUSTER], "actions": ["highstate"]}
    at_once = {"test_first": False}
    made = site.cluster_settings(**TIMES, requests={"rate": "60/m"}, highstate=at_once)
    return {**made, "webhooks": {**made["webhooks"], "shop": shop}}


@pytest.fixture(scope="module")
def open_site(tmp_path_factory):
    reactor = reactor_with_mark(tmp_path_factory.mktemp("reactor"))
    with Site(settings=settings, reactor=reactor, hooks=True) as made:
        made.wait_until_quiet()
        made.engine_at_start = made.engine_pid()
        with made.events("selfheal/*") as made.heard:
            yield made


@pytest.fixture
def site(open_site):
    open_site.wait_until_quiet()
    return open_site


def unique():
    return uuid.uuid4().hex


def send(site, *events, pretag=None, wait=True):
    """Events (tag, data) from a real minion, in the form in which they look like the master's own.

    With a ``pretag`` the master puts it before the tag, and does not ask whether a minion may use the result.
    """
    last = f"lab/sent/{unique()}"
    preload = {"events": [{"tag": tag, "data": data} for tag, data in (*events, (last, {}))]}
    if pretag is not None:
        preload["pretag"] = pretag
    with site.events(last) as sent:
        # Not waiting for the job's return: its caller would have to read all that the events bring about.
        site.publish("app1", "event.fire_master", {}, "lab/list", preload=preload)
        if wait:
            sent.wait(last, timeout=60)


def reactor_has_come_here(site, events):
    """The reactor takes events in order: when it has answered this one, it has seen all that came before."""
    mark = jobs.mint(site.master_opts())
    site.fire(MARK, {"jid": mark})
    events.wait(f"salt/job/{mark}/new", timeout=20)


def healer_has_come_here(site, events):
    """The same for the healer: a signed request that it refuses."""
    id = unique()
    answer = site.hook("selfheal/runbook/restart", {}, secret=site.webhook_secret, id=id)
    assert answer.status_code == 200, answer.text
    events.wait(f"selfheal/decision/runbook-web:{id}", timeout=20)


def decisions(events):
    return [e.data["request"] for e in events.matching("selfheal/decision/*")]


def kept_request(site, id):
    """What the ledger keeps of a request, and of its answer."""
    with records.read(Path(site.run_runner("selfheal.status")["ledger"])) as db:
        row = db.execute("SELECT body, answer FROM inbox WHERE key = ?", (id,)).fetchone()
    return json.loads(row["body"]), json.loads(row["answer"])


def published(events, but="test.ping"):
    """
    (function, jid) of the jobs that were published, without those of this file's own and without the healer's looks and
    questions, which change nothing. Whether each was ordered, the last test asks.
    """
    own = {but, "event.fire_master", "event.send", "saltutil.running", "selfheal.witness"}
    return [
        (e.data["fun"], e.data["jid"])
        for e in events.matching("salt/job/*/new")
        if e.data.get("fun") not in own
    ]


def fired_jids(site):
    """What the healer has ordered, as its ledger says."""
    rows = site.run_runner("selfheal.history", limit=10000)
    return {row["jid"]: row for row in rows if row["kind"] == "fire"}


def heal(site, node):
    """One real incident, from the fault to its end: the JID of its order."""
    with site.events("selfheal/*") as events:
        site.nodes[node].kill()
        wait_healed(events)
        return wait_order(events)["jid"]


# ---------------------------------------------------------------- a minion on the bus


def test_forged_and_foreign_orders_with_a_pretag_run_nothing(site):
    acted = (jid for jid, row in fired_jids(site).items() if row["action"] not in ASKING)
    ended = next(acted, None) or heal(site, "db1")
    foreign = site.call("app1", "test.ping")["app1"]["jid"]
    jids = [
        MADE_UP,
        ended,
        foreign,
        "",
        "*",
        "7",
        MADE_UP[:-1],
        f"{MADE_UP}_1",
        7,
        None,
        [ended],
        {},
    ]
    jids += TRICKS
    serving = {name: node.pid() for name, node in site.nodes.items()}
    with site.events("selfheal/*", "salt/job/*/new") as events:
        forged = [
            (f"remediate/{action}", {"jid": jid, "minions": ["db1", "app1"], "action": action})
            for action in ("restart", "highstate", "start", "look", "*", "../restart")
            for jid in jids
        ]
        send(site, *forged, pretag="selfheal")
        events.wait("selfheal/remediate/*", count=len(forged), timeout=30)
        reactor_has_come_here(site, events)
        assert published(events) == []
    assert {name: node.pid() for name, node in site.nodes.items()} == serving


def test_a_real_order_replayed_runs_once_and_a_forged_return_is_not_believed(site):
    with site.events("selfheal/*", "salt/job/*") as events:
        site.nodes["db2"].kill()
        order = events.wait("selfheal/remediate/restart", timeout=30).data
        jid = order["jid"]
        # At once, before its job has been published: a minion would be too slow, and could fire the same.
        for _ in range(3):
            site.fire("selfheal/remediate/restart", order)
        lie = {"jid": jid, "id": "db2", "fun": "service.restart", "retcode": 1, "return": "no"}
        site.fire(f"salt/job/{jid}/ret/db2", {**lie, "success": False, "cmd": "_return"})
        send(
            site,
            (f"{jid}/ret/db2", {**lie, "forged": True}),
            (f"{jid}/new", {"jid": jid, "fun": "test.ping", "minions": ["db2"]}),
            pretag="salt/job",
        )
        assert wait_healed(events) == order["incident"]
        send(site, *[("selfheal/remediate/restart", order)] * 3)
        reactor_has_come_here(site, events)
        assert events.matching(f"salt/job/{jid}/ret/db2", lambda d: d.get("forged"))
        ran = [
            e
            for e in events.matching(f"salt/job/{jid}/ret/db2")
            if e.data.get("cmd") == "_return" and e.data["return"] != "no"
        ]
        assert len(ran) == 1
        assert {jid for _, jid in published(events)} == {order["jid"]}
    whole = site.run_runner("selfheal.incident", order["incident"])
    assert [one["outcome"] for one in acts(whole)] == ["done"]
    assert whole["phase"] == "resolved"


def test_forged_news_of_the_healer_mislead_nobody_who_asks_it(site):
    id = unique()
    lie = {"request": id, "reply": "accepted", "incident": "runbook-99", "v": 1}
    send(
        site,
        (f"selfheal/decision/{id}", lie),
        ("selfheal/engine/heartbeat", {"incidents": ["runbook-99"]}),
        ("selfheal/engine/config_error", {"why": "forged", "problems": []}),
        ("selfheal/incident/runbook/locked", {"incident": "runbook-99", "nodes": ["db1"]}),
    )
    assert site.run_runner("selfheal.incident", id)["why"].startswith("id: found")
    told = site.run_runner("selfheal.trigger", "runbook", action="restart", request=id)
    assert told["reply"] == "refused"
    told = site.run_runner("selfheal.status")
    assert told["engine"] == "running"
    assert "locked" not in told["clusters"]["runbook"]
    assert told["clusters"]["runbook"]["incidents"] == {}


def test_hooks_forged_with_a_pretag_are_worth_as_much_as_unsigned_ones(site):
    headers = {"Remote-Addr": "127.0.0.1", "Host": "localhost", "X-Auth-Token": "x"}
    body = '{"cluster": "runbook", "action": "highstate", "reason": "forged"}'
    form = {"tgt": "*", "matcher": "glob", "args": "rethinkdb"}
    with site.events("selfheal/decision/*", "salt/job/*/new", "salt/netapi/*") as events:
        send(
            site,
            ("hook/selfheal/runbook/highstate", {"body": body, "post": {}, "headers": headers}),
            ("hook/selfheal/runbook/highstate",
             {"body": body, "post": {}, "headers": {**headers, **sign(new_webhook_secret(), body)}}),
            *[
                ("hook/states/highstate", {"post": {**form, "secretkey": key}, "body": "", "headers": headers})
                for key in ("", None, 0, [], "x", site.webhook_secret)
            ],
            ("hook/cmd/run", {"post": {**form, "cmd": "id", "secretkey": "x"}}),
            ("hook/states/highstate", {"post": "tgt=*"}),
            ("hook/states/highstate", {}),
            pretag="salt/netapi",
        )  # fmt: skip
        events.wait("salt/netapi/hook/*", count=11)
        healer_has_come_here(site, events)
        assert len(decisions(events)) == 1
        assert published(events) == []


def test_requests_of_odd_forms_on_the_bus_become_refusals_or_nothing(site):
    asked = [
        *[(f"selfheal/request/{trick}", {"action": "highstate"}) for trick in TRICKS],
        *[("selfheal/request/runbook", {"nodes": [trick]}) for trick in TRICKS],
        *[("selfheal/request/runbook", {"nodes": trick}) for trick in TRICKS],
        *[("selfheal/request/runbook", {"action": trick}) for trick in TRICKS],
        *[("selfheal/request/runbook", {"request": trick}) for trick in TRICKS],
        *[("selfheal/request/runbook", {"action": "stop", "reason": trick, "id": trick}) for trick in TRICKS],
        ("selfheal/request/runbook", {"nodes": ["app1"]}),
        ("selfheal/request/runbook", {"nodes": {"db1": 1}}),
        ("selfheal/request/runbook", {"action": ["highstate"]}),
        ("selfheal/request/runbook", {"action": {"highstate": {}}}),
        ("selfheal/request/runbook", {"request": "runbook-web:taken"}),
        ("selfheal/request/runbook", {"reason": [[["x"] * 10] * 10] * 10}),
        ("selfheal/request/runbook", {"nodes": ["db1"] * 65}),
        ("selfheal/request/nosuch", {"request": "taken"}),
        ("selfheal/request/", {}),
        ("selfheal/request/runbook/highstate", {}),
    ]  # fmt: skip
    with site.events("selfheal/*", "salt/job/*/new") as events:
        send(site, *asked)
        healer_has_come_here(site, events)
        answered = decisions(events)
        assert not [id for id in answered if "taken" in id]
        assert published(events) == []
        assert events.matching("selfheal/incident/*") == []
    rows = site.run_runner("selfheal.history", limit=200)
    mine = [row for row in rows if row.get("request") in answered and row["door"] == "bus"]
    # Of so many refusals of one source the first ones are told; all are answered.
    assert 0 < len(mine) <= 10 < 2 * len(TRICKS) < len(answered)
    assert {row["reply"] for row in mine} == {"refused"}
    kept = [kept_request(site, id) for id in answered]
    assert {answer["reply"] for _, answer in kept} == {"refused"}
    reasons = [asked["reason"] for asked, _ in kept]
    for trick in TRICKS:
        line = "".join(sign if sign.isprintable() else " " for sign in trick)
        assert any(line in reason for reason in reasons), trick


def test_names_are_looked_up_and_never_taken_as_patterns(site):
    for trick in TRICKS:
        for asked in ({"cluster": trick}, {"cluster": "runbook", "nodes": [trick]}):
            assert site.run_runner("selfheal.trigger", **asked)["reply"] == "refused", asked
        told = site.run_runner("selfheal.incident", trick)
        assert (told["reply"], told["retcode"]) == ("refused", 1)


def test_a_reason_is_cut_and_says_so(site):
    many = 1_000_000
    told = site.run_runner("selfheal.trigger", "runbook", action="restart", reason="x" * many)
    with site.events("selfheal/decision/*") as events:
        id, less = unique(), 900_000
        send(
            site,
            ("selfheal/request/runbook", {"action": "stop", "reason": "y" * less, "request": id}),
        )
        events.wait(f"*/bus:{id}", timeout=20)
    for request, letter, length in ((told["request"], "x", many), (f"bus:{id}", "y", less)):
        cut = letter * forms.MAX_REASON
        assert kept_request(site, request)[0]["reason"] == f"{cut}… (cut from {length} characters)"


# ---------------------------------------------------------------- a stranger at the hooks


def test_a_hook_that_is_not_signed_well_gets_the_usual_answer_and_nothing_else(site):
    now = datetime.datetime.now(tz=datetime.timezone.utc)
    ten_minutes = datetime.timedelta(minutes=10)
    secret = site.webhook_secret
    asked = {"cluster": "runbook", "action": "highstate", "reason": "let me in"}
    text = json.dumps(asked)
    good = sign(secret, text)
    tries = {
        "unsigned": {},
        "signed by nobody we know": sign(new_webhook_secret(), text),
        "old": sign(secret, text, at=now - ten_minutes),
        "of the future": sign(secret, text, at=now + ten_minutes),
        "another body": sign(secret, '{"reason": "something else"}'),
        "another id": {**good, "webhook-id": unique()},
        "another time": {**good, "webhook-timestamp": str(int(good["webhook-timestamp"]) + 1)},
        "no time": {k: v for k, v in good.items() if k != "webhook-timestamp"},
        "no id": {k: v for k, v in good.items() if k != "webhook-id"},
        "no signature": {**good, "webhook-signature": "v1,"},
        "not base64": {**good, "webhook-signature": "v1,%%%"},
        "many signatures": {**good, "webhook-signature": " ".join(["v1,AAAA"] * 300)},
        "an odd time": {**good, "webhook-timestamp": "1e400"},
        "an odd id": sign(secret, text, id="runbook-web:1"),
    }
    with site.events("selfheal/*", "salt/job/*/new") as events:
        for what, headers in tries.items():
            answer = site.hook("selfheal/runbook/highstate", text, headers=headers)
            assert (answer.status_code, answer.json()) == (200, {"success": True}), what
        # Good signatures, for what these callers may not have.
        site.hook("selfheal/runbook/restart", {"reason": "x"}, secret=SHOP)
        site.hook("selfheal/runbook/start", {"reason": "x"}, secret=secret)
        site.hook("selfheal/nosuch/highstate", {"reason": "x"}, secret=secret)
        # Signed for something else than the path that it is sent to, or for nothing.
        site.hook("selfheal/runbook/restart", text, secret=secret)
        site.hook("selfheal/runbook/highstate", '{"reason": "as callers of before"}', secret=secret)
        healer_has_come_here(site, events)
        assert len(decisions(events)) == 1
        assert published(events) == []
        assert events.matching("selfheal/incident/*") == []


def test_a_replayed_hook_is_one_request(site):
    id, text = unique(), '{"cluster": "runbook", "action": "restart", "reason": "once"}'
    headers = sign(site.webhook_secret, text, id)
    with site.events("selfheal/decision/*") as events:
        for _ in range(5):
            site.hook("selfheal/runbook/restart", text, headers=headers)
        # Nor by a minion that has seen the request somewhere, nor under another action's name.
        send(
            site,
            ("hook/selfheal/runbook/restart", {"body": text, "post": {}, "headers": headers}),
            ("hook/selfheal/runbook/highstate", {"body": text, "post": {}, "headers": headers}),
            pretag="salt/netapi",
        )
        healer_has_come_here(site, events)
        assert len([one for one in decisions(events) if one.endswith(id)]) == 1
    rows = site.run_runner("selfheal.history", limit=50)
    assert len([row for row in rows if row.get("request") == f"runbook-web:{id}"]) == 1


def test_bodies_of_any_kind_end_nothing(site):
    deep = "[" * 30_000 + "]" * 30_000
    said = '"cluster": "runbook", "action": "highstate"'
    bodies = {
        "empty": "",
        "a list": "[]",
        "a string": '"highstate"',
        "a number": "7",
        "nothing": "null",
        "no JSON": "{",
        "deep": deep,
        "deep inside": f'{{{said}, "reason": {deep}}}',
        "NUL": "\0" * 100,
        "too much": json.dumps({"reason": "x" * 900_000}),
        "far too much": json.dumps({"reason": "x" * 2_000_000}),
        "another key": f'{{{said}, "tgt": "*"}}',
        "a key twice": f'{{{said}, "nodes": ["db1"], "nodes": ["db2"]}}',
        "half a pair": f'{{{said}, "reason": "\\ud800"}}',
        "nodes as a map": f'{{{said}, "nodes": {{"db1": 1}}}}',
        "nodes as numbers": f'{{{said}, "nodes": [1, 2]}}',
        "NaN": f'{{{said}, "nodes": NaN}}',
    }
    with site.events("selfheal/*", "salt/job/*/new") as events:
        for what, body in bodies.items():
            kind = {"Content-Type": "text/plain"} if what == "NUL" else {}
            site.hook("selfheal/runbook/highstate", body, secret=site.webhook_secret, headers=kind)
        for trick in TRICKS:
            body = {"reason": trick, "nodes": [trick]}
            site.hook("selfheal/runbook/highstate", body, secret=site.webhook_secret)
            name = urllib.parse.quote(trick, safe="")
            site.hook(f"selfheal/{name}/highstate", {}, secret=site.webhook_secret)
            site.hook(f"selfheal/runbook/{name}", {}, secret=site.webhook_secret)
        healer_has_come_here(site, events)
        # Of those well formed, the nodes are unknown.
        assert len(decisions(events)) == len(TRICKS) + 1
        assert published(events) == []
        assert events.matching("selfheal/incident/*") == []
    assert site.hooks_daemon.is_running()


def test_no_path_leads_out_of_the_hooks(site):
    text = '{"cluster": "runbook", "action": "highstate", "reason": "out"}'
    host = urllib.parse.urlsplit(site.hooks_url).netloc
    with site.events("selfheal/*", "salt/job/*/new") as events:
        for path in (
            "/hook/selfheal/../runbook/highstate", "/hook/selfheal/runbook/../highstate", "/hook/../run",
            "/hook/selfheal/..%2Frunbook/highstate", "/hook/selfheal/%2e%2e/runbook/highstate", "/hook//highstate",
            "/hook/selfheal/runbook/highstate/..", "/hook/selfheal/runbook/highstate%00", "/hook/selfheal//runbook",
        ):  # fmt: skip
            headers = {"Content-Type": "application/json", **sign(site.webhook_secret, text)}
            connection = http.client.HTTPConnection(host, timeout=20)
            connection.request("POST", path, text, headers)
            connection.getresponse().read()
            connection.close()
        # Whoever reaches this salt-api can fire hooks and do nothing else.
        for client in ("local", "runner", "wheel"):
            low = {"client": client, "tgt": "*", "fun": "test.ping", **site.api_credentials}
            answer = requests.post(f"{site.hooks_url}/run", json=[low], timeout=20)
            assert answer.status_code >= 400, answer.text
        for path in ("events", "keys", "minions", "jobs", "stats"):
            assert requests.get(f"{site.hooks_url}/{path}", timeout=20).status_code in (400, 401)
        healer_has_come_here(site, events)
        assert len(decisions(events)) == 1
        assert published(events) == []


def test_the_key_of_the_articles_interface_opens_no_more_than_it_says(site):
    form = {"matcher": "glob", "args": "rethinkdb", "secretkey": site.formula_key}
    tries = [
        *[{**form, "tgt": trick, "matcher": "grain"} for trick in TRICKS],
        *[{**form, "tgt": trick, "matcher": "nodegroup"} for trick in TRICKS],
        *[{**form, "tgt": "db*", "matcher": trick} for trick in TRICKS],
        *[{**form, "tgt": "db*", "args": trick} for trick in TRICKS],
        {**form, "tgt": ""}, {**form, "tgt": "app1"}, {**form, "tgt": "((", "matcher": "pcre"},
        {**form, "tgt": "(a+)+$", "matcher": "pcre"}, {**form, "tgt": "db* or E@(a+)+$", "matcher": "compound"},
        {**form, "tgt": "*:" * 400 + "x", "matcher": "grain"}, {**form, "tgt": "db* " * 400, "matcher": "compound"},
        {**form, "tgt": "db*", "args": ["sshd"]}, {**form, "tgt": {"db1": 1}},
    ]  # fmt: skip
    with site.events("selfheal/*", "salt/job/*/new") as events:
        for one in tries:
            assert site.hook("services/restart", one).status_code == 200
        healer_has_come_here(site, events)
        assert published(events) == []
    rows = site.run_runner("selfheal.history", limit=100)
    mine = [row for row in rows if row.get("door") == "article"]
    assert {row["reply"] for row in mine} <= {"refused"}
    assert all(set(row["nodes"]) <= {"db1", "db2", "db3"} for row in mine)


# ---------------------------------------------------------------- very much of it


def test_a_flood_of_requests_is_one_incident_and_keeps_nobody_else_waiting(site):
    ask = ("selfheal/request/runbook", {"action": "highstate", "nodes": ["db1"], "reason": "flood"})
    # Paused, so that the incident does not end before the flood does.
    site.run_runner("selfheal.pause", "runbook", "40s", reason="a flood is coming")

    began = time.monotonic()

    def answers_s(doing):
        begin = time.monotonic()
        doing()
        return time.monotonic() - begin

    with site.events("selfheal/*", "salt/job/*/new") as events:
        for _ in range(3):
            send(site, *[ask] * 1000, wait=False)
        events.wait("selfheal/request/runbook", count=300, timeout=30)
        healer_has_come_here(
            site, events
        )  # in the midst of it: the master's bus is the slowest part
        events.wait("selfheal/request/runbook", count=3000, timeout=60)
        assert answers_s(lambda: healer_has_come_here(site, events)) < 2
        same = {"nodes": ["db1"]}
        assert answers_s(lambda: site.run_runner("selfheal.trigger", "runbook", **same)) < 2
        by_bus = [one for one in decisions(events) if one.startswith("bus:")]
        came_back = (time.monotonic() - began) * bus.BUS_FLOW.per_s
        assert 0 < len(by_bus) <= bus.BUS_FLOW.at_once + came_back + 1
        site.run_runner("selfheal.resume", "runbook")
        incident = wait_healed(events)
        assert {e.data["incident"] for e in events.matching("selfheal/incident/*")} == {incident}
        assert [function for function, _ in published(events)] == ["state.highstate"]


def test_after_all_of_it_nothing_has_run_that_the_ledger_did_not_order(site):
    assert site.engine_pid() == site.engine_at_start
    assert site.run_runner("selfheal.audit")["ok"] is True
    ordered = fired_jids(site)
    changing = {
        jid: job
        for jid, job in site.run_runner("jobs.list_jobs").items()
        if job["Function"].startswith(("state.", "service.", "cmd.", "saltutil."))
    }
    first = min(jid for jid, row in ordered.items() if row["action"] not in ASKING)
    # Before it lies the site's own highstate, which installed the databases
    assert {jid for jid in changing if jid >= first} <= set(ordered)
    for row in ordered.values():
        assert set(row["minions"]) <= {"db1", "db2", "db3"}
    # Two incidents with one restart each, and the highstate that the flood was granted.
    changed = sorted(row["action"] for row in ordered.values() if row["action"] not in ASKING)
    assert changed == ["highstate", "restart", "restart"]
    assert all(node.serving() for node in site.nodes.values())
    log = site.logs()["master/logs/master.log"].read_text()
    assert "listening to the event bus failed" not in log
    assert "the healer's loop failed" not in log


def test_nobody_was_told_a_secret(site):
    # Not by the job cache: there lie these tests' own orders to send a hook that has the key.
    assert secrets_told(site, site.heard, jobs=False) == []
