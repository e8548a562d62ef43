"""What checks the chart: helm itself, built by Go, and Kubernetes' own schemas from Go modules.

Both come through Go's module proxy, so that a machine needs neither a cluster nor a download page.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from shared.encoder.lock import locked

HELM = "helm.sh/helm/v3/cmd/helm@v3.19.0"
KUBERNETES = "sigs.k8s.io/kubectl-validate@v0.0.4"
KUBERNETES_VERSION = "1.30"  # the newest in that module
KEDA = "github.com/kedacore/keda/v2@v2.17.2"

_ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 600


class Unavailable(Exception):
    """A tool that this machine can neither find nor build; says why."""


def cache_folder() -> Path:
    return Path(os.environ.get("TRACER_CACHE", _ROOT / ".cache")) / "tools"


def helm() -> Path:
    """The helm of HELM's version, built once. Raises Unavailable."""
    built = cache_folder() / "bin" / "helm"
    with locked(built):
        if not built.exists():
            _go("install", HELM, environment={"GOBIN": str(built.parent)})
    return built


def kubernetes_schemas() -> dict[tuple[str, str], dict[str, Any]]:
    """JSON Schema by (apiVersion, kind). Unknown fields are errors, as for kubeconform -strict.
    Raises Unavailable."""
    return _schemas(_module(KUBERNETES), _module(KEDA))


@cache
def _schemas(kubernetes: Path, keda: Path) -> dict[tuple[str, str], dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    folder = kubernetes / "pkg" / "openapiclient" / "builtins" / KUBERNETES_VERSION
    for file in sorted(folder.rglob("*.json")):
        document = json.loads(file.read_text())
        schemas = {name: _strict(schema) for name, schema in _components(document).items()}
        for name, schema in schemas.items():
            for kind in schema.get("x-kubernetes-group-version-kind", ()):
                version = "/".join(part for part in (kind["group"], kind["version"]) if part)
                root = {"$ref": f"#/components/schemas/{name}"}
                found[version, kind["kind"]] = root | {"components": {"schemas": schemas}}
    for file in sorted((keda / "config" / "crd" / "bases").glob("keda.sh_*.yaml")):
        definition = yaml.safe_load(file.read_text())["spec"]
        for version in definition["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            kind = definition["names"]["kind"]
            found[f"{definition['group']}/{version['name']}", kind] = _strict(schema)
    return found


def _components(document: dict[str, Any]) -> dict[str, Any]:
    components: dict[str, Any] = document.get("components", {}).get("schemas", {})
    return components


def _strict(schema: Any) -> Any:
    """Objects with named fields take no others."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: _strict(part) for name, part in schema.items()}
    closed = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields")
    if closed and "additionalProperties" not in schema and not open_ended:
        strict["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        strict.pop("type", None)
    return strict


def _module(name: str) -> Path:
    """The folder of a Go module in Go's own cache."""
    return Path(json.loads(_go("mod", "download", "-json", name))["Dir"])


def _go(*arguments: str, environment: dict[str, str] | None = None) -> str:
    go = shutil.which("go")
    if go is None:
        raise Unavailable("go is not installed: it builds helm and fetches Kubernetes' schemas")
    try:
        done = subprocess.run(
            [go, *arguments],
            cwd=cache_folder() if cache_folder().exists() else None,
            env=os.environ | {"GOFLAGS": "-mod=mod"} | (environment or {}),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"go {arguments[0]} took more than {_SECONDS} seconds") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(f"go {arguments[0]} failed: {said[-1] if said else 'it said nothing'}")
    return done.stdout
