"""What the simulations make of the gate."""

from __future__ import annotations

import pytest
from simulation import ALPHA

from shared.core import fit, gate


@pytest.fixture(autouse=True)
def one_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the walk at α itself. Those at lower α take nearly all the time and can only make a
    certificate stricter: `test_the_whole_gate_is_never_looser`."""
    monkeypatch.setattr(gate, "GRID", (ALPHA,))


@pytest.fixture
def nothing_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """For `stubs.prepared`: no residual stage is tried. Nor is a frontier drawn."""
    monkeypatch.setattr(fit, "with_residual", lambda *args, **kwargs: None)
    monkeypatch.setattr(fit, "FRONTIER_ALPHAS", ())
