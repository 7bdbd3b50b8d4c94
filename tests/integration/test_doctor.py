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
        "reactor: mapped: highstate, restart, start, look; an event without an order renders to nothing",
        "minions: 3 nodes have an accepted key",
        "permissions: runbook-web (file) may highstate, restart, status, trigger",
        "salt-api: clients: local, runner",
        "job cache: results are read from local_cache",
    ):
        assert any(expected in line for line in told), told
    assert quiet.password not in visit.stdout
    assert quiet.password not in visit.stderr
