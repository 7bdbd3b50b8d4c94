"""The doors on the event bus: who may ask, for what, how often; and that everything else becomes nothing."""

import datetime
import json
import logging
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook

from saltext_selfheal.config import EngineSettings
from saltext_selfheal.doors import bus, flow, formula, webhook

SECRET = "whsec_Nn6KgpUl5pvuy8k8hnKht4W4TFKMVAUj"
OTHERS = "whsec_PqwOKoxow87gMDm6XDD5Y4rnb/iQgjQ+"
KEY = "the-articles-key"
SETTINGS = EngineSettings.model_validate(
    {
        "clusters": {
            "runbook": {"minions": "db*", "nodes": {"db1": "10.0.0.1", "db2": "10.0.0.2"}},
            "other": {"minions": "x*", "nodes": {"x1": "10.0.1.1"}, "service": "redis"},
        },
        "webhooks": {
            "web": {"secret": SECRET, "clusters": ["runbook"]},
            "shop": {"secret": OTHERS, "clusters": ["other"], "actions": ["highstate"]},
        },
        "formula_secretkey": KEY,
    }
)
HOOK = "salt/netapi/hook/selfheal/runbook/restart"


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


class Targets:
    """What Salt would find for a target; keeps what was asked."""

    def __init__(self):
        self.minions = {"db1", "db2", "x1", "web1"}
        self.asked = []

    def __call__(self, target, kind):
        self.asked.append((target, kind))
        return self.minions


@pytest.fixture
def targets():
    return Targets()


@pytest.fixture
def doors(clock, targets):
    return bus.doors(SETTINGS, targets, clock)


ASKED = {"cluster": "runbook", "action": "restart"}


def signed(body=None, secret=SECRET, id="msg-1", age_s=0, **headers):
    """An event as salt-api fires it for a signed POST. A dict says what it asks for, unless it says something else."""
    body = {"reason": "down"} if body is None else body
    body = {**ASKED, **body} if isinstance(body, dict) else body
    when = datetime.datetime.now(tz=datetime.timezone.utc) - datetime.timedelta(seconds=age_s)
    text = body if isinstance(body, str) else json.dumps(body)
    given = {
        "Webhook-Id": id,
        "Webhook-Timestamp": str(int(when.timestamp())),
        "Webhook-Signature": Webhook(secret).sign(id, when, text),
        "Host": "salt",
        **headers,
    }
    return {"body": text, "post": {}, "headers": given}


# ---------------------------------------------------------------- webhook


def test_a_signed_hook_is_a_request_of_its_caller(doors):
    (request,) = doors.take(HOOK, signed({"reason": "down", "nodes": ["db1"]}))
    assert (request.id, request.door, request.asker) == ("web:msg-1", "webhook", "web")
    assert (request.cluster, request.action, request.nodes) == ("runbook", "restart", ("db1",))
    assert (request.reason, request.forced) == ("down", False)


