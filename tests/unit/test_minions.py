"""How it is read which minions are there: what proves that one is gone, and what does not."""

import threading

import pytest

from saltext_selfheal.healing.events import Presence, Present
from saltext_selfheal.loop import minions
from saltext_selfheal.loop.minions import Key, Keys, MinionReader, Reading, Sightings

AWAY, THERE, NO_KEY, UNKNOWN = (
    Presence.AWAY,
    Presence.CONNECTED,
    Presence.NOT_ACCEPTED,
    Presence.UNKNOWN,
)
HOME = {"db1": "10.0.0.1", "db2": "10.0.0.2"}


def reading(*connected, remote=None, kept=None, keys=None, some=True, by=None):
    """These minions are connected, each from its own address; grains of the others are kept."""
    addresses = {m: frozenset({(by or HOME)[m]}) for m in connected}
    return Reading(
        Keys({"db1": Key.ACCEPTED, "db2": Key.ACCEPTED, **(keys or {})}, some),
        addresses,
        frozenset(remote if remote is not None else {HOME[m] for m in connected}),
        {
            m: frozenset({HOME[m], "127.0.0.1"}) if kept is None else frozenset(kept)
            for m in HOME
            if m not in connected
        },
    )


class Eyes:
    """Judges one reading after the other; says what is known of db2."""

    def __init__(self):
        self.sightings, self.now = Sightings(), 100.0

    def see(self, read, after=1.0):
        self.now += after
        return self.sightings.judge(HOME, read, self.now)["db2"]


@pytest.fixture
def eyes():
    """db2 was found connected."""
    made = Eyes()
    assert made.see(reading("db1", "db2")) is THERE
    return made


# ---------------------------------------------------------------- connections


def test_a_minion_is_gone_when_two_readings_two_seconds_apart_have_missed_it(eyes):
    assert eyes.see(reading("db1")) is UNKNOWN
    assert eyes.sightings.undecided == {"db2"}
    assert eyes.see(reading("db1")) is UNKNOWN
    assert eyes.see(reading("db1")) is AWAY
    assert eyes.sightings.undecided == set()
    assert eyes.see(reading("db1"), after=3600) is AWAY


def test_it_is_there_again_with_the_first_reading_that_finds_it(eyes):
    for _ in range(5):
        eyes.see(reading("db1"))
    assert eyes.see(reading("db1", "db2")) is THERE
    assert eyes.see(reading("db1")) is UNKNOWN


def test_one_reading_that_finds_it_begins_the_time_anew(eyes):
    found = [eyes.see(reading(*there)) for there in (["db1"], ["db1", "db2"], ["db1"], ["db1"])]
    assert AWAY not in found


def test_of_a_minion_that_was_never_found_it_is_not_known():
    eyes = Eyes()
    assert {eyes.see(reading("db1")) for _ in range(100)} == {UNKNOWN}


@pytest.mark.parametrize(
    "now",
    [
        # A minion that has got another address is not found before its grains are sent again.
        reading("db1", remote={HOME["db1"], "10.0.0.77"}),
        # Somebody has cleared the master's cache.
        reading("db1", kept=()),
        reading("db1", kept={"10.0.0.77"}),
        # It is connected, and Salt does not find it, for whatever reason.
        reading("db1", remote=HOME.values()),
    ],
    ids=["new address", "no grains", "other grains", "its address is connected"],
)
def test_a_minion_that_is_missed_for_another_reason_is_not_gone(eyes, now):
    assert {eyes.see(now) for _ in range(10)} == {UNKNOWN}
    assert eyes.sightings.undecided == set()


def test_addresses_of_this_machine_prove_nothing():
    """With a minion on the master Salt takes all of the master's addresses for connected, such as docker's."""
    eyes = Eyes()
    same = {"db1": "172.17.0.1", "db2": "172.17.0.1"}
    local = reading("db1", "db2", by=same, remote={"127.0.0.1", "10.9.9.9"})
    assert eyes.see(local) is UNKNOWN
    assert {eyes.see(reading(remote={"10.9.9.9"})) for _ in range(10)} == {UNKNOWN}


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize("key", [Key.NONE, Key.REJECTED, Key.DENIED, Key.PENDING])
def test_a_key_that_is_not_accepted_is_told_at_once(eyes, key):
    assert eyes.see(reading("db1", "db2", keys={"db2": key})) is NO_KEY
    assert eyes.see(reading("db1", "db2")) is THERE


def test_where_no_key_at_all_is_accepted_the_folder_may_be_the_wrong_one():
    assert Eyes().see(reading(keys={"db2": Key.NONE}, some=False)) is UNKNOWN


