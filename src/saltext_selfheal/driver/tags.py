"""The tags of Salt's event bus: what is fired there, and what is listened to. One home for all of them.

Most of them are prefixes; what follows is a cluster, an action, or the id of a request.
"""

from __future__ import annotations

OURS = "selfheal/"
REMEDIATE = "selfheal/remediate/"  #: … action: the event that the reactor files turn into a job
INCIDENT = "selfheal/incident/"  #: … cluster/phase
DECISION = "selfheal/decision/"  #: … id of a request or a command
ENGINE = "selfheal/engine/"  #: … what befalls the engine itself
REQUEST = "selfheal/request/"  #: … cluster: what minions and applications ask for
NETAPI = "salt/netapi/hook/"  #: how salt-api tags what it is sent
HOOK = "salt/netapi/hook/selfheal/"  #: … cluster/action: the signed webhook
