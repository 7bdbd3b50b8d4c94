"""A relay before a node, which edits what the node answers after the login."""

import contextlib
import json
import socket
import threading
import time


class Relay:
    """Before a node: hands on what clients say, and its answers after the login as `edit` makes them."""

    def __init__(self, node):
        self.node = node
        self.edit = lambda data: [data]
        self.reading = threading.Event()
        self.reading.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self.listener.getsockname()
        self.open = [self.listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection((self.node.host, self.node.port))
                self.open += [client, server]
                for work in (self._there, self._back):
                    threading.Thread(target=work, args=(client, server), daemon=True).start()

    def _there(self, client, server):
        with contextlib.suppress(OSError):
            while self.reading.wait() and (data := client.recv(65536)):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _back(self, client, server):
        greetings = 3
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                pieces = [data] if greetings > 0 else self.edit(data)
                greetings -= data.count(b"\0") if greetings > 0 else 0
                for piece in pieces:
                    client.sendall(piece)
            client.shutdown(socket.SHUT_WR)

    def close(self):
        self.reading.set()
        for sock in self.open:
            sock.close()


def answered(body):
    """An edit: this in place of each answer."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda data: [data[:8] + len(text).to_bytes(4, "little") + text]


def dripping(step, every_s):
    def edit(data):
        for at in range(0, len(data), step):
            yield data[at : at + step]
            time.sleep(every_s)

    return edit
