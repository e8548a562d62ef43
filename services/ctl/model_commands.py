"""`tracerctl status` and `models`: what is served, what is tried, and what was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec
import typer

from services.ctl.budgets import BUDGET_NOTES, budgeted, budgets_today
from services.ctl.output import console, fail, percent, print_json, print_table
from services.ctl.registry_access import Json, TaskArgument, open_registry, plain
from services.ctl.serving_commands import retire
from services.ctl.tasks_file import tasks_in
from shared.contracts.manifest import Manifest
from shared.contracts.tasks import Task
from shared.core.live import LiveCertificate
from shared.registry.base import Registry, RegistryError, State, UnknownVersion
from shared.registry.fit_note import FitNote
from shared.registry.glances import Glance, RegistryGlances
from shared.rounding import at_least, down

app = typer.Typer(help="Versions of a task: list, show, retire.", no_args_is_help=True)
app.command()(retire)

_NOT_BELIEVED = "not believed"
_SILENT = tuple(state.value for state in State if state is not State.SERVING)


def status(json: Json = False) -> None:
    """Every task, its active version, what that is certified for and how it does.

    Exit code 1: an active version is not to be believed, or cannot be read.
    """
    with open_registry() as (registry, settings):
        tasks = tasks_in(settings.tasks)
        glances = RegistryGlances(registry).glance(list(tasks))
        rows = [
            _status(registry, task, glance)
            for task, glance in zip(tasks.values(), glances, strict=True)
        ]
        spent = budgets_today(settings, tasks.values())
        for row in rows:
            row["budget"] = spent.get(row["task"])
    if json:
        print_json(rows)
    else:
        _show_status(rows)
    _fail_for([f"{row['task']}: {row['damage']}" for row in rows if row["damage"]])


def _show_status(rows: list[dict[str, Any]]) -> None:
    print_table(
        "tasks",
        ["task", "α", "active version", "state", "certified coverage", "agreement ≥", "audits",
         "on trial", "versions", "last fit", "budget today"],
        [
            (r["task"], r["alpha"], r["active"] or "none", r["state"] or "",
             _NOT_BELIEVED if r["damage"] else percent(r["coverage"]),
             r["agreement_lower"] or "", _audited(r["audits"]),
             _tried(r["trial"]), r["versions"], _fitted(r["last_fit"]), budgeted(r["budget"]))
            for r in rows
        ],
    )  # fmt: skip
    for row in rows:
        if row["last_fit"] and row["last_fit"]["verdict"] == "failed":
            console.print(
                f"{row['task']}: {row['last_fit']['reason']}. The next window tries again."
            )
    for row in rows:
        if row["budget"] and row["budget"]["state"] in BUDGET_NOTES:
            console.print(f"{row['task']}: {BUDGET_NOTES[row['budget']['state']]}")
    if any(row["active"] is None for row in rows):
        console.print("Without an active version everything is deferred to the teacher.")
    if any(row["state"] in _SILENT for row in rows):
        console.print("A version that is not serving answers nothing; the teacher does.")


@app.command("list")
def list_versions(task: TaskArgument, json: Json = False) -> None:
    """The stored versions of a task, oldest first, and what happened to them.

    Exit code 1: one of them is not to be believed, or cannot be read.
    """
    with open_registry() as (registry, _):
        active = registry.active(task)
        stored = registry.versions(task)
        found = RegistryGlances(registry).manifests(task, stored)
        versions = [
            _version(v, found.get(v, UnknownVersion(f"{v} has no manifest")), active.version)
            for v in stored
        ]
        history = [plain(entry) for entry in registry.history(task)]
    if json:
        print_json({"task": task, "active": active.version, "versions": versions,
                    "history": history})  # fmt: skip
    else:
        _show_versions(task, versions, history)
    _fail_for([version["damage"] for version in versions if version["damage"]])


def _show_versions(
    task: str, versions: list[dict[str, Any]], history: list[dict[str, Any]]
) -> None:
    print_table(
        f"versions of {task}",
        ["version", "active", "traces", "α", "coverage", "agreement ≥"],
        [
            (v["version"], "●" if v["active"] else "", v["n_traces"] or "", v["alpha"] or "",
             _NOT_BELIEVED if v["damage"] else percent(v["coverage"]),
             "" if v["damage"] else down(v["agreement_lower"], 4))
            for v in versions
        ],
    )  # fmt: skip
    print_table(
        "history, newest first",
        ["at", "what", "version", "before", "reason"],
        [(h["at"], h["kind"], h["version"] or "none", h["previous"] or "", h["reason"])
         for h in history],
    )  # fmt: skip


@app.command()
def show(task: TaskArgument, version: str) -> None:
    """The manifest of a version, as JSON. Its SHA-256s are checked."""
    with open_registry() as (registry, _):
        manifest = registry.load(task, version).manifest_bytes
    typer.echo(manifest.decode())


def _fail_for(damage: Sequence[str]) -> None:
    """After everything was shown: a version that is not believed hides no other."""
    if damage:
        fail(f"{'; '.join(damage)}. Routers refuse that, too: TracerVersionRejected in the runbook")


def _status(registry: Registry, task: Task, glance: Glance) -> dict[str, Any]:
    active = glance.active
    task = msgspec.structs.replace(task, alpha=active.asked(task.alpha))
    row: dict[str, Any] = {
        "task": task.name,
        "alpha": task.alpha,
        "active": active.version,
        "epoch": active.epoch,
        "state": active.state.value if active.version else None,
        "audits": _audits(registry, task, active.version) if active.version else None,
        "trial": None,
        "coverage": None,
        "agreement_lower": None,
        "damage": glance.damage,
        "versions": len(glance.versions),
        "last_fit": _last_fit(registry.last_fit(task.name)),
    }
    if active.trial:
        trial = active.trial
        row["trial"] = {**asdict(trial), "audits": _audits(registry, task, trial.version)}
    if glance.manifest:
        certificate = glance.manifest.certificate
        row |= {
            "coverage": round(certificate.coverage, 4),
            "agreement_lower": down(certificate.agreement_lower, 4),
        }
    return row


def _audits(registry: Registry, task: Task, version: str) -> dict[str, Any]:
    """How many audits the version has, the share of them that agree, and what that share is at
    least, at the task's δ and whenever one looks (None without any)."""
    outcomes = registry.audits(task.name, version)
    live = LiveCertificate(task.alpha, task.delta)
    live.observe_all(outcomes)
    return {
        "n": live.n,
        "agreement": round(live.agreement, 4) if outcomes else None,
        "agreement_lower": down(live.lower, 4) if outcomes else None,
        "e_value": round(min(live.e_value, 1e12), 4),
    }