@pytest.mark.parametrize(
    "data",
    [
        signed(age_s=4000), signed(age_s=-4000), signed(secret=OTHERS),
        {**signed(), "body": '{"reason": "up"}'}, {**signed(), "headers": {}}, {**signed(), "headers": None},
        {**signed(), "headers": {"Webhook-Id": "msg-1"}}, {**signed(), "body": None}, {},
        signed(**{"Webhook-Signature": ""}), signed(**{"Webhook-Signature": "v1,!!"}),
        signed(**{"Webhook-Signature": "v2,abc v1a,x"}), signed(**{"Webhook-Timestamp": "soon"}),
        signed(**{"Webhook-Timestamp": "9" * 400}), signed(id="a b"), signed(id="x" * 101), signed(id=""),
        signed(body=""), signed(body="[]"), signed(body='"x"'), signed(body="null"), signed(body="{"),
        signed(body="[" * 50_000), signed(body={"reason": "x", "tgt": "*"}), signed(body={"nodes": {"db1": 1}}),
        signed(body={"reason": "x", "forced": True}), signed(body={"reason": [[["x"]]]}),
        signed(body={"reason": "x" * 2_000_000}), signed(body={"nodes": "a," * 2000}),
        # Signed for something else than the path, by a caller of before, or said twice.
        signed({"action": "highstate"}), signed({"cluster": "other"}), signed({"cluster": "Runbook"}),
        signed({"action": "restart "}), signed({"action": ["restart"]}), signed({"cluster": None}),
        signed('{"reason": "down"}'), signed('{"cluster": "runbook"}'), signed('{"action": "restart"}'),
        signed('{"cluster": "runbook", "action": "highstate", "action": "restart"}'),
        signed({"nodes": None}), signed({"node": ["db1"]}), signed({"Nodes": ["db1"]}), signed({"nodes ": ["db1"]}),
    ],
)  # fmt: skip
def test_what_is_not_signed_or_has_not_the_form_becomes_nothing(doors, data, caplog):
    assert doors.take(HOOK, data) == []
    assert SECRET not in caplog.text
    assert len(caplog.text) < 1000


@pytest.mark.parametrize(
    "path",
    [
        "runbook", "runbook/restart/now", "../runbook/restart", "runbook/stop", "runbook/look", "runbook/start", "*/restart",
        "other/highstate", "/", "", "runbook/{{ 1 }}", "run\0book/restart",
    ],
)  # fmt: skip
def test_a_caller_reaches_its_own_clusters_and_actions_only(doors, path):
    assert doors.take(f"salt/netapi/hook/selfheal/{path}", signed()) == []


def test_a_caller_of_before_is_told_what_to_sign(doors, caplog):
    assert doors.take(HOOK, signed('{"reason": "down"}')) == []
    assert "cluster and action as in the path stand in the signed body" in caplog.text


def test_a_message_that_was_signed_for_one_path_is_nothing_on_another(doors, caplog):
    event = signed({"reason": "down"})
    assert doors.take(HOOK.replace("restart", "highstate"), event) == []
    assert "allowed: what was signed" in caplog.text
    assert len(doors.take(HOOK, event)) == 1


@pytest.mark.parametrize("nodes", [[], "", ","])
def test_an_empty_target_of_a_signed_caller_becomes_nothing(doors, nodes, caplog):
    assert doors.take(HOOK, signed({"reason": "down", "nodes": nodes})) == []
    assert "allowed: minion ids, at least one" in caplog.text


def test_text_of_any_kind_is_a_reason_and_nothing_else(doors):
    reason = "{{ 7*7 }} !!python/object \N{FIRE} \x00 ' \" \n- a: b \ud800"
    (request,) = doors.take(HOOK, signed({"reason": reason}))
    assert request.reason == "{{ 7*7 }} !!python/object \N{FIRE}   ' \"  - a: b \\ud800"


@pytest.mark.parametrize(
    "headers",
    [
        {"Webhook-Signature": " ".join(["v1,AAAA"] * 600)},
        {"Webhook-Timestamp": "1" * 5000},
        {"Webhook-Id": "x" * 5000},
        {f"X-{n}": "" for n in range(100)},
    ],
)
def test_odd_headers_are_refused_before_anything_is_verified(doors, headers, caplog, monkeypatch):
    monkeypatch.setattr(webhook.Webhook, "verify", lambda *_: pytest.fail("it was verified"))
    assert doors.take(HOOK, signed(**headers)) == []
    assert "allowed: " in caplog.text


def test_what_a_signed_caller_sends_is_bounded_and_comes_back_with_time(doors, clock, monkeypatch):
    monkeypatch.setattr(webhook, "HOOKS_FLOW", flow.Flow(3, 0.5))
    assert sum(len(doors.take(HOOK, signed(id=f"m{n}"))) for n in range(10)) == 3
    shops = "salt/netapi/hook/selfheal/other/highstate"
    assert doors.take(shops, signed({"cluster": "other", "action": "highstate"}, secret=OTHERS))
    clock.now += 2
    assert sum(len(doors.take(HOOK, signed(id=f"n{n}"))) for n in range(10)) == 1


