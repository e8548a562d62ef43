"""Which traces are evidence of agreement: those drawn whatever the surrogate thought of them."""

from __future__ import annotations

from shared.contracts.events import Opinion, Reason, Trace

# A request deferred for one of these would have been deferred whatever its text.
UNSELECTIVE = frozenset({Reason.NO_ACTIVE_VERSION, Reason.PAUSED, Reason.TRIPPED})
# Given only to requests that the version would have answered; of those, to all.
SILENCED = frozenset({Reason.PROBATION, Reason.ALPHA_RAISED})


def is_audit(trace: Trace, opinion: Opinion) -> bool:
    """Whether the trace is a random one of those the version handles, or would.

    A version that is silenced is judged by all it would have answered. To another version, on trial
    beside it, those are the ones the first was sure of: no sample."""
    if not opinion.handled:
        return False
    own = trace.deferral_reason in SILENCED and opinion.version == trace.version
    return trace.drawn or own or trace.deferral_reason in UNSELECTIVE
