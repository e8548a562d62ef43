"""What the lock file brings: known vulnerabilities, licences, and a bill of materials.

    python deploy/audit/audit.py

Writes build/sbom.json (CycloneDX) and build/licences.txt, which takes no network and a few seconds.
Then one package is asked for at the service that knows vulnerabilities, and all of them where it
answers. Exit code 0: everything was checked and is clean. 1: something was found. 3: something
could not be checked, which is said and is not the same as none.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
LOCK = ROOT / "requirements.lock"
# What the console and reports load in browsers, by npm's own lock file; it is kept in the tree.
WEB_LOCK = ROOT / "shared" / "web" / "package-lock.json"
CLEAN, FOUND, UNCHECKED = 0, 1, 3
# Their terms reach what is linked with them: not for an Apache-2.0 service.
REFUSED = re.compile(r"\b(AGPL|GPL)\b|Affero|(?<!Lesser )General Public License", re.I)
ALLOWED_ANYWAY = re.compile(r"LGPL|Lesser|Classpath|exception| OR ", re.I)


@dataclass(frozen=True)
class Checked:
    """`found`: a line for each known vulnerability. `unchecked`: packages nobody could ask of.
    `why`: of one of those, or of the service."""

    found: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    checked: int = 0
    why: str = ""


def read_report(report: dict[str, Any]) -> Checked:
    """pip-audit's JSON. A package it skipped is unchecked, whatever its exit code says."""
    found, unchecked, checked, why = [], [], 0, ""
    for each in report["dependencies"]:
        if "skip_reason" in each:
            unchecked.append(each["name"])
            why = why or each["skip_reason"]
            continue
        checked += 1
        found += [
            f"{each['name']} {each.get('version')}: {vuln['id']}, fixed in "
            f"{', '.join(vuln.get('fix_versions') or ['no release'])}"
            for vuln in each.get("vulns", ())
        ]
    return Checked(found, unchecked, checked, why)


def locked(lock: Path) -> list[Requirement]:
    """What the lock file pins for this platform and Python."""
    lines = (line.removesuffix("\\").strip() for line in lock.read_text().splitlines())
    pinned = [Requirement(line) for line in lines if "==" in line and line[0] not in "#-"]
    return [each for each in pinned if each.marker is None or each.marker.evaluate()]


def vulnerabilities(lock: Path) -> Checked:
    """Of every pinned package. One is asked for first: where nobody answers, two hundred questions
    would take half an hour to come to the same."""
    pinned = locked(lock)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as one:
        one.write(f"{pinned[0].name}{pinned[0].specifier}\n")
        one.flush()
        first = _ask(["--no-deps", "-r", one.name], seconds=60)
    if first.checked == 0:
        return Checked([], [each.name for each in pinned], 0, first.why)
    return _ask(["--require-hashes", "-r", str(lock)], seconds=900)


def _ask(of: list[str], *, seconds: float) -> Checked:
    command = [
        sys.executable, "-m", "pip_audit", "--disable-pip", *of,
        "-f", "json", "--progress-spinner", "off", "--timeout", "10",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return Checked(why=f"no answer within {seconds:g} s")
    try:
        return read_report(json.loads(done.stdout))
    except (ValueError, KeyError):
        said = done.stderr.strip().splitlines()
        return Checked(why=said[-1][:300] if said else f"pip-audit ended with {done.returncode}")


def not_installed(pinned: Iterable[Requirement], packages: Iterable[Distribution]) -> list[str]:
    """Pinned packages that are not here, or not as pinned: nobody has read their licences."""
    here = {canonicalize_name(each.metadata["Name"]): each.version for each in packages}
    return [
        str(each)
        for each in pinned
        if not each.specifier.contains(here.get(canonicalize_name(each.name), "-"), True)
    ]


def web_packages(lock: Path) -> list[dict[str, str]]:
    """name, version and licence of what browsers load."""
    packages = json.loads(lock.read_text())["packages"]
    return [
        {
            "name": place.removeprefix("node_modules/"),
            "version": said["version"],
            "licence": said.get("license", "not said"),
        }
        for place, said in packages.items()
        if place
    ]


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
    return [f"{', '.join(names)}: {licence}" for licence, names in found.items() if _bad(licence)]


def _bad(licence: str) -> bool:
    return any(
        REFUSED.search(part) and not ALLOWED_ANYWAY.search(part)
        for part in re.split(r"\bAND\b", licence)
    )


def bill_of_materials(to: Path, web: Iterable[dict[str, str]] = ()) -> int:
    """CycloneDX of this environment and of what browsers load; how many components it names.
    Raises CalledProcessError."""
    command = [
        sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible",
        # It checks its own output against the schema otherwise, for twenty seconds.
        "--no-validate",
        "--pyproject", str(ROOT / "pyproject.toml"), "--of", "JSON", "-o", str(to),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    bill = json.loads(to.read_text())
    for each in web:
        purl = f"pkg:npm/{each['name'].replace('@', '%40')}@{each['version']}"
        bill["components"].append(
            {
                "bom-ref": purl, "type": "library", "name": each["name"],
                "version": each["version"], "purl": purl,
                "licenses": [{"license": {"name": each["licence"]}}],
            }
        )  # fmt: skip
    to.write_text(json.dumps(bill, indent=2) + "\n")
    return len(bill["components"])


def write_licences(to: Path, web: Iterable[dict[str, str]]) -> dict[str, list[str]]:
    """Of what is installed and of what browsers load."""
    found = licences(distributions())
    for each in web:
        found.setdefault(each["licence"], []).append(f"{each['name']} (npm)")
    to.write_text("".join(f"{licence}: {', '.join(names)}\n" for licence, names in found.items()))
    return found


def main() -> int:
    BUILD.mkdir(exist_ok=True)
    pinned, web = locked(LOCK), web_packages(WEB_LOCK)
    _say(f"build/sbom.json: {bill_of_materials(BUILD / 'sbom.json', web)} components")
    by_licence = write_licences(BUILD / "licences.txt", web)
    _say(
        f"build/licences.txt: {len(by_licence)} licences; not said by {by_licence.get('not said')}"
    )
    bad, missing = refused(by_licence), not_installed(pinned, distributions())
    for line in bad:
        _say(f"licence that does not go with ours: {line}")
    if missing:
        _say(f"licences not read, as they are not installed as pinned: {', '.join(missing)}")
    _say(f"asking for known vulnerabilities of {len(pinned)} pinned packages (a minute or two) …")
    result = vulnerabilities(LOCK)
    if result.checked == 0:
        _say("SKIPPED: no package could be checked for vulnerabilities, because their service does")
        _say(f"not answer from here ({result.why or 'no reason given'}).")
        _say("Nothing was found because nothing was asked: run `make audit` where it answers.")
    else:
        for line in result.found:
            _say(f"vulnerable: {line}")
        _say(f"{result.checked} packages checked, {len(result.found)} vulnerabilities known, "
             f"{len(result.unchecked)} could not be checked")  # fmt: skip
    if bad or result.found:
        return FOUND
    return UNCHECKED if missing or result.unchecked or not result.checked else CLEAN


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