def test_unsigned_hooks_cost_a_signed_caller_nothing(doors, monkeypatch):
    monkeypatch.setattr(webhook, "HOOKS_FLOW", flow.Flow(1, 0.0))
    for _ in range(10):
        assert doors.take(HOOK, signed(secret=OTHERS)) == []
    assert doors.take(HOOK, signed())


OTHER = "salt/netapi/hook/selfheal/other/highstate"


@pytest.mark.parametrize(
    ("tag", "data", "caller", "why"),
    [
        (HOOK, signed(secret="whsec_" + "A" * 31 + "="), "", "secret: found a signature of no caller in `webhooks`; allowed for 'runbook': web,"),
        (HOOK, {**signed(), "body": '{"cluster": "runbook"}'}, "", "secret: found a signature of no caller"),
        (HOOK, signed(**{"Webhook-Signature": "v1,AAAA"}), "", "secret: found a signature of no caller"),
        (HOOK, signed(age_s=400), " of web", "clock: found a message of # s ago (webhook-timestamp); allowed: 300 s from"),
        (HOOK, signed(age_s=-4000), " of web", "clock: found a message of # s ahead"),
        (HOOK, signed(age_s=86400 * 365), " of web", "clock: found a message of # s ago"),
        (HOOK, signed(secret=OTHERS), " of shop", "cluster: found 'runbook'; allowed to shop: other"),
        (OTHER, signed(), " of web", "cluster: found 'other'; allowed to web: runbook"),
        (OTHER.replace("highstate", "restart"), signed({"cluster": "other"}, secret=OTHERS), " of shop", "action: found 'restart'; allowed to shop: highstate"),
        ("salt/netapi/hook/selfheal/nosuch/restart", signed(secret="whsec_" + "A" * 32), "", "caller: found nobody who may ask for 'nosuch'"),
        (HOOK, {**signed(), "headers": {}}, "", "headers: found no webhook-id and no webhook-timestamp and no webhook-signature"),
        (HOOK, signed(**{"Webhook-Timestamp": "soon"}), "", "webhook-timestamp: found 'soon'; allowed: seconds since 1970"),
        (HOOK, signed(**{"Webhook-Timestamp": "nan"}), "", "webhook-timestamp: found 'nan'; allowed"),
        (HOOK, signed({"node": "db1"}), " of web", "body: found 'node', which is not known here"),
        (HOOK.replace("restart", "highstate"), signed(), " of web", "path: found 'runbook/highstate'; allowed: what was signed"),
    ],
)  # fmt: skip
def test_why_a_webhook_was_dropped_is_said_exactly(doors, caplog, tag, data, caller, why):
    assert doors.take(tag, data) == []
    told = re.sub(r"\b\d+(?= s a)", "#", caplog.text)
    assert f"selfheal: a request{caller} on '{tag}' was dropped: {why}" in told
    assert SECRET not in caplog.text


def test_each_caller_is_told_once_a_minute_whatever_others_do(doors, clock, caplog):
    for n in range(100):
        doors.take(HOOK, signed(secret="whsec_" + "A" * 32, id=f"m{n}"))
        doors.take("selfheal/request/nosuch", {})
    assert len(caplog.records) == 2
    for _ in range(5):
        doors.take(HOOK, signed(age_s=400))
        doors.take(OTHER, signed({"cluster": "other"}, secret=OTHERS))
    assert [record.getMessage().split(" on ")[0] for record in caplog.records[2:]] == [
        "selfheal: a request of web", "selfheal: a request of shop",
    ]  # fmt: skip
    clock.now += 59
    doors.take(HOOK, signed(age_s=400))
    assert len(caplog.records) == 4
    clock.now += 2
    doors.take(HOOK, signed(secret=OTHERS))
    doors.take(HOOK, signed({"action": "stop"}))
    assert len(caplog.records) == 6
    assert "(and 5 more in the last 61 s)" in caplog.records[-1].getMessage()


