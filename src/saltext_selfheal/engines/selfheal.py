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
import time

log = logging.getLogger(__name__)

__virtualname__ = "selfheal"

AGAIN_S = 10


def __virtual__():
    if __opts__.get("__role") != "master":
        # `start_engines` says nothing about an engine that did not load (3006 to 3008).
        log.error("selfheal: the engine runs on a master only, not on a %s", __opts__.get("__role"))
        return False, "the selfheal engine runs on a master only"
    return __virtualname__


def start(**kwargs):
    """
    Run the healer. Never returns and never raises: Salt would restart the engine every ten seconds for ever.

    The settings are read from the master's ``engines``, as the runner and the reactor read them, so the keywords
    that Salt passes are not looked at.
    """
    # Here and not above: whoever only lists this module should not pay for it.
    from saltext_selfheal import config
    from saltext_selfheal.doors import bus as doors_of
    from saltext_selfheal.healing.model import Requested
    from saltext_selfheal.ledger.file import LedgerBusy, LedgerRefused, Unavailable
    from saltext_selfheal.ledger.writer import Ledger
    from saltext_selfheal.loop import bus, healer, jobs
    from saltext_selfheal.probe import loop as probe
    from saltext_selfheal.probe.tables import ViewPlan

    out = bus.Bus(__opts__)

    def do_nothing(why, problems):
        log.critical("selfheal: nothing is healed until the master is restarted: %s", why)
        for problem in problems:
            log.critical("selfheal: %s", problem)
        out.fire(
            "selfheal/engine/config_error", {"why": why, "problems": problems, "at": time.time()}
        )
        while True:
            time.sleep(3600)

    try:
        settings = config.load(__opts__)
    except config.ConfigError as exc:
        do_nothing("the settings cannot be used", [str(p) for p in exc.problems])
    try:
        nodes = probe.targets(settings.clusters)
    except OSError as exc:  # ssl.SSLError is one
        do_nothing("the CA certificates of tls.ca_certs cannot be used", [str(exc)])
    path = settings.ledger_path(__opts__)

    told = ""

    def wait_for_ledger(why):
        """Say once, loudly, what it is; the reason may change. Then wait a second."""
        nonlocal told
        if why != told:
            log.critical("selfheal: nothing is healed until the ledger can be used: %s", why)
            out.fire("selfheal/engine/ledger_failed", {"why": why, "at": time.time()})
        told = why
        time.sleep(1)

    # Salt starts an engine for each entry of `engines`, and each has the settings of all: one of them heals.
    several = len(config.entries(__opts__)) > 1

    def stand_by():
        nonlocal told
        why = (
            "another engine of this master heals what all entries of `engines` say; this one waits"
        )
        if why != told:
            log.info("selfheal: %s", why)
        told = why
        time.sleep(1)

    ledger = None
    while ledger is None:
        try:
            ledger = Ledger(path)
        except LedgerRefused as exc:
            do_nothing("the ledger cannot be used", [str(exc)])
        except LedgerBusy as exc:
            stand_by() if several else wait_for_ledger(str(exc))
        except Exception as exc:
            # An engine that was just ended may hold it for a moment; a full disk may become free.
            wait_for_ledger(str(exc))

    heal = None
    while heal is None:
        try:
            heal = healer.Healer(
                settings=settings, ledger=ledger, bus=out, mint=lambda: jobs.mint(__opts__)
            )
        except Unavailable as exc:
            wait_for_ledger(f"{path}: {exc}")
        except Exception:
            log.exception("selfheal: the healer did not start, trying again in %s s", AGAIN_S)
            time.sleep(AGAIN_S)

    reader = jobs.JobReader(__opts__, heal.deliver)
    reader.start()
    plans = {
        name: ViewPlan(cluster.view.every, cluster.view.timeout)
        for name, cluster in settings.clusters.items()
    }
    prober = probe.Prober(nodes, heal.deliver, plans)
    prober.start()
    doors = doors_of.doors(settings, lambda target, kind: _minions(dict(__opts__), target, kind))

    def deliver(tag, data):
        for request in doors.take(tag, data):
            heal.deliver(Requested(request))

    bus.Listener(__opts__, doors.tags, deliver).start()
    heal.run(reader, prober)


def _minions(opts, target, kind):
    """The accepted minions that a Salt target means."""
    import salt.utils.minions

    found = salt.utils.minions.CkMinions(opts).check_minions(target, kind)
    return found["minions"]
