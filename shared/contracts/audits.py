"""Which traces are evidence of agreement: those drawn whatever the surrogate thought of them."""

from __future__ import annotations

from shared.contracts.events import Opinion, Reason, Trace

# A request deferred for one of these would have been deferred whatever its text.
UNSELECTIVE = frozenset(
    {
        Reason.NO_ACTIVE_VERSION,
        Reason.PAUSED,
        Reason.TRIPPED,
        Reason.PROBATION,
        Reason.ALPHA_RAISED,
    }
)


def is_audit(trace: Trace, opinion: Opinion) -> bool:
    """Whether the trace is a random one of those the version handles, or would."""
    return opinion.handled and (trace.drawn or trace.deferral_reason in UNSELECTIVE)