ODDLY = EngineSettings.model_validate(
    {
        "clusters": {"201": {"minions": "*", "nodes": {"301": "10.0.0.1", "no": "10.0.0.2", "0777": "10.0.0.3"}}},
        "webhooks": {"web": {"secret": SECRET, "clusters": ["201"]}},
    }
)  # fmt: skip


@pytest.mark.parametrize(
    ("nodes", "named"),
    [
        ([301], ("301",)),
        (301, ("301",)),
        ([False, "301"], ("no", "301")),
        ([777], ("0777",)),
        ([511], ("0777",)),
    ],
)
def test_a_number_that_is_a_nodes_name_is_that_node(nodes, named):
    made = bus.doors(ODDLY, lambda *_: ())
    (request,) = made.take(
        "selfheal/request/201", {"data": {"nodes": nodes}, "cmd": "_minion_event"}
    )
    assert request.nodes == named
    body = {"cluster": 201, "action": "restart", "nodes": nodes}
    (request,) = made.take("salt/netapi/hook/selfheal/201/restart", signed(body))
    assert (request.cluster, request.nodes) == ("201", named)


@pytest.mark.parametrize("nodes", [[302], 0, [True], [None], [1.5], [[301]], {"301": 1}])
def test_a_number_that_is_no_nodes_name_becomes_nothing(nodes, caplog):
    made = bus.doors(ODDLY, lambda *_: ())
    assert made.take("selfheal/request/201", {"nodes": nodes}) == []
    assert "nodes: found" in caplog.text


# ---------------------------------------------------------------- the article's interface


def form(**fields):
    post = {"tgt": "db*", "matcher": "glob", "args": "rethinkdb", "secretkey": KEY, **fields}
    return {"post": post, "body": "", "headers": {}}


@pytest.mark.parametrize(
    ("path", "action"),
    [
        ("states/highstate", "highstate"),
        ("services/restart", "restart"),
        ("services/start", "start"),
        ("services/stop", "stop"),
    ],
)
def test_the_articles_calls_become_requests_for_what_is_configured(doors, path, action):
    found = doors.take(f"salt/netapi/hook/{path}", form())
    (request,) = [r for r in found if r.cluster == "runbook"]
    assert (request.action, request.nodes, request.door) == (action, ("db1", "db2"), "article")
    assert {r.cluster for r in found} == (
        {"runbook", "other"} if path[0:3] == "sta" else {"runbook"}
    )


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("states/highstate", {"secretkey": "wrong"}),
        ("states/highstate", {"secretkey": ""}),
        ("states/highstate", {"secretkey": None}),
        ("states/highstate", {"secretkey": ["the-articles-key"]}),
        ("states/highstate", {"tgt": None}),
        ("states/highstate", {"tgt": {"a": 1}}),
        ("states/highstate", {"tgt": []}),
        ("states/highstate", {"matcher": 7}),
        ("states/highstate", {"matcher": ["glob"]}),
        ("services/restart", {"args": "sshd"}),
        ("services/restart", {"args": None}),
        ("cmd/run", {"args": "rm -rf /"}),
        ("cmd/script", {}),
        ("states/sls", {}),
        ("services/restart/now", {}),
    ],
)
def test_a_call_with_a_wrong_key_or_for_anything_else_becomes_nothing(doors, path, fields, caplog):
    assert doors.take(f"salt/netapi/hook/{path}", form(**fields)) == []
    assert KEY not in caplog.text


@pytest.mark.parametrize("answer", [True, False])
def test_the_key_is_compared_in_constant_time_and_by_nothing_else(doors, answer, monkeypatch):
    asked = []
    monkeypatch.setattr(
        formula.hmac, "compare_digest", lambda one, other: asked.append((one, other)) or answer
    )
    for key in (KEY, "wrong"):
        found = doors.take("salt/netapi/hook/services/restart", form(secretkey=key))
        assert bool(found) is answer
    assert asked == [(KEY.encode(), KEY.encode()), (b"wrong", KEY.encode())]


