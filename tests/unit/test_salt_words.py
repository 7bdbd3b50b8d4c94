"""What Salt's own functions tell of a database, where the minion has no `selfheal.witness`."""

import json
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saltext_selfheal.healing import results, testimony
from saltext_selfheal.healing.model import Outcome
from saltext_selfheal.healing.testimony import Ground, Process
from saltext_selfheal.loop import salt_words

PORT = 28015
SERVER = "/usr/bin/rethinkdb --config-file /etc/rethinkdb/instances.d/1.conf"


def line(command=SERVER, pid=812, state="Sl"):
    return f"rethink+   {pid}  1.0  0.5 402232 86564 ?        {state:8} Nov27   0:01 {command}"


def told(*lines, listening=(), usage=None, inodes=None, running=()):
    """What the job returns (3008)."""
    sockets = [
        {"proto": "tcp", "local-address": f"0.0.0.0:{port}", "state": "LISTEN", "program": "-"}
        for port in (22, *listening)
    ]
    return {
        "service.status": True,
        "ps.psaux": ["rethinkdb", list(lines), f"{len(lines)} occurrence(s)."],
        "network.netstat": sockets,
        "disk.usage": usage or {"/": {"available": "79014592", "capacity": "26%"}},
        "disk.inodeusage": inodes or {"/": {"inodes": "16777216", "free": "16187894"}},
        "saltutil.running": list(running),
    }


def read(*lines, **more):
    return testimony.read(salt_words.facts(told(*lines, **more), PORT))


def test_a_process_that_runs_and_listens():
    found = read(line(), listening=(PORT,))
    assert (found.process, found.listens, found.greets) == (Process.RUNS, True, False)
    assert found.sentence == "its process runs"


def test_where_more_connections_are_listed_than_are_read_a_port_may_be_among_the_others():
    busy = told(line())
    open_ = {"proto": "tcp", "local-address": f"10.0.0.1:{PORT}", "state": "ESTABLISHED"}
    busy["network.netstat"] = [open_] * salt_words.MOST_LINES + busy["network.netstat"]
    found = testimony.read(salt_words.facts(busy, PORT))
    assert found.listens is None and not found.runs_unheard


def test_one_that_does_not_listen_yet_is_starting():
    assert read(line()).runs_unheard


def test_a_service_that_is_active_and_has_no_process_is_gone():
    assert read().gone


@pytest.mark.parametrize(
    "other",
    [
        "rethinkdb dump -c db1:28015",
        "sudo -u rethinkdb ls",
        "vi /etc/rethinkdb/instances.d/1.conf",
        "/usr/bin/rethinkdb-exporter --port 9000",
    ],
)
def test_what_only_has_the_name_is_none(other):
    assert read(line(other)).gone


def test_nor_is_one_that_has_ended():
    assert read(line(state="Z")).gone


def test_a_stopped_one_is_told():
    assert read(line(state="T")).stopped


def test_a_helper_that_the_server_has_forked_is_no_other_server():
    found = salt_words.facts(told(line(pid=813, state="S"), line(pid=812)), PORT)
    assert found["process"]["pid"] == 812


def test_of_several_the_one_with_the_port_is_meant():
    servers = [f"{SERVER} --driver-port {PORT + n}" for n in range(3)]
    assert read(*map(line, servers), listening=(PORT,)).process is Process.RUNS
    assert read(*map(line, servers[1:])).gone
    assert read(line(f"{SERVER} --driver-port={PORT}"), line(servers[1])).process is Process.RUNS


def test_where_it_is_not_clear_which_is_meant_nothing_is_said():
    found = read(line(), line(SERVER.replace("1.conf", "2.conf"), pid=813))
    assert found.process is Process.UNKNOWN
    assert "2 run there, and only selfheal.witness can tell which is meant" in found.why


