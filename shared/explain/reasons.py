"""Why a stage answers a text, or leaves it, in words: for a text and for its neighbours alike."""

from __future__ import annotations


def stage_says(
    label: str, accept: float, threshold: float, *, novel: str | None, dropped: bool
) -> tuple[bool, str]:
    """Whether it answers, and why. novel: what is said of a text unlike the training traffic, None
    for any other; dropped: the label is deferred whole. In the order in which a router looks."""
    if novel is not None:
        return False, f"unlike its training traffic{novel}"
    if dropped:
        return False, f"{label} is below the task's floor and deferred whole"
    digits = 3 if f"{accept:.3f}" != f"{threshold:.3f}" else 6
    figures = f"{accept:.{digits}f}, certified from {threshold:.{digits}f} on"
    if accept >= threshold:  # never of a score that is no number
        return True, f"sure enough: {figures}"
    return False, f"not sure enough: {figures}"
