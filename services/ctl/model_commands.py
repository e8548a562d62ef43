"""`tracerctl status` and `models`: what is served, what is tried, and what was."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import typer

from services.ctl.output import console, print_json, print_table
from services.ctl.registry_access import Json, TaskArgument, open_registry, plain
from services.ctl.serving_commands import retire
from services.ctl.tasks_file import tasks_in
from shared.clock import SystemClock
from shared.contracts.spending import LedgerAway, Spent, left
from shared.contracts.tasks import Budget, Task
from shared.core.live import LiveCertificate
from shared.registry.base import Registry, State
from shared.registry.fit_note import FitNote
from shared.registry.ledger import RedisLedger, open_ledger
from shared.settings import ServiceSettings

app = typer.Typer(help="Versions of a task: list, show, retire.", no_args_is_help=True)
app.command()(retire)

_BUDGET_NOTES = {
    "waiting": "the budget for the day is used up; requests wait until the day ends.",
    "unavailable": "the budget for the day is used up; requests are answered 'unavailable'.",
    "unknown": "what is spent cannot be read from Redis.",
    "uncounted": "nothing is counted in Redis today: no call was made, or teachers count for "
    "themselves (TRACER_TEACHER_BUDGET_STORE=memory).",
}
_SILENT = tuple(state.value for state in State if state is not State.SERVING)


def status(json: Json = False) -> None:
    """Every task, its active version, what that is certified for and how it does."""
    with open_registry() as (registry, settings):
        tasks = tasks_in(settings.tasks)
        rows = [_status(registry, task) for task in tasks.values()]
        spent = _budgets(settings, tasks.values())
        for row in rows:
            row["budget"] = spent.get(row["task"])
    if json:
        print_json(rows)
        return
    print_table(
        "tasks",
        ["task", "α", "active version", "state", "certified coverage", "agreement ≥", "audits",
         "on trial", "versions", "last fit", "budget today"],
        [
            (r["task"], r["alpha"], r["active"] or "none", r["state"] or "",
             _percent(r["coverage"]), r["agreement_lower"] or "", _audited(r["audits"]),
             _tried(r["trial"]), r["versions"], _fitted(r["last_fit"]), _budgeted(r["budget"]))
            for r in rows
        ],
    )  # fmt: skip
    for row in rows:
        if row["last_fit"] and row["last_fit"]["verdict"] == "failed":
            console.print(
                f"{row['task']}: {row['last_fit']['reason']}. The next window tries again."
            )
    for row in rows:
        if row["budget"] and row["budget"]["state"] in _BUDGET_NOTES:
            console.print(f"{row['task']}: {_BUDGET_NOTES[row['budget']['state']]}")
    if any(row["active"] is None for row in rows):
        console.print("Without an active version everything is deferred to the teacher.")
    if any(row["state"] in _SILENT for row in rows):
        console.print("A version that is not serving answers nothing; the teacher does.")


@app.command("list")
def list_versions(task: TaskArgument, json: Json = False) -> None:
    """The stored versions of a task, oldest first, and what happened to them."""
    with open_registry() as (registry, _):
        active = registry.active(task)
        versions = [_version(registry, task, v, active.version) for v in registry.versions(task)]
        history = [plain(entry) for entry in registry.history(task)]
    if json:
        print_json({"task": task, "active": active.version, "versions": versions,
                    "history": history})  # fmt: skip
        return
    print_table(
        f"versions of {task}",
        ["version", "active", "traces", "α", "coverage", "agreement ≥"],
        [
            (v["version"], "●" if v["active"] else "", v["n_traces"], v["alpha"],
             _percent(v["coverage"]), round(v["agreement_lower"], 4))
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


def _status(registry: Registry, task: Task) -> dict[str, Any]:
    active = registry.active(task.name)
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
        "versions": len(registry.versions(task.name)),
        "last_fit": _last_fit(registry.last_fit(task.name)),
    }
    if active.trial:
        trial = active.trial
        row["trial"] = {**asdict(trial), "audits": _audits(registry, task, trial.version)}
    if active.version:
        certificate = registry.load(task.name, active.version).manifest.certificate
        row |= {
            "coverage": round(certificate.coverage, 4),
            "agreement_lower": round(certificate.agreement_lower, 4),
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
        "agreement_lower": round(live.lower, 4) if outcomes else None,
        "e_value": round(min(live.e_value, 1e12), 4),
    }


def _budgets(settings: ServiceSettings, tasks: Iterable[Task]) -> dict[str, dict[str, Any]]:
    """Of each task that has one: what its teacher may spend today, has spent, and what follows.

    Of states, `unknown`: the ledger cannot be read; `uncounted`: it has nothing of today, because
    no call was made or because teachers count in their own memory.
    """
    found = {}
    ledger = open_ledger(settings.redis_url.get_secret_value(), settings.topic_prefix)
    with closing(ledger):
        for task in tasks:
            if task.budget is not None:
                found[task.name] = _budget(task, task.budget, ledger)
    return found


def _budget(task: Task, budget: Budget, ledger: RedisLedger) -> dict[str, Any]:
    day = SystemClock().now().astimezone(ZoneInfo(task.timezone)).date()
    said: dict[str, Any] = {
        "day": day.isoformat(),
        "usd_per_day": budget.usd_per_day,
        "calls_per_day": budget.calls_per_day,
    }
    try:
        spent = ledger.spent(task.name, day)
    except LedgerAway:
        return said | {"usd": None, "calls": None, "left": None, "state": "unknown"}
    if spent == Spent():
        return said | {"usd": 0.0, "calls": 0, "left": None, "state": "uncounted"}
    share = max(0.0, left(budget, spent))
    used_up = {"wait": "waiting", "unavailable": "unavailable"}[budget.when_used_up]
    return said | {
        "usd": round(spent.usd, 6),
        "calls": spent.calls,
        "left": round(share, 4),
        "state": "open" if share > 0 else used_up,
    }


def _budgeted(budget: dict[str, Any] | None) -> str:
    if budget is None:
        return ""
    if budget["left"] is None:
        return str(budget["state"])
    parts = []
    if budget["usd_per_day"] is not None:
        parts.append(f"${budget['usd']:.2f} of ${budget['usd_per_day']:.2f}")
    if budget["calls_per_day"] is not None:
        parts.append(f"{budget['calls']} of {budget['calls_per_day']} calls")
    return f"{', '.join(parts)}; {_percent(budget['left'])} left"


def _last_fit(note: FitNote | None) -> dict[str, Any] | None:
    return None if note is None else msgspec.to_builtins(note)


def _fitted(note: dict[str, Any] | None) -> str:
    return "" if note is None else f"{note['verdict']}, {note['window']}"


def _version(registry: Registry, task: str, version: str, active: str | None) -> dict[str, Any]:
    manifest = registry.load(task, version).manifest
    return {
        "version": version,
        "active": version == active,
        "window": manifest.window,
        "n_traces": manifest.n_traces,
        "alpha": manifest.certificate.alpha,
        "coverage": round(manifest.certificate.coverage, 4),
        "agreement_lower": manifest.certificate.agreement_lower,
    }


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _audited(audits: dict[str, Any] | None) -> str:
    if not audits or not audits["n"]:
        return ""
    lower = _percent(audits["agreement_lower"])
    return f"{audits['n']}, {_percent(audits['agreement'])} agree (≥ {lower})"


def _tried(trial: dict[str, Any] | None) -> str:
    if not trial:
        return ""
    share = f" {trial['share']:.0%}" if trial["mode"] == "canary" else ""
    audited = _audited(trial["audits"])
    return f"{trial['version']} ({trial['mode']}{share}{', ' if audited else ''}{audited})"