def test_what_has_failed_tells_nothing():
    broken = told(line()) | {
        "ps.psaux": "'ps.psaux' is not available.",
        "network.netstat": "ERROR: no netstat",
        "disk.usage": None,
        "saltutil.running": "x",
    }
    found = testimony.read(salt_words.facts(broken, PORT))
    assert (found.process, found.listens, found.ground) == (Process.UNKNOWN, None, None)
    assert not found.all_jobs


FULL = {"available": "12", "capacity": "100%"}


def test_a_full_disk_is_found_where_the_server_names_its_directory():
    usage = {"/": {"available": "79014592"}, "/data": FULL}
    found = read(line(f"{SERVER} --directory /data/db"), usage=usage)
    assert (found.ground, found.found) == (Ground.DISK_FULL, "12 KB free at /data/db")


def test_and_where_a_disk_is_named_for_it():
    usage = {"/": {"available": "79014592"}, "/var/lib/rethinkdb": FULL}
    assert read(usage=usage).ground is Ground.DISK_FULL


def test_and_one_without_inodes_but_for_file_systems_that_count_none():
    directory = f"{SERVER} -d /"
    none = {"/": {"inodes": "1000", "free": "0"}}
    assert read(line(directory), inodes=none).ground is Ground.DISK_FULL
    assert read(line(directory), inodes={"/": {"inodes": "0", "free": "0"}}).ground is None


@pytest.mark.parametrize("usage", [{"/": FULL}, {"/": FULL, "/backup": FULL}])
def test_another_full_disk_is_none_of_its_business(usage):
    assert read(usage=usage).ground is None
    assert read(line(), usage=usage).ground is None  # where its data are is in its config file


def test_jobs_that_change_something_are_told():
    running = [
        {"jid": "20261127232459000001", "fun": "state.highstate", "user": "root", "arg": []},
        {"jid": "20261127232459000002", "fun": "test.ping", "arg": []},
        {"jid": "20261127232459000003", "fun": list(salt_words.FUNCTIONS), "arg": [["r"], [], []]},
    ]
    found = read(running=running)
    assert [(job.function, job.by) for job in found.jobs] == [("state.highstate", "root")]
    assert found.all_jobs


@pytest.mark.parametrize("result", [None, True, "no", [], 3])
def test_what_is_no_answer_is_none(result):
    assert salt_words.facts(result, PORT) is None
    assert results.salt_testimony(result, 0, None)[0] is Outcome.FAILED


def test_an_answer_is_one_as_soon_as_one_function_has_told_something():
    assert results.salt_testimony(told(), {"ps.psaux": 0}, None) == (Outcome.DONE, "")
    missing = dict.fromkeys(salt_words.FUNCTIONS, "'x' is not available.")
    assert results.salt_testimony(missing, {}, None)[0] is Outcome.FAILED
    blackout = "Minion in blackout mode. Set `minion_blackout` to False"
    assert results.salt_testimony(blackout, 1, None)[0] is Outcome.FORBIDDEN


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(string.printable, max_size=30),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(
            ["state", "local-address", "fun", "jid", "/", "available", "free", "inodes"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(salt_words.FUNCTIONS), JSON), st.integers() | st.none())
def test_reading_never_fails(result, port):
    found = testimony.read(salt_words.facts(result, port))
    assert isinstance(found.process, Process)
    json.dumps(found.why)


def test_an_answer_of_any_size_is_read_at_once():
    huge = told(*[line(f"{SERVER} -o {n}", n) for n in range(50_000)]) | {
        "network.netstat": [{"local-address": ":1" * 1000, "state": "LISTEN"}] * 50_000,
        "disk.usage": {f"/{n}rethinkdb": FULL for n in range(50_000)},
        "saltutil.running": [{"jid": "1" * 500, "fun": "state.apply"}] * 50_000,
    }
    found = testimony.read(salt_words.facts(huge, PORT))
    assert found.process is Process.UNKNOWN and len(found.jobs) < 10
