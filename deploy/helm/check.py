"""`make helm-check`: the chart renders, and what it renders is what Kubernetes takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from deploy.helm.toolbox import KUBERNETES_VERSION, Unavailable, helm, kubernetes_schemas

CHART = Path(__file__).parent / "tracer"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
# Of operators whose definitions are not at hand; the tests look at their fields.
UNCHECKED = {("monitoring.coreos.com/v1", "PodMonitor")}

_AGAINST = ("--kube-version", KUBERNETES_VERSION)

Resource = dict[str, Any]


class Refused(Exception):
    """What helm said of the chart or its values."""


def render(values: Path, *settings: str) -> list[Resource]:
    """The chart's resources. Raises Refused, Unavailable."""
    chosen = [part for setting in settings for part in ("--set", setting)]
    text = _helm("template", "tracer", str(CHART), *_AGAINST, "--values", str(values), *chosen)
    return [resource for resource in yaml.safe_load_all(text) if resource]


def lint(values: Path) -> None:
    """Raises Refused, Unavailable."""
    _helm("lint", "--strict", "--quiet", str(CHART), *_AGAINST, "--values", str(values))


def problems(resource: Resource) -> list[str]:
    """What Kubernetes would refuse about it; empty: nothing. Raises Unavailable."""
    key = (resource.get("apiVersion", ""), resource.get("kind", ""))
    if key in UNCHECKED:
        return []
    name = f"{key[1]} {resource.get('metadata', {}).get('name')}"
    schema = kubernetes_schemas().get(key)
    if schema is None:
        return [f"{name}: Kubernetes knows no {key[1]} in {key[0]}"]
    found = []
    for error in Draft202012Validator(schema).iter_errors(resource):
        error = best_match([error]) or error
        found.append(f"{name}: {error.json_path}: {error.message}")
    return found


def _helm(*arguments: str) -> str:
    done = subprocess.run(
        [helm(), *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise Refused((done.stderr + done.stdout).strip())
    return done.stdout


def main() -> int:
    failed = False
    try:
        for values in VALUES:
            lint(values)
            resources = render(values)
            wrong = [problem for resource in resources for problem in problems(resource)]
            failed = failed or bool(wrong)
            print(f"{values.name}: {len(resources)} resources, {len(wrong)} problems")
            print("\n".join(wrong), end="\n" if wrong else "")
    except (Unavailable, Refused) as error:
        print(error, file=sys.stderr)
        return 1
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
