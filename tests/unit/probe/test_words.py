"""Those that are no RethinkDB often say in words what they are."""

import pytest

from saltext_selfheal.healing.model import Fault
from tests.unit.probe.world import OK, look


@pytest.mark.parametrize(
    ("says", "close", "told"),
    [
        (b"RethinkDB cluster\n\x05\0\0\0\0\0\0\x002.4.4", False, "that is its cluster port"),
        (b"ERROR: Received an unsupported protocol version. This port is for RethinkDB queries.\n\0", True,
         'says "ERROR: Received an unsupported protocol version.'),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", True, 'says "HTTP/1.1 400 Bad Request'),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", False, 'says "SSH-2.0-OpenSSH_9.2p1 Debian-2" and waits'),
        (b"220 mail.example ESMTP\r\n", False, 'says "220 mail.example ESMTP" and waits'),
        (b"-ERR unknown command\r\n", True, 'says "-ERR unknown command" and hangs up'),
        (b"J\0\0\0\x0a8.0.36\0\x1b\0\0\0", False, 'says "J"'),
        (b'"a text"\0', True, 'says ""a text""'),
        (b'{"success":false,"error":"Unsupported `protocol_version`.","error_code":2}\0', True,
         'refuses the handshake: "Unsupported `protocol_version`."'),
        (b'{"success":true,"min_protocol_version":1,"max_protocol_version":3}\0', True,
         "Unsupported protocol version"),
        (OK + b'{"success":false,"error":"Wrong\\n\\u001b[31mpassword\\ud800","error_code":12}\0', True,
         "Wrong [31mpassword"),
        (b"\x1b[31m\xff\xfe" + b"A" * 500 + b"\0", True, "AAA…"),
    ],
)  # fmt: skip
def test_who_is_no_rethinkdb_is_told_in_its_own_words(well, says, close, told):
    well.set_fault("garbage", bytes=says.decode("latin-1"), close=close)
    seen = look(well)
    assert (seen.fault, seen.ours) == (Fault.AUTH if says.startswith(OK) else Fault.ALIEN, False)
    assert told in seen.evidence
    assert seen.evidence.isprintable()
    assert len(seen.evidence) < 250
