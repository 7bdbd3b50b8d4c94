"""Every way to load the settings meets settings that cannot be used: nothing but an answer comes out."""

import pytest
import salt.loader
from salt.exceptions import SaltInvocationError

from saltext_selfheal.doctor import checks
from tests.functional.conftest import SETTINGS

RUNBOOK = SETTINGS["clusters"]["runbook"]
LOOP = {}
LOOP["more"] = LOOP


def cluster(**changes):
    return {"clusters": {"runbook": {**RUNBOOK, **changes}}}


STRANGE = [
    (cluster(poll=10**400), "clusters.runbook.poll"),
    (cluster(poll="9" * 400), "clusters.runbook.poll"),
    (cluster(confirm={"dead": float("inf")}), "clusters.runbook.confirm.dead"),
    (cluster(attempt={"timeout": int("f" * 5000, 16)}), "clusters.runbook.attempt.timeout"),
    (cluster(tls={"ca_certs": "/ca\0.pem"}), "clusters.runbook.tls.ca_certs"),
    (cluster(view=LOOP), "clusters.runbook.view"),
    ({**SETTINGS, "ledger": {"path": "/"}}, "ledger.path"),
    ({**SETTINGS, "ledger": {"path": "/x\0"}}, "ledger.path"),
    ({**SETTINGS, "ledger": {"path": "/" + "x" * 300}}, "ledger.path"),
    ({**SETTINGS, "ledger": {"path": ["/x"]}}, "ledger.path"),
    ({**SETTINGS, 10**400: 1}, "a huge number as a name"),
]
CALLS = {
    "trigger": ("runbook",),
    "force": ("runbook", "restart", "db1", "because"),
    "pause": ("runbook", "1h", "because"),
    "resume": (),
    "lock": ("runbook", None, "because"),
    "ack": ("runbook-1",),
    "approve": ("runbook-1",),
    "reject": ("runbook-1",),
    "explain": ("runbook",),
    "status": (),
    "history": (),
    "incident": ("runbook-1",),
    "audit": (),
    "doctor": (),
}


@pytest.fixture(params=STRANGE, ids=lambda one: one[1] if isinstance(one, tuple) else None)
def strange(request, opts):
    """The options of a master with such settings, and a part of what is told."""
    settings, told = request.param
    return {**opts, "engines": [{"selfheal": settings}]}, told


def test_every_runner_function_tells_the_problem(strange):
    opts, told = strange
    runner = salt.loader.runner(opts)
    for name, args in CALLS.items():
        try:
            answer = str(runner[f"selfheal.{name}"](*args))
        except SaltInvocationError as exc:
            answer = str(exc)
        assert told in answer, name
        assert "Traceback" not in answer


def test_the_doctor_tells_it_and_no_check_breaks(strange):
    opts, told = strange
    found = [str(one) for one in checks.examine(opts)]
    assert [one for one in found if told in one]
    assert not [one for one in found if "the check itself broke" in one]


def test_the_reactor_s_call_answers_nothing(strange, caplog):
    opts, told = strange
    modules = salt.loader.minion_mods({**opts, "__role": "master"})
    assert modules["selfheal.attempt"]("20260101030000000000", "restart") is None
    assert told in caplog.text


def test_the_doctor_looks_at_the_files_that_the_settings_name(opts):
    missing = "/nosuch/missing.pem"  # a long path would be told in part
    opts["engines"] = [{"selfheal": cluster(tls={"ca_certs": missing})}]
    (found,) = [str(one) for one in checks.examine(opts) if "ca_certs" in str(one)]
    assert f"found '{missing}' (No such file or directory)" in found
    assert found.startswith("fail")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"ca_certs": "/missing.pem"}, r"ca_certs: found '/missing.pem' \(No such file or directory\)"),
        ({"ca_certs": ""}, "ca_certs: found ''"),
        ({"ca_certs": 0}, "ca_certs: found 0"),
        ({"ca_certs": "/a\0"}, "ca_certs: found "),
        ({"user": "jürgen"}, "user: found other signs than ASCII"),
        ({"user": False}, "user: found a bool"),
        ({"password": "pässword"}, "password: found other signs than ASCII"),
        ({"timeout": 10**400}, "timeout: found a number of more than 77 digits"),
        ({"timeout": int("f" * 5000, 16)}, "timeout: found a number of more than 77 digits"),
        ({"timeout": float("nan")}, "timeout: found nan"),
        ({"address": "010.0.0.11"}, "address: found '010.0.0.11'; allowed: an IPv4 address"),
        ({"address": 167772161}, "address: found 167772161"),
        ({"address": int("f" * 5000, 16)}, "address: found a number of more than 77 digits"),
    ],
)  # fmt: skip
def test_a_probe_from_a_minion_refuses_the_same(opts, wrong, told):
    probe = salt.loader.minion_mods(opts)["selfheal.probe"]
    with pytest.raises(SaltInvocationError, match=told):
        probe(**{"address": "127.0.0.1:1", **wrong})
