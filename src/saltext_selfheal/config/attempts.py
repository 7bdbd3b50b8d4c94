"""How long a job may take, and how long a node rests after it."""

from __future__ import annotations

from pydantic import Field, model_validator

from .group import Settings
from .mistakes import wrong
from .values import Span, SpanOrOff

LONGEST_STOP_S = 600.0


class AttemptSettings(Settings):
    timeout: Span = Field(
        300.0,
        description="For the job to return; afterwards the healer asks the minion whether it still runs.",
    )
    verify: Span = Field(60.0, description="For the fault to be gone after the job returned.")
    stop_timeout: Span = Field(
        30.0,
        description="For the orderly stop of a `force_restart`, at most 10m and half of `timeout`; then the process is "
        "killed.",
    )

    @model_validator(mode="after")
    def _in_time(self) -> AttemptSettings:
        if "stop_timeout" in self.model_fields_set and self.stop_timeout > self.longest_stop_s:
            raise wrong(
                f"a stop_timeout of at most {self.longest_stop_s:g}s (half of timeout, at most 10m)"
            )
        return self

    @property
    def longest_stop_s(self) -> float:
        return min(LONGEST_STOP_S, self.timeout / 2)

    @property
    def stop_s(self) -> float:
        """What a minion is told: at least a second, which is the least that it takes."""
        return max(1.0, min(self.stop_timeout, self.longest_stop_s))


class CooldownSettings(Settings):
    min: SpanOrOff = Field(
        120.0,
        description="A node rests this long after an attempt's end before another incident or request may act on it.",
    )
    max: SpanOrOff = Field(3600.0, description="The rest doubles with each relapse up to this.")

    @model_validator(mode="after")
    def _ordered(self) -> CooldownSettings:
        if self.max < self.min:
            raise wrong("max at least as long as min")
        return self
