"""The doctor's visit to a real site."""


def test_a_sound_site_has_nothing_that_fails(quiet):
    """As an operator calls it, with the engine, salt-api and the minions' keys that are really there."""
    visit = quiet.salt_run("selfheal.doctor")
    assert visit.returncode == 0, visit.stdout
    told = visit.data["checks"]
    concerns = [line for line in told if not line.startswith("ok    ")]
    # The lab's own master file holds the password, and the factories write it for everybody to read. And Salt takes
    # results from one minion for another's.
    assert len(concerns) <= 2, concerns
    assert all(line.startswith(("warn  secrets: ", "warn  results: ")) for line in concerns)
    assert visit.data["worst"] == ("warn" if concerns else "ok")
    for expected in (
        "engine: running, last sign of life ",
        "reactor: mapped: highstate, restart, start, force_restart, look, witness, salt_witness, test_highstate, probe; an event without an order ",
        "minions: 3 nodes have an accepted key",
        "permissions: runbook-web (file) may highstate, restart, status, trigger",
        "salt-api: clients: local, runner",
        "job cache: results are read from local_cache",
    ):
        assert any(expected in line for line in told), told
    assert quiet.password not in visit.stdout
    assert quiet.password not in visit.stderr


def test_asked_to_it_looks_at_nodes_and_minions_now(quiet):
    visit = quiet.salt_run("selfheal.doctor", "live=True")
    assert visit.returncode == 0, visit.stdout
    told = visit.data["checks"]
    assert any("nodes now: 3 of 3 nodes let the healer in" in line for line in told), told
    assert any("minions now: runbook: 3 of 3 minions answer" in line for line in told), told
    assert any(
        "servers now: 3 of 3 servers listen on chosen addresses only" in line for line in told
    ), told
    assert not any("not looked at" in line for line in told)


def test_a_dead_node_and_a_minion_that_is_away_are_failures_at_once(quiet):
    with quiet.events("selfheal/incident/*") as events:
        answer = quiet.run_runner("selfheal.pause", "runbook", duration="10m", reason="a drill")
        assert answer["reply"] == "accepted", answer
        quiet.nodes["db2"].kill()
        quiet.minions["db3"].terminate()
        try:
            visit = quiet.salt_run("selfheal.doctor", "live=True", timeout=90)
        finally:
            quiet.minions["db3"].start()
            quiet.run_runner("selfheal.resume", "runbook")
        events.wait("selfheal/incident/runbook/resolved", timeout=90)
    assert visit.returncode == 1
    told = "\n".join(visit.data["checks"])
    assert "fail  nodes now: runbook: db2: connection to" in told
    assert "fail  minions now: runbook: the minion db3 does not answer" in told
    assert "warn  clusters: runbook: paused for" in told
