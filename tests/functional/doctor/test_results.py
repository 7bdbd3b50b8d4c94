"""What the doctor says of in whose name results come."""

import logging

import pytest
import salt.master
import salt.version

from saltext_selfheal.doctor import returns
from tests.functional.doctor.conftest import lines, says

SALT = int(salt.version.__version__.split(".")[0])
RESOURCE, SYNDIC, OLD = (route.value for route in returns.Route)


def test_ways_to_store_anothers_result_are_named(opts):
    found = lines("results", opts)
    ways = f"{RESOURCE} and {SYNDIC}" if SALT >= 3008 else SYNDIC
    says(found, "warn", f"any minion can store a result under another's name, by {ways}")
    assert len(found) == 1
    left = (
        "No setting of this Salt stops it"
        if SALT >= 3008
        else "minion_sign_messages: true on every"
    )
    assert left in found[0]


def test_what_asks_for_signatures_is_tried_and_not_trusted(opts):
    opts.update(returns.SIGNED)
    found = lines("results", opts)
    if SALT >= 3008:
        # The signature is that of the liar, who says that it speaks for a resource of its own.
        says(found, "warn", f"by {RESOURCE} and {SYNDIC}")
    else:
        says(found, "ok", "stores what a minion says under its own name only")
    # One that need not hold is as good as none.
    opts["drop_messages_signature_fail"] = False
    says(lines("results", opts), "warn", SYNDIC)


def test_signatures_that_no_master_can_check_lose_every_result(opts):
    opts["require_minion_sign_messages"] = True
    says(lines("results", opts), "fail", "require_minion_sign_messages without signing_algorithm")


@pytest.mark.parametrize("least", [None, 0, 2, "x"])
def test_protocols_that_compare_no_ids(opts, least):
    if least is None:
        opts.pop("minimum_auth_version", None)
    else:
        opts["minimum_auth_version"] = least
    found = lines("results", opts)
    says(found, "warn", f"by {OLD}")
    assert any("Set minimum_auth_version: 3" in one for one in found)


def test_results_that_do_not_pass_through_the_master(opts):
    opts["ext_job_cache"] = "redis"
    says(lines("results", opts), "warn", "minions write their results into redis themselves")


@pytest.mark.parametrize("handled", ["at once", "later"])
def test_a_salt_that_compares_names(opts, monkeypatch, handled):
    """As it should be: stored under the name of whose key it was, whatever the request says."""

    def stores(self, load):
        self.mminion.returners["noted.returner"]({"id": load["id"]})

    async def stores_later(self, load):
        stores(self, load)

    def refuses(self, load):
        return False

    for prefix in ("", "_sync"):
        handler = stores if handled == "at once" or prefix else stores_later
        monkeypatch.setattr(salt.master.AESFuncs, f"{prefix}_return", handler, raising=False)
        monkeypatch.setattr(salt.master.AESFuncs, f"{prefix}_syndic_return", refuses, raising=False)
    opts["master_async_mworker"] = handled == "later"
    says(lines("results", opts), "ok", "under its own name only")


def test_a_salt_that_is_not_known_is_not_called_safe(opts, monkeypatch):
    def other(self, load):
        raise AttributeError("nosuch")

    for prefix in ("", "_sync"):
        monkeypatch.setattr(salt.master.AESFuncs, f"{prefix}_return", other, raising=False)
    says(lines("results", opts), "warn", "the check itself broke: AttributeError")


def test_what_the_trial_makes_the_master_say_alarms_nobody(opts, caplog):
    opts.update(returns.SIGNED)
    lines("results", opts)
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []
