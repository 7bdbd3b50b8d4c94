"""The cluster, as one node sees it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
import socket
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from tests.lab.simulated.faults import READINESS
from tests.lab.simulated.listening import read_line
from tests.lab.simulated.settings import Address

if TYPE_CHECKING:
    from tests.lab.simulated.node import Node

# A peer that refuses is gone at once; one that is merely late is gone when it was late twice in a
# row, because on a busy machine one late answer proves nothing.
PEER_TIMEOUT_S = 0.1
PEER_MISSES = 2
CLUSTER_LOOK_TTL_S = 0.2

NAMESPACE = uuid.UUID("5d7cf1b6-3a0e-4d0a-9b39-6d1f5f9f4a10")


@dataclasses.dataclass(frozen=True)
class Server:
    """What a node tells about itself: to peers on the cluster port, to clients in server_status."""

    id: str
    name: str
    hostname: str
    cluster_port: int
    reql_port: int
    http_admin_port: int | None
    canonical_addresses: tuple[Address, ...]
    cache_size_mb: int | None
    argv: tuple[str, ...]
    pid: int
    time_started: float

    @classmethod
    def from_line(cls, line: bytes) -> Server:
        """ValueError, TypeError or KeyError when the line is none of ours."""
        fields = json.loads(line)
        fields["canonical_addresses"] = tuple(
            (host, port) for host, port in fields["canonical_addresses"]
        )
        fields["argv"] = tuple(fields["argv"])
        return cls(**fields)

    def to_line(self) -> bytes:
        return json.dumps(dataclasses.asdict(self)).encode() + b"\n"


@dataclasses.dataclass(frozen=True)
class Member:
    """A server that ever belonged to the cluster; one never met is named after its address."""

    id: str
    name: str
    connected: bool


@dataclasses.dataclass(frozen=True)
class View:
    """The cluster at one moment: the connected servers, this one first, and all members by name."""

    servers: tuple[Server, ...]
    members: tuple[Member, ...]
    connected_since: Mapping[str, float]

    @property
    def readiness(self) -> int:
        """Index in READINESS that a table with a replica on every member has now."""
        connected = sum(member.connected for member in self.members)
        if connected == len(self.members):
            return READINESS.index("finished")
        if 2 * connected > len(self.members):
            return READINESS.index("writes")
        return READINESS.index("outdated_reads")


@dataclasses.dataclass
class Peer:
    """What is known of the server behind one `join` address."""

    address: Address
    id: str
    name: str
    server: Server | None = None
    misses: int = 0
    since: float = 0.0


class Cluster:
    """Asks the peers when somebody asks it, at most once per CLUSTER_LOOK_TTL_S.

    A connection that is open is asked first, as RethinkDB keeps its own: who can open no new one still has those.
    """

    def __init__(self, node: Node):
        self._node = node
        self._peers: dict[Address, Peer] = {}
        self._looked = 0.0
        self._looking: asyncio.Task[None] | None = None
        self._open: dict[Address, socket.socket] = {}

    def know(self, addresses: Iterable[Address]) -> None:
        for address in addresses:
            if address in self._peers or address in self._node.own_cluster_addresses():
                continue
            host, port = address
            name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{host}_{port}")
            self._peers[address] = Peer(address, str(uuid.uuid5(NAMESPACE, name)), name)
        self.forget_look()

    def forget_look(self) -> None:
        self._looked = 0.0

    async def view(self) -> View:
        node = self._node
        alone = node.fault("partitioned") is not None
        if not alone and time.monotonic() - self._looked > CLUSTER_LOOK_TTL_S:
            # Whoever comes meanwhile waits for the same look; who leaves must not end it.
            if self._looking is None or self._looking.done():
                self._looking = asyncio.ensure_future(self._look())
            await asyncio.shield(self._looking)
        servers = [node.server]
        members = [Member(node.server.id, node.server.name, True)]
        since = {node.server.id: node.server.time_started}
        for peer in self._peers.values():
            seen = peer.server is not None and not alone
            members.append(Member(peer.id, peer.name, seen))
            if peer.server is not None and seen:
                servers.append(peer.server)
                since[peer.id] = peer.since
        return View(
            servers=(servers[0], *sorted(servers[1:], key=lambda server: server.name)),
            members=tuple(sorted(members, key=lambda member: member.name)),
            connected_since=since,
        )

    async def _look(self) -> None:
        peers = list(self._peers.values())
        answers = await asyncio.gather(
            *(self._dial(peer.address) for peer in peers), return_exceptions=True
        )
        learnt = False
        for peer, answer in zip(peers, answers, strict=True):
            if isinstance(answer, Server):
                if answer.id == self._node.server.id:
                    del self._peers[
                        peer.address
                    ]  # the operator listed this node among its own peers
                    continue
                if peer.server is None:
                    peer.since = time.time()
                learnt = learnt or peer.id != answer.id
                peer.id, peer.name, peer.server, peer.misses = answer.id, answer.name, answer, 0
            elif isinstance(answer, asyncio.TimeoutError):
                peer.misses += 1
                if peer.misses >= PEER_MISSES:
                    peer.server = None
            else:
                peer.server = None
        self._looked = time.monotonic()
        if learnt:
            self._node.remember_peers(self.remembered())

    async def _dial(self, address: Address) -> Server:
        return await asyncio.wait_for(self._ask(address), PEER_TIMEOUT_S)

    async def _ask(self, address: Address) -> Server:
        loop = asyncio.get_running_loop()
        kept = self._open.pop(address, None)
        if kept is not None:
            with contextlib.suppress(OSError, ValueError):  # it has ended: dial anew
                return await self._asked(address, kept)
        sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return await self._asked(address, sock)

    async def _asked(self, address: Address, sock: socket.socket) -> Server:
        """What the peer answers. The socket is kept if it does, and closed otherwise."""
        try:
            await asyncio.get_running_loop().sock_sendall(sock, b'{"who": "are you"}\n')
            told = Server.from_line(await read_line(sock, bytearray()))
        except BaseException:
            sock.close()
            raise
        self._open[address] = sock
        return told

    def remembered(self) -> dict[str, list[str]]:
        """For the directory: a restarted node still knows who held the replicas."""
        return {
            f"{peer.address[0]} {peer.address[1]}": [peer.id, peer.name]
            for peer in self._peers.values()
        }

    def recall(self, remembered: Mapping[str, Sequence[str]]) -> None:
        for key, (server_id, name) in remembered.items():
            host, _, port = key.rpartition(" ")
            peer = self._peers.get((host, int(port)))
            if peer is not None:
                peer.id, peer.name = server_id, name

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        for sock in self._open.values():
            sock.close()
        self._open = {}
