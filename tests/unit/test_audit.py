"""The audit never calls clean what it did not check."""

from __future__ import annotations

import json
from importlib.metadata import distribution, distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from deploy.audit import audit


def report(*dependencies: dict[str, Any]) -> dict[str, Any]:
    return {"dependencies": list(dependencies), "fixes": []}


GOOD = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}
SKIPPED = {"name": "c", "skip_reason": "Dependency not found on PyPI and could not be audited"}


@pytest.mark.parametrize(
    ("found", "code", "says"),
    [
        (report(GOOD), audit.CLEAN, "1 packages checked, 0 vulnerabilities known, 0 could"),
        (report(GOOD, BAD), audit.FOUND, "b 1: PYSEC-1, fixed in 2"),
        (report(SKIPPED), audit.UNCHECKED, "SKIPPED"),
        (report(GOOD, SKIPPED), audit.UNCHECKED, "1 could not be checked"),
        (report(), audit.UNCHECKED, "SKIPPED"),
        (None, audit.UNCHECKED, "SKIPPED"),
    ],
)
def test_the_exit_code_says_what_was_checked(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Any,
    found: Any,
    code: int,
    says: str,
) -> None:
    module: ModuleType = audit
    monkeypatch.setattr(module, "BUILD", tmp_path)
    monkeypatch.setattr(module, "bill_of_materials", lambda to: 7)
    monkeypatch.setattr(module, "distributions", lambda: [distribution("pytest")])
    result = None if found is None else audit.read_report(found)
    monkeypatch.setattr(module, "vulnerabilities", lambda lock: result)
    assert audit.main() == code
    assert says in capsys.readouterr().out
    assert "MIT: pytest" in (tmp_path / "licences.txt").read_text()


@pytest.mark.parametrize(
    ("licence", "bad"),
    [
        ("AGPL-3.0-only", True),
        ("GPL-3.0", True),
        ("GNU General Public License v3 (GPLv3)", True),
        ("LGPL-3.0", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("MIT OR GPL-2.0", False),
        ("Apache-2.0", False),
        ("MIT", False),
    ],
)
def test_licences_that_do_not_go_with_ours(licence: str, bad: bool) -> None:
    assert bool(audit.refused({licence: ["x"]})) is bad


@pytest.mark.slow
@pytest.mark.timeout(400)  # twenty seconds of a quiet machine
def test_what_is_installed_goes_with_our_licence_and_is_in_the_bill(tmp_path: Path) -> None:
    """So that CI, which may not reach a service that knows vulnerabilities, sees these at least."""
    assert audit.refused(audit.licences(distributions())) == []
    assert audit.bill_of_materials(tmp_path / "sbom.json") > 50
    named = {
        each["name"] for each in json.loads((tmp_path / "sbom.json").read_text())["components"]
    }
    assert {"confluent-kafka", "faust-streaming", "onnxruntime", "redis"} <= named