def test_keys_are_read_from_the_master_s_folders(tmp_path):
    for name in ("minions", "minions_pre", "minions_rejected", "minions_denied"):
        (tmp_path / name).mkdir()
    (tmp_path / "minions" / ".key_cache").write_text("")
    opts = {"pki_dir": str(tmp_path)}
    assert minions.keys(opts, ["db1"]) == Keys({"db1": Key.NONE}, False)
    for name, minion in (
        ("minions", "db1"),
        ("minions_denied", "db1"),  # another machine has used its name
        ("minions_pre", "db2"),
        ("minions_rejected", "db3"),
        ("minions_denied", "db4"),
    ):
        (tmp_path / name / minion).write_text("")
    wanted = {
        "db1": Key.ACCEPTED,
        "db2": Key.PENDING,
        "db3": Key.REJECTED,
        "db4": Key.DENIED,
        "db5": Key.NONE,
    }
    assert minions.keys(opts, wanted) == Keys(wanted, True)


def test_masters_of_a_cluster_share_a_folder(tmp_path):
    (tmp_path / "shared" / "minions").mkdir(parents=True)
    (tmp_path / "shared" / "minions" / "db1").write_text("")
    opts = {
        "cluster_id": "c",
        "cluster_pki_dir": str(tmp_path / "shared"),
        "pki_dir": str(tmp_path),
    }
    assert minions.keys(opts, ["db1"]) == Keys({"db1": Key.ACCEPTED}, True)


def test_a_folder_that_cannot_be_read_is_an_error_and_no_missing_key(tmp_path):
    (tmp_path / "minions").write_text("no folder")
    with pytest.raises(OSError):
        minions.keys({"pki_dir": str(tmp_path)}, ["db1"])


def test_keys_that_are_kept_elsewhere_are_asked_of_salt(monkeypatch):
    class Asked:
        def list_keys(self):
            return {"minions": ["db1"], "minions_pre": ["db2"], "minions_denied": ["db1"]}

    monkeypatch.setattr(minions.salt.key, "get_key", lambda opts: Asked())
    found = minions.keys({"keys.cache_driver": "mmap_key"}, ["db1", "db2", "db3"])
    assert found == Keys({"db1": Key.ACCEPTED, "db2": Key.PENDING, "db3": Key.NONE}, True)


# ---------------------------------------------------------------- Salt


class Salt:
    """`CkMinions` with this data cache, as Salt 3006 or 3008 keeps it."""

    def __init__(self, banks, connected=()):
        self.banks, self.found, self.cache = banks, set(connected), self

    def fetch(self, bank, key):
        return self.banks.get(bank, {}).get(key) or {}

    def connected_ids(self, subset=None, show_ip=False):
        assert show_ip
        return {(m, ip) for m, ip in self.found if m in subset}


@pytest.fixture
def opts(tmp_path):
    (tmp_path / "minions").mkdir()
    for name in HOME:
        (tmp_path / "minions" / name).write_text("")
    return {"pki_dir": str(tmp_path), "publish_port": 4505, "minion_data_cache": True}


@pytest.mark.parametrize(
    "banks",
    [
        {"minions/db2": {"data": {"grains": {"ipv4": ["10.0.0.2"], "ipv6": ["fe80::2"]}}}},
        {"grains": {"db2": {"ipv4": ["10.0.0.2"], "ipv6": ["fe80::2"]}}},
    ],
    ids=["3006", "3008"],
)
def test_what_is_read(monkeypatch, opts, banks):
    made = Salt(banks, [("db1", "10.0.0.1"), ("web", "10.0.0.9")])
    monkeypatch.setattr(minions.salt.utils.minions, "CkMinions", lambda opts: made)
    monkeypatch.setattr(minions.salt.utils.network, "local_port_tcp", lambda port: {"10.0.0.1"})
    read = minions.Reader(opts)
    assert read(["db1", "db2"]) == Reading(
        Keys({"db1": Key.ACCEPTED, "db2": Key.ACCEPTED}, True),
        {"db1": frozenset({"10.0.0.1"})},
        frozenset({"10.0.0.1"}),
        {"db2": frozenset({"10.0.0.2", "fe80::2"})},
    )


@pytest.mark.parametrize(
    "more", [{"minion_data_cache": False}, {"cluster_id": "c"}, {"order_masters": True}]
)
def test_where_salt_cannot_tell_connections_only_keys_are_read(monkeypatch, opts, more):
    monkeypatch.delattr(minions.salt.utils.minions, "CkMinions")
    read = minions.Reader({**opts, **more})
    assert read(["db1"]) == Reading(Keys({"db1": Key.ACCEPTED}, True))


