"""What the lock file brings: known vulnerabilities, licences, and a bill of materials.

    python deploy/audit/audit.py

Writes build/sbom.json (CycloneDX) and build/licences.txt. Exit code 0: everything was checked and
is clean. 1: something was found. 3: vulnerabilities could not be checked, or not all of them, which
is said and is not the same as none.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
CLEAN, FOUND, UNCHECKED = 0, 1, 3
# Their terms reach what is linked with them: not for an Apache-2.0 service.
REFUSED = re.compile(r"\b(AGPL|GPL)\b|Affero|(?<!Lesser )General Public License", re.I)
ALLOWED_ANYWAY = re.compile(r"LGPL|Lesser|Classpath|exception| OR ", re.I)


@dataclass(frozen=True)
class Checked:
    """`found`: a line for each known vulnerability. `unchecked`: packages nobody could ask of."""

    found: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    checked: int = 0


def read_report(report: dict[str, Any]) -> Checked:
    """pip-audit's JSON. A package it skipped is unchecked, whatever its exit code says."""
    found, unchecked, checked = [], [], 0
    for each in report["dependencies"]:
        if "skip_reason" in each:
            unchecked.append(each["name"])
            continue
        checked += 1
        found += [
            f"{each['name']} {each.get('version')}: {vuln['id']}, fixed in "
            f"{', '.join(vuln.get('fix_versions') or ['no release'])}"
            for vuln in each.get("vulns", ())
        ]
    return Checked(found, unchecked, checked)


def vulnerabilities(lock: Path) -> Checked | None:
    """Of every pinned package; None when pip-audit could not run or reach its service."""
    command = [
        sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "-r", str(lock),
        "-f", "json", "--progress-spinner", "off", "--timeout", "10",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        return read_report(json.loads(done.stdout))
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return None


def licence_of(package: Distribution) -> str:
    """As the package says it, in one line; its classifiers where it says nothing short."""
    said = package.metadata.get("License-Expression") or package.metadata.get("License") or ""
    first = said.strip().splitlines()[0].strip() if said.strip() else ""
    classifiers = package.metadata.get_all("Classifier") or []
    named = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License :: ")]
    if first and len(first) <= 80 and not first.lower().startswith("copyright"):
        return first
    return "; ".join(named) or first[:80] or "not said"


def licences(packages: Iterable[Distribution]) -> dict[str, list[str]]:
    """Packages by licence."""
    found: dict[str, set[str]] = defaultdict(set)
    for package in packages:
        found[licence_of(package)].add(package.metadata["Name"])
    return {licence: sorted(names) for licence, names in sorted(found.items())}


def refused(found: dict[str, list[str]]) -> list[str]:
    """Packages whose terms do not go with ours."""
    return [
        f"{', '.join(names)}: {licence}"
        for licence, names in found.items()
        if REFUSED.search(licence) and not ALLOWED_ANYWAY.search(licence)
    ]


def bill_of_materials(to: Path) -> int:
    """CycloneDX of this environment; how many components it names. Raises CalledProcessError."""
    command = [
        sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible",
        "--pyproject", str(ROOT / "pyproject.toml"), "--of", "JSON", "-o", str(to),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return len(json.loads(to.read_text())["components"])


def main() -> int:
    BUILD.mkdir(exist_ok=True)
    components = bill_of_materials(BUILD / "sbom.json")
    print(f"build/sbom.json: {components} components")
    by_licence = licences(distributions())
    lines = [f"{licence}: {', '.join(names)}" for licence, names in by_licence.items()]
    (BUILD / "licences.txt").write_text("\n".join(lines) + "\n")
    print(
        f"build/licences.txt: {len(by_licence)} licences; not said by {by_licence.get('not said')}"
    )
    bad = refused(by_licence)
    for line in bad:
        print(f"licence that does not go with ours: {line}")
    result = vulnerabilities(ROOT / "requirements.lock")
    if result is None or result.checked == 0:
        print("SKIPPED: no package could be checked for vulnerabilities: their service was not")
        print("reached from here. Run `make audit` where it is; nothing was found because nothing")
        print("was asked.")
    else:
        for line in result.found:
            print(f"vulnerable: {line}")
        print(f"{result.checked} packages checked, {len(result.found)} vulnerabilities known, "
              f"{len(result.unchecked)} could not be checked")  # fmt: skip
    if bad or (result and result.found):
        return FOUND
    return CLEAN if result and result.checked and not result.unchecked else UNCHECKED


if __name__ == "__main__":
    sys.exit(main())
