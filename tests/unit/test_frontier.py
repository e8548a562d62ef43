"""What a version's fit says of another α."""

from __future__ import annotations

import msgspec

from shared.contracts.manifest import FrontierPoint, frontier_at
from tests.artifacts import make_artifact


def test_what_is_certified_is_a_point_of_its_own() -> None:
    """A certificate at an α between two of the frontier: at its own α it was told of the next one,
    which may be refused."""
    manifest = make_artifact().manifest
    certificate = msgspec.structs.replace(manifest.certificate, alpha=0.96, coverage=0.7)
    points = tuple(
        FrontierPoint(alpha=alpha, coverage=coverage, agreement=0.98, agreement_lower=0.97)
        for alpha, coverage in ((0.95, 0.8), (0.97, 0.0))
    )
    manifest = msgspec.structs.replace(manifest, certificate=certificate, frontier=points)
    found = {alpha: frontier_at(manifest, alpha) for alpha in (0.9, 0.955, 0.96, 0.965, 0.99)}
    assert {alpha: point and point.coverage for alpha, point in found.items()} == {
        0.9: 0.8, 0.955: 0.7, 0.96: 0.7, 0.965: 0.0, 0.99: None,
    }  # fmt: skip