class Unprinted(list):
    """A list that nobody may print."""

    def __repr__(self):
        """Nobody may."""
        pytest.fail("it was printed")


@pytest.mark.parametrize("key", [Unprinted([KEY]), "x" * 5000])
def test_a_key_of_an_odd_form_is_neither_printed_nor_compared(doors, key, caplog, monkeypatch):
    compared, compare = [], formula.hmac.compare_digest
    monkeypatch.setattr(
        formula.hmac,
        "compare_digest",
        lambda one, other: compared.append(one) or compare(one, other),
    )
    assert doors.take("salt/netapi/hook/services/restart", form(secretkey=key)) == []
    assert not any(compared)
    assert "not allowed" in caplog.text


def test_what_comes_by_the_articles_key_is_bounded(doors, clock, monkeypatch):
    monkeypatch.setattr(formula, "ARTICLE_FLOW", flow.Flow(3, 0.5))
    route = "salt/netapi/hook/services/restart"
    assert doors.take(route, form(secretkey="wrong")) == []
    assert sum(len(doors.take(route, form())) for _ in range(10)) == 3
    clock.now += 2
    assert sum(len(doors.take(route, form())) for _ in range(10)) == 1


@pytest.mark.parametrize(
    ("matcher", "tgt"),
    [
        ("glob", "db*"), ("list", "db1,db2"), ("list", ["db1", "db2"]), ("grain", "os:Debian*"),
        ("grain", "ec2:tags:*:x"), ("compound", "db* and not G@os:Debian or I@a:b"), ("compound", ["db*", "or", "web1"]),
        ("nodegroup", "databases"), ("pillar", "a:b"), ("pillar_exact", "a:b"), ("ipcidr", "10.0.0.0/8"),
        ("list", ",".join(["x"] * 64)), ("glob", "x" * 1000), ("list", "E@x"),
    ],
)  # fmt: skip
def test_a_target_is_looked_up_as_it_was_given(doors, targets, matcher, tgt):
    targets.minions = {"db1"}
    (request,) = doors.take("salt/netapi/hook/services/restart", form(tgt=tgt, matcher=matcher))
    assert targets.asked == [(tgt, matcher)]
    assert request.nodes == ("db1",)


@pytest.mark.parametrize(
    ("matcher", "tgt"),
    [
        ("pcre", "(a+)+$"), ("grain_pcre", "os:(a+)+$"), ("pillar_pcre", "a:(a+)+$"), ("range", "%db"), ("", "db*"),
        ("compound_pillar_exact", "db*"), ("cache", "db*"), ("Glob", "db*"),
        ("compound", "db* or E@(a+)+$"), ("compound", "P@os:(a+)+$"), ("compound", "not J@a:(a+)+$"),
        ("compound", "R@%db"), ("compound", "P|@os|(a+)+$"), ("compound", "J@@a@(a+)+$"), ("compound", ["E@(a+)+$"]),
        ("glob", "x" * 1001), ("list", ["x" * 100] * 11), ("list", ["x"] * 65), ("list", "x," * 65),
        ("compound", "x or " * 40), ("list", ["x", 1]), ("list", [["x"]]), ("glob", ["db*"]), ("nodegroup", ["a"]),
        ("grain", "*:" * 4 + "x"), ("compound", "G@*:*:x or I@*:*:x"),
        ("glob", "db*\n2026-01-01 [CRITICAL] forged"), ("glob", "\x1b[2J"), ("glob", "\udcff"),
    ],
)  # fmt: skip
def test_a_target_that_could_hold_up_the_healer_is_not_looked_up(
    doors, targets, matcher, tgt, caplog
):
    assert doors.take("salt/netapi/hook/services/restart", form(tgt=tgt, matcher=matcher)) == []
    assert not targets.asked
    assert "found" in caplog.text
    assert "allowed: " in caplog.text
    assert len(caplog.text) < 1000


