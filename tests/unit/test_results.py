"""What a minion's result means. The table has the shapes that Salt 3006 and 3008 give; see `salt.minion` and
`salt.modules.state`.
"""

import pytest

from saltext_selfheal.healing.model import Action, Outcome
from saltext_selfheal.loop import jobs

GOOD = {"result": True, "comment": "fine", "changes": {}}
BAD = {"result": False, "comment": "no space left", "changes": {}}
WOULD = {"result": None, "comment": "would be changed", "changes": {}}
BLACKOUT = (
    "ERROR executing 'service.restart': Minion in blackout mode. Set 'minion_blackout' to False in pillar or grains to "
    "resume operations. Only saltutil.refresh_pillar allowed in blackout mode."
)
DISABLED = {
    "name": "Salt highstate run is disabled. To re-enable, run state.enable highstate",
    "result": "False",
    "comment": "Disabled",
}
NOTHING = {
    "no_|-states_|-states_|-None": {
        "result": False,
        "comment": "No Top file or master_tops data matches found. Please see master log for details.",
        "name": "No States",
        "changes": {},
        "__run_num__": 0,
    }
}

#: Deeper than Python writes.
NESTED = []
for _ in range(5000):
    NESTED = [NESTED]

#: The action, what the minion has sent, what that means, and what people are told.
SHAPES = [
    (Action.HIGHSTATE, {"return": {"a": GOOD}, "retcode": 0}, Outcome.DONE, "1 states"),
    (Action.HIGHSTATE, {"return": {"a": GOOD}}, Outcome.DONE, "1 states"),
    (Action.HIGHSTATE, {"return": {"a": GOOD, "b": BAD}, "retcode": 2}, Outcome.FAILED, "1 of 2 states failed: no space"),
    (Action.HIGHSTATE, {"return": {"a": GOOD}, "retcode": 2}, Outcome.FAILED, "retcode 2, although none of 1 states"),
    (Action.HIGHSTATE, {"return": ['The function "state.apply" is running as PID 17'], "retcode": 1}, Outcome.BUSY, "PID 17"),
    (Action.HIGHSTATE, {"return": ["Rendering SLS failed"], "retcode": 1}, Outcome.FAILED, "Rendering"),
    (Action.HIGHSTATE, {"return": "Passed invalid arguments", "retcode": 1}, Outcome.FAILED, "invalid"),
    # A person's word.
    (Action.HIGHSTATE, {"return": DISABLED, "retcode": 1}, Outcome.FORBIDDEN, "highstate is disabled on the minion"),
    (Action.HIGHSTATE, {"return": DISABLED, "retcode": 0}, Outcome.FORBIDDEN, "state.enable ends it"),
    (Action.HIGHSTATE, {"return": BLACKOUT, "retcode": 1}, Outcome.FORBIDDEN, "in blackout"),
    (Action.RESTART, {"return": BLACKOUT, "retcode": 1}, Outcome.FORBIDDEN, "minion_blackout"),
    (Action.START, {"return": BLACKOUT, "retcode": 1}, Outcome.FORBIDDEN, "in blackout"),
    (Action.LOOK, {"return": BLACKOUT, "retcode": 1}, Outcome.FORBIDDEN, "in blackout"),
    # It has run, or it seems so, and nothing is better.
    (Action.HIGHSTATE, {"return": NOTHING, "retcode": 2}, Outcome.FAILED, "no state is assigned to this minion"),
    (Action.HIGHSTATE, {"return": {}, "retcode": 0}, Outcome.FAILED, "no state is assigned to this minion"),
    (Action.HIGHSTATE, {"return": {"a": GOOD, "b": WOULD}, "retcode": 0}, Outcome.FAILED, "1 of 2 states were only tested"),
    (Action.HIGHSTATE, {"return": {"a": "odd"}, "retcode": 0}, Outcome.FAILED, "no result of states"),
    (Action.HIGHSTATE, {"return": {"a": GOOD}, "retcode": 0, "success": False}, Outcome.FAILED, "no success"),
    (Action.HIGHSTATE, {"return": {**DISABLED, "name": "odd"}, "retcode": 1}, Outcome.FAILED, "odd: Disabled"),
    (Action.HIGHSTATE, {"return": 7, "retcode": 0}, Outcome.FAILED, "7"),
    (Action.HIGHSTATE, {}, Outcome.FAILED, "returned nothing"),
    (Action.RESTART, {"return": None, "retcode": 0}, Outcome.FAILED, "returned nothing"),
    # The minion does not have the function.
    (Action.RESTART, {"return": "'service.restart' is not available.", "retcode": 254}, Outcome.FAILED, "does not have"),
    (Action.START, {"return": "'service' __virtual__ returned False", "retcode": 254}, Outcome.FAILED, "does not have"),
    (Action.HIGHSTATE, {"return": "'state.highstate' is not available.", "retcode": 0}, Outcome.FAILED, "does not have"),
    # Functions that say True.
    (Action.RESTART, {"return": True, "retcode": 0}, Outcome.DONE, ""),
    (Action.RESTART, {"return": True, "retcode": 0, "success": True}, Outcome.DONE, ""),
    (Action.RESTART, {"return": True, "retcode": 0, "success": False}, Outcome.FAILED, "no success"),
    (Action.RESTART, {"return": True, "retcode": 1}, Outcome.FAILED, "True"),
    (Action.RESTART, {"return": "ERROR: it exits", "retcode": 1}, Outcome.FAILED, "it exits"),
    (Action.RESTART, {"return": False, "retcode": 0}, Outcome.FAILED, "the service manager says that it did not work"),
    # Looks.
    (Action.LOOK, {"return": [{"jid": "1", "fun": "state.highstate"}]}, Outcome.BUSY, "still runs"),
    (Action.LOOK, {"return": [{"jid": "2"}]}, Outcome.DONE, "does not run"),
    (Action.LOOK, {"return": []}, Outcome.DONE, "does not run"),
    (Action.LOOK, {"return": None}, Outcome.BUSY, "no answer to what it runs"),
    (Action.LOOK, {"return": "'saltutil.running' is not available.", "retcode": 254}, Outcome.BUSY, "no answer"),
]  # fmt: skip


@pytest.mark.parametrize(("action", "entry", "outcome", "told"), SHAPES)
def test_judging(action, entry, outcome, told):
    watched = jobs.Watched("runbook-1.1", "9", action, ("db2",), of_jid="1")
    verdict, detail = jobs.judge(watched, entry)
    assert verdict is outcome
    assert told in detail


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize(
    "result",
    [NESTED, {"a": NESTED}, 10**5000, {"a": 10**5000}],
    ids=["nested", "nested in a dict", "number", "number in a dict"],
)
def test_what_python_refuses_to_write_is_told_all_the_same(action, result):
    watched = jobs.Watched("runbook-1.1", "20260101000000000000", action, ("db1",), "2026")
    outcome, told = jobs.judge(watched, {"return": result})
    jobs.heard(watched, {"return": result})
    assert outcome is not Outcome.LOST and len(told) < 600
