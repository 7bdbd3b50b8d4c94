"""What the doctor says of who may ask for what."""

import pytest
import salt.auth

from saltext_selfheal.doctor import doors as doctor_doors
from saltext_selfheal.doctor import master as patient
from tests.functional.doctor.conftest import lines, says


@pytest.mark.parametrize(
    ("listed", "level", "told"),
    [
        ([{"@selfheal": ["trigger$", "status$"]}], "ok", "bob (pam) may status, trigger"),
        ([{"app1": ["selfheal.trigger$"]}], "ok", "bob (pam) may trigger"),
        ([{"@runner": ["selfheal.status$"]}], "ok", "bob (pam) may status"),
        (["test.ping", {"@jobs": [".*"]}, "@wheel"], "ok", "external_auth lets nobody"),
        ([{"@selfheal": ["trigger"]}], "warn", "bob (pam): trigger also allows every function"),
        ([{"app1": ["selfheal.trigger"]}], "warn", "bob (pam): selfheal.trigger also allows"),
        (["selfheal.*"], "warn", "bob (pam): selfheal.* also allows"),
        ([{"@selfheal": ["pause$", "lock$"]}], "warn", "bob (pam) may pause, lock\n"),
        ([{"@selfheal": [{"ack": {"args": ["x"]}}]}], "warn", "bob (pam) may ack\n"),
        ([{"@runner": ["selfheal\\.re"]}], "warn", "bob (pam) may resume, reject\n"),
        (["@selfheal"], "warn", "bob (pam) may force, pause, resume"),
        (["@runner"], "warn", "bob (pam) may call every runner"),
        ([".*"], "warn", "bob (pam) may call every function on every minion"),
        ([{"app*": [".*"]}], "warn", "bob (pam) may call every function on app*"),
    ],
)
def test_what_external_auth_allows(opts, listed, level, told, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor_doors, "SHADOW", tmp_path / "master")  # one that can be read
    opts["external_auth"] = {"pam": {"^filename": "/x", "bob": listed}}
    found = lines("permissions", opts)
    assert len(found) == 1, found
    says(found, level, told)


@pytest.mark.parametrize(
    ("backend", "more", "level", "told"),
    [
        ("auto", {}, "fail", "auto lets in whoever comes, with any name and any password"),
        ("sharedsecret", {}, "fail", "without the option sharedsecret lets in whoever gives no"),
        ("sharedsecret", {"sharedsecret": "x"}, "warn", "the one secret come with any name"),
    ],
)
@pytest.mark.parametrize("users", [{}, {"bob": [{"@selfheal": ["trigger$"]}]}])
def test_ways_to_log_in_that_let_in_too_many(opts, backend, more, level, told, users):
    opts.update(external_auth={backend: users, "file": {"bob": ["test.ping"]}}, **more)
    found = lines("permissions", opts)
    says(found, level, told)
    assert len(found) == 2
    # as Salt has it
    opts["eauth_acl_module"] = ""
    load = {"eauth": backend, "username": "whoever", "password": opts.get("sharedsecret")}
    assert salt.auth.LoadAuth(opts).authenticate_eauth(load)


@pytest.fixture
def shadow(tmp_path, monkeypatch):
    """Where passwords are, of Debian's kind: its group may read it."""
    file = tmp_path / "shadow"
    file.touch()
    file.chmod(0o040)
    monkeypatch.setattr(doctor_doors, "SHADOW", file)
    monkeypatch.setattr(doctor_doors.grp, "getgrgid", lambda gid: Group)
    return file


class Group:
    gr_name = "shadow"


PAM = {"pam": {"bob": [{"@selfheal": ["trigger$"]}]}}


def test_a_master_that_pam_would_not_tell_anything(opts, shadow):
    opts.update(user="nobody", external_auth=PAM)
    told = lines("permissions", opts)
    says(told, "warn", f"the master runs as nobody, who cannot read {shadow}\n")
    remedy = "→ usermod -a -G shadow nobody && systemctl restart salt-master salt-api"
    assert told[0].endswith(remedy)
    shadow.chmod(0)  # as on Red Hat's
    assert lines("permissions", opts)[0].endswith("run the master as root (`user: root`).")
    opts["external_auth"] = {"pam": {}, "file": PAM["pam"]}
    assert len(lines("permissions", opts)) == 1


def test_a_master_whose_user_is_in_the_group_of_the_shadow_file(opts, shadow, monkeypatch):
    opts.update(user="nobody", external_auth=PAM)
    group = shadow.stat().st_gid
    monkeypatch.setattr(patient.os, "getgrouplist", lambda user, gid: [gid, group])
    assert lines("permissions", opts) == ["ok    permissions: bob (pam) may trigger"]


def test_a_master_that_runs_as_root_or_has_no_shadow_file(opts, shadow):
    opts.update(user="root", external_auth=PAM)
    assert len(lines("permissions", opts)) == 1
    shadow.unlink()
    opts["user"] = "nobody"
    assert len(lines("permissions", opts)) == 1


@pytest.mark.parametrize(
    ("mode", "may"), [(0o004, True), (0o000, False), (0o600, False), (0o644, True)]
)
def test_what_a_stranger_may_read(tmp_path, mode, may):
    file = tmp_path / "file"
    file.touch()
    file.chmod(mode)
    assert patient.may_read("nobody", file) is may
    assert patient.may_read("root", file)
    assert not patient.may_read("no-such-user", file)
    assert not patient.may_read("nobody", tmp_path / "none")


@pytest.mark.parametrize(
    ("option", "listed", "level"),
    [
        ("peer_run", ["selfheal.trigger$"], "ok"),
        ("peer_run", ["selfheal.trigger"], "warn"),
        ("peer_run", ["selfheal.*"], "warn"),
        ("peer_run", [".*"], "warn"),
        ("peer_run", ["jobs.list_jobs", "("], "ok"),
        ("peer", ["selfheal.probe$"], "warn"),
        ("peer", [{"db*": ["selfheal.*"]}], "warn"),
        ("peer", [{"db*": ["test.ping"]}], "ok"),
    ],
)
def test_what_minions_may_call(opts, option, listed, level):
    opts[option] = {"app.*": listed}
    wanted = f"{option}: minions 'app.*' may call" if level == "warn" else "no minion may call"
    says(lines("peers", opts), level, wanted)


@pytest.mark.parametrize(
    ("who", "level", "told"),
    [
        ("app1", "warn", "'app1' also means every minion whose id begins so"),
        ("app*", "warn", "'app*' also means every minion"),
        ("app1|app2$", "warn", "'app1|app2$' also means every minion"),
        ("*", "warn", "'*' is no regular expression"),
        ("app1$", "ok", "no minion may call"),
        ("app1$|app2$", "ok", "no minion may call"),
        ("(app1|app2)$", "ok", "no minion may call"),
        (r"(web|app)\d+\Z", "ok", "no minion may call"),
        (".*", "ok", "no minion may call"),
    ],
)
@pytest.mark.parametrize("option", ["peer", "peer_run"])
def test_which_minions_are_meant(opts, option, who, level, told):
    opts[option] = {who: ["selfheal.trigger$"]}
    found = lines("peers", opts)
    assert len(found) == 1
    says(found, level, f"{option}: {told}" if level == "warn" else told)
    opts[option] = {who: ["test.ping"]}
    says(lines("peers", opts), "ok", "no minion may call")
