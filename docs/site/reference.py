"""The reference pages, made of the code and the schemas."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import typer
from prometheus_client.metrics import MetricWrapperBase
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from services.ctl.main import app
from shared.contracts.topics import load_topics
from shared.settings import ServiceSettings
from shared.telemetry import metrics as telemetry

ROOT = Path(__file__).resolve().parents[2]


_MANNERS = """\
`tracerctl COMMAND --help` says the same.

- **Results** are on standard output, with `--json` as one JSON document; errors, notes and progress
  bars on standard error. Colours and bars are left out where that is no terminal, colours also with
  `NO_COLOR=1`.
- **Exit codes**: 0 it is done; 1 it is not, or what was looked for is not so; 2 a command, an
  option or a setting cannot be used. The error says what to do.
- **Completion**: `tracerctl --install-completion` sets up the shell in use (bash, zsh, fish,
  PowerShell), `--show-completion` prints what it would write.
- **Settings** are [environment variables](settings.md), as for the services.""".splitlines()


def commands() -> str:
    """Every command of tracerctl with its arguments and options."""
    root = typer.main.get_command(app)
    lines = ["# Commands", "", *_MANNERS]
    for path, command in _commands(root, "tracerctl"):
        lines += ["", f"## {path}", "", (command.help or "").strip(), ""]
        rows = [_parameter(parameter) for parameter in command.params if parameter.name != "help"]
        lines += _table(("", "", "default"), rows) if rows else []
    return "\n".join(lines)


def _commands(group: Any, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            yield from _commands(command, f"{path} {name}")
        elif not command.hidden:
            yield f"{path} {name}", command


def _parameter(parameter: Any) -> tuple[str, ...]:
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if parameter.param_type_name == "argument":
        names = f"`{parameter.name.upper()}`"
    default = parameter.default
    shown = (
        "required" if parameter.required else "" if default in (None, False, ()) else f"`{default}`"
    )
    return names, getattr(parameter, "help", "") or "", shown


def settings() -> str:
    """Every environment variable, by service."""
    lines = [
        "# Settings",
        "",
        "Environment variables, read once at start. Secrets are masked where they are shown. What "
        "cannot be used ends the service with exit code 2 and a line that names the variables. An "
        "empty value unsets what can be None (`TRACER_TEACHER_TEMPERATURE=` sends no temperature).",
        "",
        "## Every service",
        "",
        *_settings(ServiceSettings, known=()),
    ]
    for service in _services():
        module = importlib.import_module(f"services.{service}.config")
        found = getattr(module, f"{service.capitalize()}Settings")
        lines += ["", f"## {service}", "", *_settings(found, ServiceSettings.model_fields)]
    return "\n".join(lines)


def _services() -> list[str]:
    return sorted(path.parent.name for path in ROOT.glob("services/*/config.py"))


def _settings(model: type[ServiceSettings], known: Iterable[str]) -> list[str]:
    own = {name: field for name, field in model.model_fields.items() if name not in known}
    comments = _comments(model)
    rows = [
        (f"`TRACER_{name.upper()}`", _type(field), _default(field), comments.get(name, ""))
        for name, field in own.items()
    ]
    return _table(("variable", "type", "default", ""), rows)


def _comments(model: type[Any]) -> dict[str, str]:
    """The comment above a field, or behind it."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getsource(model).splitlines():
        text = line.strip()
        if text.startswith("#"):
            above.append(text.removeprefix("#").strip())
            continue
        name, colon, rest = text.partition(":")
        if colon and name.isidentifier() and name in model.model_fields:
            _, sign, behind = rest.partition("  # ")
            found[name] = behind if sign else " ".join(above)
        above = []
    return found


def _type(field: FieldInfo) -> str:
    text = getattr(field.annotation, "__name__", None) or str(field.annotation)
    if "[" in str(field.annotation) or "|" in str(field.annotation):
        text = str(field.annotation)
    return text.replace("typing.", "").replace("pathlib.", "").replace("|", "or")


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        made = field.get_default(call_default_factory=True)
        return "made at start" if isinstance(made, str) else f"`{made}`"
    if field.default is PydanticUndefined:
        return "required"
    return "" if field.default in (None, "") else f"`{field.default}`"


