"""
Heal RethinkDB clusters from the Salt master
============================================

.. versionadded:: 0.1.0

The engine probes the nodes of the configured clusters and, when a fault is confirmed and every gate is open, fires
``selfheal/remediate/<action>``, which the reactor files of this extension turn into jobs on the nodes' minions.

:configuration: ``salt-run selfheal.config`` prints a complete drop-in for ``master.d``; every setting is explained
    in the :doc:`configuration reference </reference/configuration>`.

    .. code-block:: yaml

        engines:
          - selfheal:
              clusters:
                runbook:
                  minions: 'db*'
                  nodes:
                    db1: 10.0.0.11
                    db2: 10.0.0.12
                    db3: 10.0.0.13

    Several files may each have such an entry, with clusters of its own: Salt joins the lists, and one engine heals them
    all. The other engines that Salt starts then wait, in case that this one ends.
"""

import logging
from typing import Any

log = logging.getLogger(__name__)

__virtualname__ = "selfheal"

# Salt's loader puts this here.
__opts__: dict[str, Any]


def __virtual__() -> str | tuple[bool, str]:
    if __opts__.get("__role") != "master":
        # Salt's `start_engines` does not report an engine that did not load (3006 to 3008).
        log.error("selfheal: the engine runs on a master only, not on a %s", __opts__.get("__role"))
        return False, "the selfheal engine runs on a master only"
    return __virtualname__


def start(**kwargs: Any) -> None:
    """
    Run the healer. Never returns and never raises: Salt would restart the engine every ten seconds for ever.

    The settings are read from the master's ``engines``, as the runner and the reactor read them, so the keywords
    that Salt passes are not looked at.
    """
    # The import is here, because Salt also loads this module only to list it, and then it should not cost anything.
    from saltext_selfheal.loop import assemble

    assemble.run(__opts__)