def test_a_path_cannot_forge_a_line_of_the_log(doors, caplog):
    assert doors.take("salt/netapi/hook/cmd/x\n2026-01-01 [CRITICAL] forged", form()) == []
    assert len(caplog.text.splitlines()) == 1


def test_a_target_that_reaches_no_configured_node_is_refused(doors, targets):
    targets.minions = {"web1"}
    assert doors.take("salt/netapi/hook/states/highstate", form(tgt="web*")) == []


def test_without_a_key_the_routes_are_closed_and_not_even_listened_to():
    closed = bus.Doors()
    assert closed.take("salt/netapi/hook/states/highstate", form(secretkey="")) == []
    assert closed.take("salt/netapi/hook/states/highstate", form(secretkey="None")) == []
    assert closed.tags == "^(?:selfheal/request/)"


# ---------------------------------------------------------------- floods


def test_a_flood_is_cut_off_before_it_is_read_and_costs_one_line(doors, clock, caplog, monkeypatch):
    caplog.set_level(logging.WARNING)
    read, from_bus = [], bus.from_bus
    monkeypatch.setattr(bus, "from_bus", lambda tag, data: read.append(tag) or from_bus(tag, data))
    taken = sum(len(doors.take("selfheal/request/runbook", {"id": f"w{n}"})) for n in range(5000))
    assert taken == len(read) == bus.BUS_FLOW.at_once == 600
    assert len(caplog.records) == 1
    clock.now += 61
    assert doors.take("selfheal/request/runbook", {})
    clock.now += 61
    doors.take("selfheal/request/../x", {})
    assert "more in the last" in caplog.records[-1].message


def test_of_a_long_flood_one_a_second_is_taken(doors, clock):
    taken = 0
    for _ in range(3600 * 4):
        clock.now += 0.25
        taken += len(doors.take("selfheal/request/runbook", {}))
    assert 600 + 3599 <= taken <= 600 + 3600
    clock.now += 1e6
    taken = [doors.take("selfheal/request/runbook", {}) for _ in range(1000)]
    assert sum(map(len, taken)) == bus.BUS_FLOW.at_once


def test_one_clusters_flood_leaves_room_for_another(doors):
    for _ in range(1000):
        doors.take("selfheal/request/runbook", {})
    assert doors.take("selfheal/request/other", {})


def test_what_names_no_configured_cluster_is_dropped_and_takes_nobodys_room(
    doors, caplog, monkeypatch
):
    caplog.set_level(logging.WARNING)
    taken = []
    monkeypatch.setattr(flow.Flows, "take", lambda *given: taken.append(given))
    for n in range(10_000):
        assert doors.take(f"selfheal/request/made-up-{n}", {}) == []
    assert doors.take("selfheal/request/", {}) == []
    assert doors.take("selfheal/request/runbook/highstate", {}) == []
    assert len(caplog.records) == 1
    assert "cluster: found 'made-up-0'; allowed: " in caplog.text
    assert not taken
    monkeypatch.undo()
    assert doors.take("selfheal/request/runbook", {})
    assert doors.take(HOOK, signed())
    assert doors.take("salt/netapi/hook/services/restart", form())


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    tag=st.sampled_from(
        [HOOK, "selfheal/request/runbook", "salt/netapi/hook/states/highstate", "selfheal/request/"]
    ),
    data=st.dictionaries(
        st.sampled_from(["body", "post", "headers", "data", "id", "secretkey"]), JUNK, max_size=5
    ),
)
def test_nothing_that_is_on_the_bus_ends_the_listener(tag, data):
    doors = bus.doors(SETTINGS, lambda target, kind: {"db1"})
    for request in doors.take(tag, data):
        assert request.door == "bus"
