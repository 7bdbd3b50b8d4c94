"""Every golden case is exactly what the healer does, and together they leave no row and no gate out."""

import pytest

from saltext_selfheal.healing import gates, table
from saltext_selfheal.healing.model import Action, Fault, Step
from tests.proofs import golden
from tests.unit.world import World

CASES = {path.stem: golden.load(path) for path in sorted(golden.CASES.glob("*.yaml"))}
#: The short ones first: what is wrong shows sooner.
FILES = sorted(
    golden.CASES.glob("*.yaml"), key=lambda path: (CASES[path.stem].timeline[-1][0], path.stem)
)


def marks(case):
    return [pytest.mark.xfail(strict=True, reason=case.bug)] if case.bug else []


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=marks(CASES[p.stem])) for p in FILES]
)
def test_what_happens_is_exactly_what_the_case_expects(path):
    wrong = list(golden.differences(CASES[path.stem].expect, golden.played(path)))
    assert not wrong, "\n".join([CASES[path.stem].title, *wrong])


def test_there_are_enough_of_them_and_each_tells_something_else():
    assert len(CASES) >= 60
    for told in ("title", "story"):
        words = [getattr(case, told) for case in CASES.values()]
        assert [one for one in words if words.count(one) > 1] == []


def test_every_row_of_the_table_is_taken_in_a_case():
    taken = frozenset().union(*(golden.played(path).rules for path in FILES))
    missing = [row.id for row in table.TRANSITIONS if row.id not in taken]
    assert not missing, f"no case takes: {', '.join(missing)}"
    beside = taken - {row.id for row in table.TRANSITIONS} - {""}
    assert beside == {
        "fact.seen", "fact.joined", "order.locked", "start.not-configured", "start.told-again",
    }  # fmt: skip


def test_every_gate_holds_something_in_a_case():
    world = World().warm()
    world.break_("db2", fault=Fault.DEAD)
    world.pass_time(1)
    intent = gates.Intent("runbook", world.cluster.incidents[0], Step(Action.RESTART), ("db2",))
    every = {gate.name for gate in gates.judge(world.state, intent, world.now)}
    held = frozenset().union(*(golden.played(path).gates for path in FILES))
    every -= {"tested"}  # a test run takes a moment, and what would change nothing is left out
    assert not every - held, f"no case is held by: {', '.join(sorted(every - held))}"


# ---------------------------------------------------------------- files that are no cases

GOOD = """
title: A title
story: A story.
timeline:
  - {at: 1s, break: db2}
"""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "case: found []; allowed: a mapping"),
        ("title: one\nstory: two\n", "case: timeline is missing"),
        (GOOD + "storry: 1\n", "case: unknown storry; allowed: bug, clusters, expect"),
        (GOOD + "title: again\n", "'title' stands twice"),
        (GOOD.replace("A title", "''"), "title: found ''; allowed: words"),
        (GOOD.replace("1s", "soon"), "timeline 1.at: found 'soon'; allowed: whole seconds"),
        (GOOD.replace("break: db2", "kill: db2"), "timeline 1: unknown kill"),
        (
            GOOD.replace("break: db2", "note: nothing"),
            "timeline 1: found nothing; allowed: exactly",
        ),
        (GOOD.replace("break: db2", "break: db2, mend: db2"), "timeline 1: found break, mend"),
        (GOOD.replace("break: db2", "break: db2, for: 1h"), "timeline 1: unknown for"),
        (GOOD + "  - {at: 0s, mend: db2}\n", "timeline 2.at: found 0s, which is before"),
        (GOOD + "settings: {cofirm: 3s}\n", "settings.cofirm"),
        (GOOD + "settings: {confirm: soon}\n", "settings.confirm: found 'soon'"),
        (GOOD + "expect: [{at: 1s}]\n", "expect 1: allowed: exactly one of fire, dial, finish"),
        (GOOD + "expect: [{at: 1s, said: open, why: x}]\n", "expect 1: incident is missing"),
        (GOOD + "expect: [{at: 1s, fire: restart, attempt: a, nodes: [], to: r}]\n", "unknown to"),
    ],
)
def test_a_file_that_is_no_case_is_refused_in_words(tmp_path, text, why):
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(golden.BadCase) as caught:
        golden.load(path)
    assert str(caught.value).startswith("bad.yaml: ")
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("happens", "why"),
    [
        ("break: db9", "timeline 1.break: no node 'db9' in runbook"),
        ("break: db2, fault: bored", "timeline 1: break: ValueError"),
        ("returned: runbook-1.1, outcome: done", "runbook-1.1 is not in flight"),
        ("job_cache: gone", "timeline 1.job_cache: found 'gone'; allowed: readable or unreadable"),
        ("words: whispered", "timeline 1.words: found 'whispered'; allowed: heard or lost"),
        ("leads: db9, to: db1", "timeline 1.leads: no node 'db9' in runbook"),
        ("canary: db1, end: answered", "timeline 1: the settings of runbook have no canary"),
    ],
)
def test_what_cannot_happen_is_refused_in_words(tmp_path, happens, why):
    path = tmp_path / "bad.yaml"
    path.write_text(GOOD.replace("break: db2", happens), encoding="utf-8")
    with pytest.raises(golden.BadCase) as caught:
        golden.play(golden.load(path))
    assert why in str(caught.value)


def test_an_effect_that_nobody_expects_is_a_difference(tmp_path):
    path = tmp_path / "case.yaml"
    path.write_text(GOOD + "  - {at: 6s, wait: for the restart}\n", encoding="utf-8")
    found = golden.played(path)
    assert len(list(golden.differences((), found))) == len(found.effects) == 4
    assert not list(golden.differences(found.effects, found))
    shorter = ({**found.effects[0], "why": "refused"}, *found.effects[1:])
    assert not list(golden.differences(shorter, found))
    other = ({**found.effects[0], "at": "3s"}, *found.effects[1:])
    (told,) = golden.differences(other, found)
    assert told.startswith("effect 1: expected {at: 3s, said: suspected")


def test_the_command_writes_what_happens_and_keeps_the_rest(tmp_path):
    path = tmp_path / "case.yaml"
    text = GOOD.lstrip() + "  - {at: 6s, wait: for the restart}\n"
    path.write_text(text, encoding="utf-8")
    assert golden.main(["--write", str(path)]) == 0
    case = golden.load(path)
    assert not list(golden.differences(case.expect, golden.play(case)))
    assert path.read_text(encoding="utf-8").startswith(text)
    path.write_text(text + "bug: something\n", encoding="utf-8")
    assert golden.main(["--write", str(path)]) == 1
