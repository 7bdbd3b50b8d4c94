"""Which fault of the node a failed probe proves, in words. If it failed on this side, it proves nothing."""

from __future__ import annotations

from dataclasses import dataclass

from ..driver.causes import Cause, Stage, cause, in_words
from ..healing.model import Fault


@dataclass(frozen=True)
class Verdict:
    fault: Fault
    evidence: str
    ours: bool = False


#: The fault and the sentence for each cause that is not on this side. ``why`` stands for the exception's own words.
_FAULTS: dict[Cause, tuple[Fault, str]] = {
    Cause.NAME_SILENT: (Fault.UNREACHABLE, "name of {at} does not resolve {within}"),
    Cause.TCP_SILENT: (Fault.UNREACHABLE, "{at} does not answer to TCP {within}"),
    Cause.TLS_SILENT: (Fault.HUNG, "{at} accepts TCP, but no TLS handshake {within}"),
    Cause.GREETING_SILENT: (Fault.HUNG, "{at} accepts TCP, but no handshake {within}"),
    Cause.ANSWER_SILENT: (Fault.HUNG, "{at} is connected, but gives no answer {within}"),
    Cause.NO_NAME: (Fault.UNREACHABLE, "name of {at} does not resolve: {why}"),
    Cause.REFUSED: (Fault.DEAD, "connection to {at} refused"),
    Cause.UNREACHABLE: (Fault.UNREACHABLE, "{at}: {why}"),
    Cause.TLS: (Fault.TLS, "TLS with {at} failed: {why}"),
    Cause.TLS_ENDED: (Fault.TLS, "TLS with {at} failed: {why}"),
    Cause.LOGIN: (Fault.AUTH, "{at} refuses the login: {why}"),
    Cause.ENDED: (Fault.ALIEN, "{at} closes the connection in the {stage}"),
    Cause.BROKEN: (Fault.ALIEN, "{at} breaks the connection: {why}"),
    Cause.ALIEN: (Fault.ALIEN, "{at} does not speak as RethinkDB does: {why}"),
}


def judge(
    exc: Exception, *, at: str, stage: Stage, timeout_s: float, heard: bool, here: str
) -> Verdict:
    """Which fault an exception proves. ``stage`` says how far the dial had come; for ``heard`` see `causes.cause`."""
    because, why = cause(exc, stage, heard), in_words(exc)
    if because is Cause.OURS:
        what = "open a connection" if stage is Stage.TCP else f"look at {at}"
        return Verdict(Fault.UNREACHABLE, f"{here} cannot {what}: {why}", ours=True)
    fault, sentence = _FAULTS[because]
    within = f"within {timeout_s:g} s"
    return Verdict(fault, sentence.format(at=at, stage=stage, why=why, within=within))
