"""Which observers are there, what their job is told, and what is read of their answers."""

import pytest

from saltext_selfheal import config
from saltext_selfheal.config import targets
from saltext_selfheal.healing.events import Watchers
from saltext_selfheal.healing.model import Action, Attempt, Outcome
from saltext_selfheal.loop import jobs
from saltext_selfheal.loop.decide import Decider
from saltext_selfheal.loop.minions import Keys, Reading
from saltext_selfheal.loop.observers import ObserverReader, accepted, chosen, named


def loaded(minions="app*", nodes=None, **more):
    cluster = {
        "minions": "db*",
        "nodes": nodes or {"db1": "10.0.0.11", "db2": "[::1]:28020"},
        "observers": {"minions": minions, "quorum": 1, "timeout": "2.5s"},
        "password": "not to be told",
    }
    clusters = {"runbook": cluster, **more}
    return config.load({"engines": [{"selfheal": {"clusters": clusters}}]})


class Reads:
    """A reader whose master has these minions, and what it delivers."""

    def __init__(self, settings, keys, connected=()):
        self.keys, self.connected, self.told, self.asked = keys, connected, [], []
        self.reader = ObserverReader(settings.clusters, self._keys, self._read, self.told.append)

    def _keys(self):
        if isinstance(self.keys, Exception):
            raise self.keys
        return self.keys

    def _read(self, minions):
        self.asked.append(list(minions))
        return Reading(Keys({}, True), {m: frozenset({"x"}) for m in self.connected})

    def turn(self):
        self.told.clear()
        self.reader.turn()
        return {event.cluster: event.minions for event in self.told}


def test_those_that_match_are_told_with_the_connected_ones_first():
    site = Reads(loaded(), ["app3", "db1", "app1", "web1", "app2"], connected=("app3",))
    assert site.turn() == {"runbook": ("app3", "app1", "app2")}
    assert site.told == [Watchers("runbook", ("app3", "app1", "app2"))]


def test_no_more_than_nine_are_asked_and_few_are_looked_for():
    site = Reads(loaded(), [f"app{n:03}" for n in range(500)], connected=("app040", "app400"))
    (found,) = site.turn().values()
    assert len(found) == 9 and found[0] == "app040"
    assert len(site.asked[0]) == 50


def test_where_nobody_matches_that_is_told_and_nothing_is_read():
    site = Reads(loaded(), ["db1", "web1"])
    assert site.turn() == {"runbook": ()} and site.asked == []


def test_what_cannot_be_read_tells_nothing_and_is_logged_once(caplog):
    site = Reads(loaded(), OSError(5, "no disk"))
    assert site.turn() == {} and site.turn() == {}
    assert caplog.text.count("it cannot be read which observers are there") == 1
    site.keys = ["app1"]
    assert site.turn() == {"runbook": ("app1",)}


def test_a_list_names_each_one_and_a_node_of_any_cluster_is_none():
    settings = loaded(["app2", "app1", "gone"])
    assert named(settings.clusters, ["app1", "app2", "app3", "db1"]) == {
        "runbook": ("app1", "app2")
    }
    assert chosen(("b", "a"), ()) == ("a", "b")


def test_clusters_without_observers_are_not_told_of():
    other = {"minions": "rt*", "nodes": {"rt1": "10.0.1.1"}}
    assert list(Reads(loaded(other=other), ["app1"]).turn()) == ["runbook"]


def test_accepted_keys_are_read_from_their_folder(tmp_path):
    (tmp_path / "minions").mkdir()
    for name in ("app1", "app2", ".key_cache"):
        (tmp_path / "minions" / name).write_text("")
    assert accepted({"pki_dir": str(tmp_path)}) == ["app1", "app2"]
    with pytest.raises(OSError):
        accepted({"pki_dir": str(tmp_path / "none")})


# ---------------------------------------------------------------- the job


def question(about="db1", nodes=("app1", "app2")):
    return Attempt(
        "runbook-1-probe-db1-1", "runbook", "runbook-1", Action.PROBE, nodes, 0, 1.0, 1.0, about=about
    )  # fmt: skip


@pytest.mark.parametrize(
    ("about", "args"),
    [("db1", ("10.0.0.11:28015", "timeout=2.5")), ("db2", ("[::1]:28020", "timeout=2.5"))],
)
def test_the_job_is_told_the_address_and_the_time_and_no_password(about, args):
    decider = Decider.__new__(Decider)
    decider._settings, decider._mint = loaded(), lambda: "20260101030000000000"
    made = decider._complete(question(about))
    assert made.args == args and made.nodes == ("app1", "app2")


def order(*minions, action="probe", cluster="runbook"):
    return {"cluster": cluster, "action": action, "minions": list(minions)}


@pytest.mark.parametrize(
    ("given", "fits"),
    [
        (order("app1"), True),
        (order("app1", "app2"), True),
        (order("app1", "db1"), False),
        (order("db1"), False),
        (order("web1"), False),
        (order(), False),
        (order("app1", cluster="gone"), False),
        (order("app1", 7), False),
        ({**order(), "minions": "app1"}, False),
        (order("app1", action="restart"), False),
        (order("db1", action="restart"), True),
        (order("db1", "app1", action="witness"), False),
    ],
)
def test_who_may_be_asked_is_judged_by_the_settings_again(given, fits):
    assert targets.allowed(loaded(), given) is fits


def test_where_the_settings_name_no_observers_nobody_may_be_asked():
    cluster = {"minions": "*", "nodes": {"db1": "10.0.0.11"}}
    settings = config.load({"engines": [{"selfheal": {"clusters": {"runbook": cluster}}}]})
    assert not targets.allowed(settings, order("app1"))


# ---------------------------------------------------------------- the answer


def read(entry):
    watched = jobs.Watched("runbook-1-probe-db1-1", "20260101030000000000", Action.PROBE, ("app1",))
    outcome, _ = jobs.judge(watched, entry)
    return outcome, jobs.heard(watched, entry)


def test_an_answer_is_read_and_made_fit_to_be_shown():
    told = {"well": False, "fault": "hung", "ours": False, "evidence": "bad\x1b[31m\nwords" * 50}
    outcome, said = read({"return": told, "retcode": 0})
    assert outcome is Outcome.DONE and said.down
    assert len(said.why) <= 200 and said.why.isprintable()


NESTED = []
for _ in range(5000):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    "told",
    [NESTED, {"well": NESTED}, float("nan"), None, "Traceback: " + "x" * 1_000_000, [1, 2], {}],
)
def test_nonsense_is_no_word(told):
    outcome, said = read({"return": told, "retcode": 0})
    assert outcome is Outcome.FAILED and said is None


def test_what_the_minion_calls_no_success_is_no_answer():
    told = {"well": True, "fault": None, "ours": False}
    assert read({"return": told, "retcode": 0, "success": False})[0] is Outcome.FAILED
