"""The table of mutations keeps up with the sources. Whether they are killed is asked elsewhere: it takes minutes."""

import json

import pytest

from saltext_selfheal.healing import gates
from saltext_selfheal.healing.model import Action, Fault, Step
from tests.proofs import mutations
from tests.unit.world import World


@pytest.mark.parametrize("mutation", mutations.MUTATIONS, ids=lambda m: m.rule)
def test_a_mutation_still_applies_and_is_python(mutation):
    path, after = mutations.mutated(mutation)
    assert after != (mutations.ROOT / path).read_text(encoding="utf-8")


def test_every_rule_and_every_gate_is_broken_at_least_once():
    rules = [mutation.rule for mutation in mutations.MUTATIONS]
    assert len(set(rules)) == len(rules)
    missing = [f"I{n}" for n in range(1, 11) if not any(r.startswith(f"I{n}:") for r in rules)]
    world = World().warm()
    world.break_("db2", fault=Fault.DEAD)
    world.pass_time(1)
    intent = gates.Intent("runbook", world.cluster.incidents[0], Step(Action.RESTART), ("db2",))
    names = [gate.name for gate in gates.judge(world.state, intent, world.now)]
    missing += [name for name in names if not any(f"(gate {name})" in rule for rule in rules)]
    assert not missing, f"nothing breaks: {', '.join(missing)}"


def test_a_mutation_that_was_left_behind_says_so():
    gone = mutations.Mutation("none", "step.step", "this stands nowhere", "")
    with pytest.raises(mutations.Left, match=r"step.step holds the old text 0 times, not once"):
        mutations.mutated(gone)
    nowhere = mutations.Mutation("none", "no_such_function", "", "")
    with pytest.raises(mutations.Left, match=r"0 places called no_such_function, not one"):
        mutations.mutated(nowhere)


def test_each_noted_killer_is_of_a_mutation_that_there_is():
    killers = json.loads(mutations.KILLERS.read_text(encoding="utf-8"))
    assert set(killers) <= {mutation.rule for mutation in mutations.MUTATIONS}
    assert all(test.partition("::")[0] in mutations.TESTS for test in killers.values())
