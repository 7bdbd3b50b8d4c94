"""The doors to the healer: salt-api and the signed webhook, and how each bad answer is told."""

import contextlib
import json
import socket
import ssl
import threading
import time

import pytest
import trustme
from standardwebhooks import Webhook as Verifier

from saltext_selfheal import app
from saltext_selfheal.app import doors
from tests.unit.app.world import SECRET, SLACK_S, Api


def test_salt_api_is_asked_by_the_runner_and_one_token_serves_twice(api):
    door = api.door()
    for _ in range(2):
        answer = door.ask("runbook", "highstate", "cannot connect", "id-1")
    assert answer["incident"] == "runbook-1"
    assert [path for path, _, _ in api.got] == ["/login", "/", "/"]
    _, headers, body = api.got[1]
    assert headers["Accept"] == "application/json"
    assert headers["X-Auth-Token"] == "t0k"
    assert json.loads(body) == [
        {
            "client": "runner",
            "fun": "selfheal.trigger",
            "kwarg": {
                "cluster": "runbook", "action": "highstate", "reason": "cannot connect", "request": "id-1",
            },
        }
    ]  # fmt: skip
    assert "pass-word" not in repr(door)


def test_a_forgotten_token_is_asked_for_anew(api):
    door = api.door()
    door.ask("runbook", "restart", "", "id-1")
    api.answers["/"] = [(401, "<html>"), (200, {"return": [{"reply": "joined"}]})]
    assert door.ask("runbook", "restart", "", "id-2")["reply"] == "joined"


def test_salt_api_is_asked_by_a_minion(api):
    api.answers["/"] = (200, {"return": [{"app1": {"request": "r1", "sent": True}}]})
    door = api.door(client="local", minion="app1")
    assert door.ask("runbook", "restart", "", "id-1") == {"reply": "sent", "request": "r1"}
    low = json.loads(api.got[-1][2])[0]
    assert (low["tgt"], low["tgt_type"]) == ("app1", "list")
    assert "request" not in low["kwarg"]


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ((400, "Bad"), doors.HelpFailed, "400: is runner in netapi_enable_clients?"),
        ((401, "<html>no</html>"), doors.HelpFailed, "runbook-web may not call selfheal.trigger"),
        ((500, {"return": "x"}), doors.HelpUnknown, "answers 500"),
        ((302, ""), doors.HelpFailed, "redirects to http://elsewhere.invalid/"),
        ((404, "x"), doors.HelpFailed, "404: is this salt-api's address?"),
        ((200, "<html>"), doors.HelpUnknown, "does not answer as salt-api does: <html>"),
        ((200, ""), doors.HelpUnknown, "does not answer as salt-api does: nothing"),
        ((200, {"return": ["Exception occurred"]}), doors.HelpFailed, "Exception occurred"),
        ((200, [1]), doors.HelpFailed, "the runner answers: nothing"),
    ],
)
def test_every_bad_answer_is_one_clear_line(api, answer, kind, words):
    api.answers["/"] = answer
    with pytest.raises(doors.HelpFailed) as caught:
        api.door().ask("runbook", "highstate", "", "id-1")
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert "pass-word" not in str(caught.value) and "t0k" not in str(caught.value)


@pytest.mark.parametrize(
    "answer", ['{"return": [{"token": "t0k", "exp', "t0k", '{"return": [{"t0k": 1}]}', "[" * 9999]
)
def test_a_broken_login_is_told_without_its_text(api, answer):
    api.answers["/login"] = (200, answer)
    with pytest.raises(doors.HelpUnknown, match="does not answer a login") as caught:
        api.door().ask("runbook", "highstate", "", "id-1")
    assert "t0k" not in str(caught.value)


def test_where_a_redirect_leads_is_told_without_what_it_carries(api, monkeypatch):
    monkeypatch.setattr(Api, "elsewhere", "http://elsewhere.invalid/?session=s3cret")
    api.answers["/login"] = (302, "")
    with pytest.raises(doors.HelpFailed, match=r"elsewhere\.invalid/;") as caught:
        api.door().ask("runbook", "highstate", "", "id-1")
    assert "s3cret" not in str(caught.value)


