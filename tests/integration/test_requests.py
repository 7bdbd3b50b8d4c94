"""Who asks, by which door, and what comes of it."""

import requests

from tests.integration.conftest import GRANTED, acts, written_by
from tests.integration.test_healing import started_jobs


def entry(site, request):
    """The request's row in the history."""
    rows = site.run_runner("selfheal.history", limit=50)
    return next((row for row in rows if row.get("request") == request), None)


def test_an_application_asks_by_the_runner_and_gets_its_highstate(quiet, salt_api):
    assert salt_api.is_running()
    quiet.nodes["db3"].drift_config()
    with quiet.events("selfheal/*", "salt/job/*") as events:
        low = {
            "client": "runner",
            "fun": "selfheal.trigger",
            "kwarg": {"cluster": "runbook", "nodes": ["db3"], "reason": "the config drifted"},
        }
        answer = requests.post(
            f"{quiet.api_url}/run", json=[{**low, **quiet.api_credentials}], timeout=30
        ).json()["return"][0]
        assert answer["reply"] in GRANTED
        # Even an accepted one has no JID yet, if a minion has to be asked something first.
        assert answer["jid"] is None or answer["reply"] == "accepted"
        events.wait(
            "selfheal/incident/runbook/resolved",
            lambda d: d["incident"] == answer["incident"],
            timeout=60,
        )
        (job,) = started_jobs(events, "state.highstate")
        (attempt,) = acts(quiet.run_runner("selfheal.incident", answer["incident"]))
        assert (job["jid"], job["tgt"]) == (attempt["jid"], ["db3"])
        assert answer["jid"] in (None, job["jid"])
    assert quiet.nodes["db3"].config_is_right()
    row = entry(quiet, answer["request"])
    assert (row["door"], row["asker"], row["reason"]) == (
        "runner",
        "runbook-web",
        "the config drifted",
    )


def test_an_application_asks_by_its_minion(quiet):
    with quiet.events("selfheal/*") as events:
        answer = quiet.api(
            client="local",
            tgt="app1",
            fun="selfheal.restart",
            arg=["runbook"],
            kwarg={"reason": "I cannot connect"},
        ).json()["return"][0]["app1"]
        assert answer["sent"]
        events.wait(f"selfheal/decision/bus:{answer['request']}")
    row = entry(quiet, f"bus:{answer['request']}")
    assert (row["reply"], row["asker"]) == ("refused", "app1 (claimed)")
    assert "the probe sees nothing wrong" in row["why"]


def test_a_minion_without_the_package_asks_with_a_plain_event(quiet):
    with quiet.events("selfheal/*") as events:
        quiet.call(
            "app1",
            "event.send",
            "selfheal/request/runbook",
            {"action": "destroy", "request": "plain-1"},
        )
        events.wait("selfheal/decision/bus:plain-1")
    assert "unknown action 'destroy'; allowed: " in entry(quiet, "bus:plain-1")["why"]


def test_a_request_joins_what_is_being_healed(quiet):
    with quiet.events("selfheal/*", "salt/job/*") as events:
        quiet.nodes["db2"].kill()
        events.wait("selfheal/incident/runbook/remediating", timeout=30)
        answers = [
            quiet.run_runner(
                "selfheal.trigger", "runbook", action="restart", reason=f"application {n}"
            )
            for n in range(5)
        ]
        events.wait("selfheal/incident/runbook/resolved", timeout=60)
        assert {a["reply"] for a in answers} == {"joined"}
        assert len({a["incident"] for a in answers}) == 1
        assert (
            len(started_jobs(events, "service.restart"))
            + len(started_jobs(events, "state.highstate"))
            == 1
        )


def test_asking_again_with_the_same_id_gives_the_same_answer(quiet):
    first = quiet.run_runner("selfheal.trigger", "runbook", action="restart", request="twice")
    again = quiet.run_runner("selfheal.trigger", "runbook", action="restart", request="twice")
    assert first == again
    assert first["reply"] == "refused"


def test_a_refused_request_has_its_reason(quiet):
    told = quiet.run_runner("selfheal.trigger", "runbook", action="destroy")
    assert told["reply"] == "refused"
    assert "allowed: highstate, restart, start" in told["why"]


def test_an_application_may_do_nothing_else(quiet):
    assert quiet.api(client="runner", fun="selfheal.config").status_code == 401
    assert (
        quiet.api(client="local", tgt="db1", fun="selfheal.highstate", arg=["runbook"]).status_code
        == 401
    )


def test_a_minion_looks_at_a_database_from_its_own_place(quiet):
    seen = quiet.call(
        "app1", "selfheal.probe", quiet.nodes["db1"].address, user="admin", password=quiet.password
    )["app1"]["ret"]
    assert (seen["well"], seen["fault"]) == (True, None)
    assert seen["server_name"] == "db1"
    wrong = quiet.call("app1", "selfheal.probe", quiet.nodes["db1"].address, password="wrong")[
        "app1"
    ]["ret"]
    assert wrong["fault"] == "auth"
    assert "Wrong password" in wrong["evidence"]


def test_status_tells_an_operator_how_things_stand(quiet):
    done = quiet.salt_run("selfheal.status")
    assert done.returncode == 0
    assert done.data["engine"] == "running"
    assert done.data["clusters"]["runbook"]["nodes"]["db1"].startswith("well since")


def test_only_the_masters_side_answers_attempt(quiet):
    assert (
        quiet.call("db1", "selfheal.attempt", "20260101030000000000", "restart")["db1"]["ret"]
        is None
    )


def test_no_password_is_in_anything_that_was_written(quiet):
    # One test gave it to a minion's function as an argument, which Salt keeps with the job.
    found = [
        name
        for name, text in written_by(quiet, jobs=False).items()
        if quiet.password.encode() in text
    ]
    assert found == []
