"""Any minion can put any event on the master's bus. None of it may run anything."""

import pytest

from saltext_selfheal.loop import jobs
from tests.integration.conftest import MARK, wait_order


@pytest.fixture
def old_jid(quiet):
    """A JID that the healer once gave an order with, and that has ended."""
    row = next(
        (
            r
            for r in quiet.run_runner("selfheal.history", "runbook", limit=1000)
            if r["kind"] == "fire"
        ),
        None,
    )
    if row is None:
        with quiet.events("selfheal/incident/*") as events:
            quiet.nodes["db2"].kill()
            events.wait("*/resolved", timeout=60)
        return next(
            r["jid"] for r in quiet.run_runner("selfheal.history", "runbook") if r["kind"] == "fire"
        )
    return row["jid"]


def forge(site, tag, data, form):
    """Fire from a real minion, in either form in which the master takes events."""
    if form == "plain":
        site.call("app1", "event.fire_master", data, tag)
    else:
        # Looks exactly like an event of the master's own.
        site.call(
            "app1", "event.fire_master", {}, tag, preload={"events": [{"tag": tag, "data": data}]}
        )


@pytest.mark.parametrize("form", ["plain", "list"])
@pytest.mark.parametrize("action", ["restart", "highstate"])
def test_forged_remediation_events_run_nothing(quiet, old_jid, action, form):
    serving = {name: node.pid() for name, node in quiet.nodes.items()}
    jids = [
        "20261231235959000000",
        old_jid,
        "",
        "*",
        "../../etc/passwd",
        "{{ 7 * 7 }}",
        5,
        None,
        ["x"],
        {"a": 1},
    ]
    with quiet.events("selfheal/remediate/*", "salt/job/*", MARK) as events:
        for jid in jids:
            data = {
                "jid": jid,
                "minions": ["db1", "db2", "db3"],
                "action": action,
                "cluster": "runbook",
            }
            forge(quiet, f"selfheal/remediate/{action}", data, form)
        forge(quiet, f"selfheal/remediate/{action}", {"no": "jid"}, form)
        events.wait(f"selfheal/remediate/{action}", count=len(jids) + 1)
        # The reactor takes events in order: when it has answered this one, it has seen all the others.
        mark = jobs.mint(quiet.master_opts())
        quiet.fire(MARK, {"jid": mark})
        events.wait(f"salt/job/{mark}/new", timeout=20)
        functions = {e.data["fun"] for e in events.matching("salt/job/*/new")}
    assert not functions & {
        "service.restart",
        "service.start",
        "state.highstate",
        "saltutil.running",
    }
    assert {name: node.pid() for name, node in quiet.nodes.items()} == serving


def test_an_order_of_one_action_is_none_for_another(quiet):
    """A live JID replayed under another action's tag renders to nothing."""
    with quiet.events("selfheal/*", "salt/job/*") as events:
        quiet.nodes["db2"].kill()
        order = wait_order(events)
        other = "highstate" if order["action"] == "restart" else "restart"
        forge(quiet, f"selfheal/remediate/{other}", {"jid": order["jid"]}, "list")
        forge(quiet, f"selfheal/remediate/{order['action']}", {"jid": order["jid"]}, "list")
        events.wait("selfheal/incident/runbook/resolved", timeout=60)
        ran = [
            e.data["fun"]
            for e in events.matching("salt/job/*/ret/*")
            if e.data["fun"] in ("service.restart", "state.highstate")
        ]
    assert len(ran) == 1
