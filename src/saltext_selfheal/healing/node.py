"""One node as the healer knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from .changes import Changes
from .events import Presence, Seconds
from .faults import Fault
from .remedies import Action
from .sighting import Sighting
from .testimony import Testimony


@dataclass(frozen=True)
class Bar:
    """Somebody's word on a minion keeps an action from running there, such as a disabled highstate or a blackout."""

    action: Action
    until: Seconds  #: then it is tried again
    times: int  #: how often in a row it was tried
    why: str


@dataclass(frozen=True)
class ForeignJob:
    """Somebody else's job on a node's minion. Times are the healer's, taken when it was told (see `foreign`)."""

    jid: str
    function: str
    by: str
    began_at: Seconds
    ended_at: Seconds | None = None


@dataclass(frozen=True)
class NodeState:
    """One node as the healer knows it."""

    fault: Fault | None = None
    evidence: str = "not probed yet"
    #: Since when the present verdict holds: this fault, or well. None: nothing is known yet.
    since: Seconds | None = None
    #: The faults since the node was last well, each with the time when it was first seen.
    seen: tuple[tuple[Fault, Seconds], ...] = ()
    confirmed: bool = False
    at: Seconds | None = field(default=None, compare=False)  #: last observation
    polls: int = field(default=0, compare=False)  #: observations since the healer started
    server_id: str | None = None
    server_was: str | None = None  #: the server id that the node had before
    server_name: str | None = None
    version: str | None = None
    proxy: bool = False
    #: Why it is not certain whose server answers there. Empty: it is certain. A doubt ends when the node answers with
    #: an identity that nothing disputes, or when a person takes the server for what it answers as.
    doubt: str = ""
    #: The id of the server that answers there, if that is the id of another node's server.
    answers_as: str | None = None
    addresses: tuple[str, ...] = field(default=(), compare=False)
    refused_at: Seconds | None = None  #: since when every dial has been refused
    #: The word of other nodes about this node's server: when they were asked last, and which one is connected to it.
    word_at: Seconds | None = field(default=None, compare=False)
    word_by: str = ""  #: empty: none of them is
    #: The last fresh dial that found the node well.
    dialled_at: Seconds | None = field(default=None, compare=False)
    answers: bool = False  #: it shows a fault, but a connection opened before still answers
    silent: bool = (
        False  #: it shows a fault, and the last fresh dial has heard nothing at all from it
    )
    started_at: float | None = None  #: when the server's process started, by the server's clock
    restarted_at: Seconds | None = None  #: when the healer saw that the server had started anew
    #: When the node went from well to faulty or back although nobody acted on it.
    changes: tuple[Seconds, ...] = ()
    flapping: bool = False
    #: For each of the last answers, whether it was slow.
    slow: tuple[bool, ...] = field(default=(), compare=False)
    #: How late its last answer was, as a multiple of what counts as late; 0: it was not (see `strain`).
    late_by: float = field(default=0.0, compare=False)
    well_since: Seconds | None = (
        None  #: each time it was seen since then it was well, also before a start of the healer
    )
    acted_at: Seconds = 0.0  #: end of the last attempt that has done something there
    cooldown_until: Seconds = 0.0
    cooldown_incident: str | None = None  #: whose attempt it rests after; only others must wait
    spent: tuple[Seconds, ...] = ()  #: when each attempt was decided that was paid for this node
    bars: tuple[Bar, ...] = ()
    stalled: str = ""  #: what the node did not answer when it got its last canary; empty: it did
    stalled_since: Seconds | None = None  #: since when that proves something
    unasked: str = ""  #: why the canary cannot be asked there; empty: it can, or was not yet
    answered_at: Seconds | None = field(default=None, compare=False)  #: its last good canary
    #: Since the healer has its present settings, the node has taken their login and shown a certificate that they trust.
    taken: bool = field(default=False, compare=False)
    minion: Presence = Presence.UNKNOWN  #: what the master knows of the node's minion
    minion_at: Seconds | None = field(default=None, compare=False)  #: when that was told last

    #: What its minion has told last (see `testimony`), when it was asked last, and since when it counts as starting.
    testimony: Testimony | None = None
    questioned_at: Seconds | None = None
    bare: bool = False  #: when it was asked last, its minion could not run this package's functions
    starting_since: Seconds | None = None
    foreseen: Changes | None = (
        None  #: what a highstate would change there, as its minion has told last
    )
    foreseen_at: Seconds | None = None  #: when that was asked last
    foreign: tuple[ForeignJob, ...] = ()  #: other people's jobs that run there or have ended lately

    #: What observers have told of it since its illness began; when they were asked last, and which.
    sightings: Mapping[str, Sighting] = field(default_factory=dict)
    observed_at: Seconds | None = None
    observers: tuple[str, ...] = ()

    def bar(self, action: Action) -> Bar | None:
        """What keeps this action from running on the node."""
        return next((bar for bar in self.bars if bar.action is action), None)

    @property
    def well(self) -> bool:
        return self.since is not None and self.fault is None

    @property
    def suspected(self) -> bool:
        return self.since is not None and self.fault is not None and not self.confirmed


class Witnessed(NamedTuple):
    """What is told of a node beside its probe: its own minion's word, if it refuses the dial, and its canaries."""

    gone: bool = False  #: its process is gone
    starting: bool = False  #: its process runs, and has had no time yet to get up
    why: str = ""  #: that its process runs, in words; empty: it was not told so
    stalled: str = (
        ""  #: what it does not answer although it answers the probe; see `canary.against`
    )
    strain: float = 1.0  #: so many times longer than usual a fault must last (see `strain`)