# ---------------------------------------------------------------- the thread


class Site:
    """A reader without its thread: the test calls each turn."""

    def __init__(self):
        self.now, self.asked, self.told = 1000.0, [], []
        self.there = {"db1", "db2", "web"}
        self.fails = False
        self.reader = MinionReader(
            {"runbook": ["db1", "db2"], "other": ["web"]},
            self.read,
            self.told.append,
            lambda: self.now,
        )

    def read(self, names):
        self.asked.append(list(names))
        if self.fails:
            raise RuntimeError("no cache")
        homes = {**HOME, "web": "10.0.0.9"}
        return Reading(
            Keys(dict.fromkeys(names, Key.ACCEPTED), True),
            {n: frozenset({homes[n]}) for n in names if n in self.there},
            frozenset(homes[n] for n in self.there),
            {n: frozenset({homes[n]}) for n in names if n not in self.there},
        )

    def turns(self, seconds):
        """Let time pass, with a turn whenever one is due. Returns what was told meanwhile."""
        self.told.clear()
        end = self.now + seconds
        while (wait_s := self.reader.turn()) + self.now <= end:
            self.now += wait_s
        self.now = end
        return self.told


def test_with_nothing_to_heal_all_are_read_every_half_minute():
    site = Site()
    site.turns(300)
    assert len(site.asked) == 11
    assert all(asked == ["db1", "db2", "web"] for asked in site.asked)


def test_only_minions_of_a_cluster_with_something_to_heal_are_read_each_second():
    site = Site()
    site.turns(1)
    site.reader.watch(["runbook"])
    site.asked.clear()
    site.turns(20)
    assert len(site.asked) == 21
    assert all(asked == ["db1", "db2"] for asked in site.asked)


def test_a_change_is_told_at_once_and_the_same_again_after_a_while():
    site = Site()
    site.reader.watch(["runbook"])
    told = site.turns(20)
    assert told[0] == Present("runbook", {"db1": THERE, "db2": THERE})
    assert [one.cluster for one in told].count("runbook") == 5
    site.there.discard("db2")
    assert [one.minions["db2"] for one in site.turns(3)] == [UNKNOWN, AWAY]
    site.there.add("db2")
    assert [one.minions["db2"] for one in site.turns(1)] == [THERE]


def test_one_that_is_missed_is_read_again_soon_also_with_nothing_to_heal():
    site = Site()
    site.turns(60)
    site.there.discard("web")
    told = [one.minions["web"] for one in site.turns(35) if one.cluster == "other"]
    assert told == [UNKNOWN, AWAY]


def test_a_read_that_fails_makes_everything_unknown_and_is_logged_once(caplog):
    site = Site()
    site.reader.watch(["runbook"])
    site.turns(5)
    site.fails = True
    told, *_ = (one for one in site.turns(100) if one.cluster == "runbook")
    assert set(told.minions.values()) == {UNKNOWN}
    said = [r.message for r in caplog.records if "is not known" in r.message]
    assert len(said) == 1
    assert "RuntimeError: no cache" in said[0]
    site.fails = False
    assert site.turns(40)[-1].minions["db2"] is THERE


def test_reading_takes_a_tenth_of_the_time_at_most():
    site = Site()
    site.reader.watch(["runbook"])
    read = site.reader._read

    def slowly(names):
        site.now += 2.0
        return read(names)

    site.reader._read = slowly
    assert site.reader.turn() == 20.0


def test_a_read_that_hangs_is_given_up_and_its_result_is_not_believed():
    site = Site()
    site.turns(1)
    read = site.reader._read

    def hangs(names):
        site.now += 9.0
        assert site.reader.check() is None
        site.now += 2.0
        assert "hangs" in site.reader.check()
        assert site.reader.check() is None
        return read(names)

    site.reader._read = hangs
    site.reader.watch(["runbook"])
    site.told.clear()
    site.reader.turn()
    assert site.told == [Present("runbook"), Present("other")]
    site.reader._read = read
    assert site.turns(1)[0] == Present("runbook", {"db1": THERE, "db2": THERE})


def test_a_wish_to_read_wakes_the_thread():
    read_at_all, told = threading.Semaphore(0), []

    def read(names):
        read_at_all.release()
        return Reading(Keys(dict.fromkeys(names, Key.ACCEPTED), True))

    reader = MinionReader({"runbook": ["db1"]}, read, told.append)
    reader.start()
    assert read_at_all.acquire(timeout=5)
    reader.watch(["runbook"])
    assert read_at_all.acquire(timeout=5)