def test_an_answer_that_drips_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(doors, "CALL_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            with contextlib.suppress(OSError):
                conn, _ = listener.accept()
                with conn:
                    conn.recv(65536)
                    conn.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    while True:
                        conn.sendall(b"x")
                        time.sleep(0.02)

        threading.Thread(target=drip, daemon=True).start()
        door = app.SaltAPI(f"http://127.0.0.1:{listener.getsockname()[1]}", "u", "p", "pam")
        began = time.monotonic()
        with pytest.raises(doors.HelpUnknown, match="does not end its answer"):
            door.ask("runbook", "highstate", "", "id-1")
        assert time.monotonic() - began < 0.2 + SLACK_S


def test_a_certificate_authority_is_looked_at_before_it_is_needed(tmp_path):
    no_certificates = tmp_path / "ca.pem"
    no_certificates.write_text("none")
    for verify in ("/nosuch.pem", str(no_certificates), "", None, 1):
        for make in (
            lambda verify=verify: app.SaltAPI("https://m", "u", "p", "pam", verify=verify),
            lambda verify=verify: app.Webhook("https://m", SECRET, verify=verify),
        ):
            with pytest.raises(app.BadSettings, match=r"^verify: found"):
                make()
    for verify in (True, False, str(tmp_path)):
        app.SaltAPI("https://m", "u", "p", "pam", verify=verify)


def test_a_wrong_password_and_nobody_there(api):
    api.answers["/login"] = (401, "<html>")
    with pytest.raises(doors.HelpFailed, match="401: wrong user, password or eauth"):
        api.door().ask("runbook", "highstate", "", "id-1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        door = app.SaltAPI(f"http://127.0.0.1:{taken.getsockname()[1]}", "u", "p", "pam")
        with pytest.raises(doors.HelpUnknown, match="refused"):
            door.ask("runbook", "highstate", "", "id-1")


def test_a_certificate_that_is_not_trusted_is_refused(tmp_path):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    api = Api(context)
    try:
        with pytest.raises(doors.HelpFailed, match="certificate or TLS failure"):
            api.door().ask("runbook", "highstate", "", "id-1")
        assert api.got == []
        assert (
            api.door(verify=str(path)).ask("runbook", "highstate", "", "i")["reply"] == "accepted"
        )
    finally:
        api.server.shutdown()
        api.server.server_close()


def test_the_webhook_is_signed_as_the_standard_says(api):
    api.answers["/hook/selfheal/runbook/restart"] = (200, {"success": True})
    door = app.Webhook(f"{api.url}/hook/", SECRET)
    assert door.ask("runbook", "restart", "I cannot connect", "id-1") == {"reply": "sent"}
    _, headers, body = api.got[0]
    asked = {"cluster": "runbook", "action": "restart", "reason": "I cannot connect"}
    assert Verifier(SECRET).verify(body, headers) == asked
    assert "c2Vj" not in repr(door)
    api.answers["/hook/selfheal/runbook/restart"] = (200, {"success": False})
    with pytest.raises(doors.HelpUnknown, match="without success"):
        door.ask("runbook", "restart", "", "id-1")
    with pytest.raises(doors.HelpFailed, match="404: are its hooks open"):
        door.ask("runbook", "start", "", "id-1")
    for status, kind in ((401, doors.HelpFailed), (500, doors.HelpUnknown)):
        api.answers["/hook/selfheal/runbook/restart"] = (status, "<html>")
        with pytest.raises(doors.HelpFailed, match=f"answers {status}") as caught:
            door.ask("runbook", "restart", "", "id-1")
        assert type(caught.value) is kind


@pytest.mark.parametrize(
    "url",
    [
        "master:8000",
        "//master",
        "ftp://m",
        "http://",
        "https://u:p4ss@m",
        "http://m?x=p4ss",
        "u:p4ss@master:8000",
        None,
        7,
    ],
)
def test_a_url_needs_a_scheme_and_a_host_and_no_secret(url):
    for make in (lambda: app.SaltAPI(url, "u", "p", "pam"), lambda: app.Webhook(url, SECRET)):
        with pytest.raises(app.BadSettings, match=r"^url: ") as caught:
            make()
        assert "p4ss" not in str(caught.value)


def test_a_secret_that_is_none_and_a_minion_that_is_a_pattern():
    for secret in ("", None, "whsec_"):
        with pytest.raises(app.BadSettings, match=r"^secret: "):
            app.Webhook("http://m", secret)
    for minion in (None, "app*"):
        with pytest.raises(app.BadSettings, match=r"^minion: "):
            app.SaltAPI("http://m", "u", "p", "pam", client="local", minion=minion)
