"""Gives each new attempt its JID and its arguments, both in the state and in the effects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..healing.model import Attempt, Effect, Finish, Fire, State

Named = Callable[[Attempt], Attempt]


def give(state: State, effects: Sequence[Effect], complete: Named) -> tuple[State, list[Effect]]:
    """State and effects of one transition, after ``complete`` was applied to each attempt that has no JID yet."""
    fresh = {
        effect.attempt.id: complete(effect.attempt)
        for effect in effects
        if isinstance(effect, Fire) and not effect.attempt.jid
    }
    if not fresh:
        return state, list(effects)

    def named(attempt: Attempt) -> Attempt:
        known = fresh.get(attempt.id)
        return attempt if known is None else replace(attempt, jid=known.jid, args=known.args)

    for name in {one.cluster for one in fresh.values()}:
        state = state.with_cluster(state.clusters[name].with_attempts(named))
    told = [
        (
            replace(effect, attempt=named(effect.attempt))
            if isinstance(effect, (Fire, Finish))
            else effect
        )
        for effect in effects
    ]
    return state, told
