"""The login: SCRAM-SHA-256 (RFC 5802, RFC 7677), server side, with RethinkDB's error codes."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import os
from collections.abc import Mapping


class Refusal(Exception):
    """The handshake ends here, with an error that the client is told."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code
        self.message = message


class Credential:
    """A user's password as the server keeps it."""

    ITERATIONS = 4096
    # Beyond this the node does not check the password: it would be busy for seconds itself.
    MOST_ITERATIONS = 1_000_000

    def __init__(self, password: str):
        self.salt = os.urandom(16)
        self._password = password.encode()
        self.key = functools.lru_cache(maxsize=4)(self._key)

    def _key(self, iterations: int) -> bytes:
        return hashlib.pbkdf2_hmac("sha256", self._password, self.salt, iterations)


def _hmac(key: bytes, message: str) -> bytes:
    return hmac.new(key, message.encode(), hashlib.sha256).digest()


class Scram:
    """One login: `first` answers the client's first message, `final` its proof; or a Refusal."""

    def __init__(self, users: Mapping[str, Credential], iterations: int):
        self._users = users
        self._iterations = iterations
        self._client_first = ""
        self._server_first = ""
        self._nonce = ""
        self.user = ""

    @staticmethod
    def _attributes(message: str) -> dict[str, str]:
        attributes: dict[str, str] = {}
        for part in message.split(","):
            key, equals, value = part.partition("=")
            if len(key) != 1 or not equals or key in attributes:
                raise Refusal(10, "Invalid encoding")
            attributes[key] = value
        if "m" in attributes:
            raise Refusal(11, "Extensions not supported")
        return attributes

    def first(self, message: str) -> str:
        if not message.startswith("n,"):
            raise Refusal(15, "Channel binding is not supported")
        _, _, self._client_first = message[2:].partition(",")
        attributes = self._attributes(self._client_first)
        if set(attributes) != {"n", "r"}:
            raise Refusal(10, "Invalid encoding")
        self.user = attributes["n"].replace("=2C", ",").replace("=3D", "=")
        if not self.user:
            raise Refusal(18, "Empty username")
        self._nonce = attributes["r"] + base64.b64encode(os.urandom(18)).decode()
        # An unknown user gets a salt too, and learns only at the end that there is no such user.
        known = self._users.get(self.user)
        salt = base64.b64encode(known.salt if known else os.urandom(16)).decode()
        self._server_first = f"r={self._nonce},s={salt},i={self._iterations}"
        return self._server_first

    def final(self, message: str) -> str:
        credential = self._users.get(self.user)
        if credential is None:
            raise Refusal(17, "Unknown user")
        if self._iterations > Credential.MOST_ITERATIONS:
            raise Refusal(12, "Wrong password")
        attributes = self._attributes(message)
        if set(attributes) != {"c", "r", "p"} or attributes["c"] != "biws":
            raise Refusal(10, "Invalid encoding")
        if attributes["r"] != self._nonce:
            raise Refusal(20, "Other error")
        key = credential.key(self._iterations)
        without_proof = message.partition(",p=")[0]
        auth_message = f"{self._client_first},{self._server_first},{without_proof}"
        client_key = _hmac(key, "Client Key")
        signature = _hmac(hashlib.sha256(client_key).digest(), auth_message)
        proof = bytes(left ^ right for left, right in zip(client_key, signature, strict=True))
        if not hmac.compare_digest(attributes["p"].encode(), base64.b64encode(proof)):
            raise Refusal(12, "Wrong password")
        return "v=" + base64.b64encode(_hmac(_hmac(key, "Server Key"), auth_message)).decode()
