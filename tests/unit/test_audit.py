"""The audit never calls clean what it did not check."""

from __future__ import annotations

import json
import sys
from importlib.metadata import distribution, distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement

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
        (report(SKIPPED), audit.UNCHECKED, "(Dependency not found on PyPI"),
        (report(GOOD, SKIPPED), audit.UNCHECKED, "1 could not be checked"),
        (report(), audit.UNCHECKED, "SKIPPED"),
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
    monkeypatch.setattr(module, "bill_of_materials", lambda to, web: 7)
    monkeypatch.setattr(module, "locked", lambda lock: [Requirement("pytest")])
    monkeypatch.setattr(module, "distributions", lambda: [distribution("pytest")])
    result = audit.read_report(found)
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
        ("LGPL-3.0 AND GPL-3.0", True),
        ("MIT AND BSD-3-Clause", False),
        ("Apache-2.0", False),
        ("MIT", False),
    ],
)
def test_licences_that_do_not_go_with_ours(licence: str, bad: bool) -> None:
    assert bool(audit.refused({licence: ["x"]})) is bad


LOCK = """\
# a comment with ==
good==1.0 \\
    --hash=sha256:00
    # via other
elsewhere==2.0 ; sys_platform == 'nowhere' \\
    --hash=sha256:00
here==3.0 ; sys_platform != 'nowhere'
"""


def test_the_lock_file_is_read_for_this_platform(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(LOCK)
    assert [each.name for each in audit.locked(tmp_path / "lock")] == ["good", "here"]
    assert len(audit.locked(audit.LOCK)) > 100


def test_what_is_pinned_and_not_here_is_named() -> None:
    version = distribution("pytest").version
    pinned = [Requirement(f"PyTest=={version}"), Requirement("pytest==1.0"), Requirement("gone==1")]
    assert audit.not_installed(pinned, [distribution("pytest")]) == ["pytest==1.0", "gone==1"]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("import sys; sys.exit('no route to the service')", "no route to the service"),
        ("raise SystemExit(4)", "pip-audit ended with 4"),
        ("import time; time.sleep(60)", "no answer within 1 s"),
    ],
)
def test_a_service_that_does_not_answer_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, why: str
) -> None:
    """A stand-in for pip-audit: what it says, or that it says nothing."""
    calls = tmp_path / "calls"
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!{sys.executable}\nopen({str(calls)!r}, 'a').write('x')\n{script}\n")
    stand_in.chmod(0o755)
    ask = audit._ask
    monkeypatch.setattr(audit.sys, "executable", str(stand_in))
    monkeypatch.setattr(audit, "_ask", lambda of, *, seconds: ask(of, seconds=1))
    (tmp_path / "lock").write_text(LOCK)
    found = audit.vulnerabilities(tmp_path / "lock")
    assert (found.checked, found.unchecked, found.why) == (0, ["good", "here"], why)
    assert calls.read_text() == "x"


def test_when_one_is_answered_all_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[list[str]] = []

    def ask(of: list[str], *, seconds: float) -> audit.Checked:
        asked.append(of)
        return audit.Checked(checked=len(asked))

    monkeypatch.setattr(audit, "_ask", ask)
    (tmp_path / "lock").write_text(LOCK)
    assert audit.vulnerabilities(tmp_path / "lock").checked == 2
    assert asked[1] == ["--require-hashes", "-r", str(tmp_path / "lock")]


def test_what_browsers_load_is_what_is_kept_in_the_tree() -> None:
    web = {each["name"]: each for each in audit.web_packages(audit.WEB_LOCK)}
    assert {"echarts", "htmx.org", "@picocss/pico"} <= web.keys()
    assert audit.refused({each["licence"]: [name] for name, each in web.items()}) == []
    named = json.loads((audit.WEB_LOCK.parent / "package.json").read_text())["dependencies"]
    assert {name: web[name]["version"] for name in named} == named


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_what_is_installed_goes_with_our_licence_and_is_in_the_bill(tmp_path: Path) -> None:
    """So that CI, which may not reach a service that knows vulnerabilities, sees these at least."""
    assert audit.refused(audit.licences(distributions())) == []
    assert audit.not_installed(audit.locked(audit.LOCK), distributions()) == []
    web = audit.web_packages(audit.WEB_LOCK)
    assert audit.bill_of_materials(tmp_path / "sbom.json", web) > 50
    bill = json.loads((tmp_path / "sbom.json").read_text())
    named = {each["name"] for each in bill["components"]}
    assert {"confluent-kafka", "faust-streaming", "onnxruntime", "redis", "echarts"} <= named
    assert JsonStrictValidator(SchemaVersion.from_version(bill["specVersion"])).validate_str(
        json.dumps({**bill, "components": bill["components"][-len(web) - 3 :]})
    ) is None  # fmt: skip