def topics() -> str:
    """Topics by name, from schemas/topics."""
    lines = [
        "# Topics",
        "",
        "From `schemas/topics`; `schemas/asyncapi.yaml` has them as AsyncAPI 3.",
    ]
    for topic, spec in load_topics().items():
        lines += ["", f"## {topic.value}", "", spec.description.strip(), ""]
        rows = [
            (name, f"`{value}`") for name, value in _plain(spec).items() if name != "description"
        ]
        lines += _table(("", ""), rows)
    return "\n".join(lines)


def _plain(spec: Any) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(spec)
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        for name, value in plain.items()
        if value not in (None, [], (), "")
    }


def events() -> str:
    """The fields of every event, from its JSON Schema."""
    lines = ["# Events", "", "From `schemas/events`. Readers ignore fields they do not know."]
    for path in sorted((ROOT / "schemas" / "events").glob("*.schema.json")):
        schema = json.loads(path.read_text())
        lines += ["", f"## {path.name.removesuffix('.schema.json')}", ""]
        lines += [str(schema.get("description", "")).strip(), ""]
        lines += _fields(schema)
    return "\n".join(lines)


def _fields(schema: dict[str, Any]) -> list[str]:
    definitions = schema.get("$defs", {})
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    required = schema.get("required", [])
    rows = [
        (
            f"`{name}`",
            _kind(field),
            "yes" if name in required else "",
            _described(field, definitions),
        )
        for name, field in schema.get("properties", {}).items()
    ]
    return _table(("field", "type", "required", ""), rows)


def _kind(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return str(field["$ref"].rpartition("/")[2])
    options = field.get("anyOf") or field.get("oneOf")
    if options:
        return " or ".join(_kind(option) for option in options)
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kind = field.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _described(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    text = field.get("description") or definitions.get(_kind(field), {}).get("description", "")
    return " ".join(str(text).split())


def metrics() -> str:
    """Every metric that any service exports."""
    lines = ["# Metrics", "", "On `/metrics` of every service's health port, for Prometheus.", ""]
    found = {value for value in vars(telemetry).values() if isinstance(value, MetricWrapperBase)}
    rows = [
        (
            f"`{_exported(metric)}`",
            metric._type,
            ", ".join(metric._labelnames),
            metric._documentation,
        )
        for metric in sorted(found, key=lambda metric: metric._name)
    ]
    labels = [(f"`{label}`", bound) for label, bound in telemetry.LABELS.items()]
    return "\n".join(
        [
            *lines,
            *_table(("name", "type", "labels", ""), rows),
            "",
            "## What a label can be",
            "",
            *_table(("label", "one of"), labels),
            "",
            "The dashboard and the alerts made of them: [the runbook](../runbook.md).",
            "",
            "The dashboard and the alerts made of them: [the runbook](../runbook.md).",
        ]
    )


def _exported(metric: MetricWrapperBase) -> str:
    return f"{metric._name}_total" if metric._type == "counter" else metric._name


def core() -> str:
    """The core's public functions, drawn by mkdocstrings."""
    modules = (
        "shared.core.gate", "shared.core.policies", "shared.core.fit", "shared.core.live",
        "shared.core.shares", "shared.core.slices", "shared.core.window",
    )  # fmt: skip
    lines = [
        "# The core",
        "",
        "Importable and usable alone: numpy, scipy, scikit-learn, nothing else.",
    ]
    return "\n".join([*lines, *(f"\n::: {module}" for module in modules)])


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    def line(cells: tuple[str, ...]) -> str:
        return (
            "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
        )

    return [line(head), "|" + "---|" * len(head), *(line(row) for row in rows)]


PAGES: dict[str, Callable[[], str]] = {
    "commands": commands,
    "settings": settings,
    "topics": topics,
    "events": events,
    "metrics": metrics,
    "core": core,
}