def _last_fit(note: FitNote | None) -> dict[str, Any] | None:
    return None if note is None else msgspec.to_builtins(note)


def _fitted(note: dict[str, Any] | None) -> str:
    return "" if note is None else f"{note['verdict']}, {note['window']}"


def _version(version: str, found: Manifest | RegistryError, active: str | None) -> dict[str, Any]:
    """`found`: its manifest, or why it is not believed."""
    row: dict[str, Any] = {"version": version, "active": version == active, "damage": None}
    if isinstance(found, RegistryError):
        nothing = dict.fromkeys(("window", "n_traces", "alpha", "coverage", "agreement_lower"))
        return row | nothing | {"damage": str(found)}
    return row | {
        "window": found.window,
        "n_traces": found.n_traces,
        "alpha": found.certificate.alpha,
        "coverage": round(found.certificate.coverage, 4),
        "agreement_lower": found.certificate.agreement_lower,
    }


def _audited(audits: dict[str, Any] | None) -> str:
    if not audits or not audits["n"]:
        return ""
    lower = at_least(audits["agreement_lower"])
    return f"{audits['n']}, {percent(audits['agreement'])} agree (≥ {lower})"


def _tried(trial: dict[str, Any] | None) -> str:
    if not trial:
        return ""
    share = f" {trial['share']:.0%}" if trial["mode"] == "canary" else ""
    audited = _audited(trial["audits"])
    return f"{trial['version']} ({trial['mode']}{share}{', ' if audited else ''}{audited})"
