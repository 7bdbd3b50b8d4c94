"""All tags of events on Salt's bus that are fired or listened to.

Most of them are prefixes. A cluster, an action or the id of a request follows.
"""

from __future__ import annotations

OURS = "selfheal/"
REMEDIATE = "selfheal/remediate/"  #: … action: the event that the reactor files turn into a job
INCIDENT = "selfheal/incident/"  #: … cluster/phase
DECISION = "selfheal/decision/"  #: … id of a request or a command
ENGINE = "selfheal/engine/"  #: … what happens to the engine itself
REQUEST = "selfheal/request/"  #: … cluster: what minions and applications ask for
JOB = "salt/job/"  #: … JID/new, and JID/ret/minion: Salt's own, of every job
NETAPI = "salt/netapi/hook/"  #: … path: salt-api gives this tag to what is sent to its hooks
HOOK = "salt/netapi/hook/selfheal/"  #: … cluster/action: the signed webhook
