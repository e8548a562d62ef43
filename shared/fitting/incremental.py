"""Incremental refits: when one may follow the last full fit, what is kept of that, and the fit.

Full refits are the default and the fallback: whatever is not surely the same as at the last full
one is a reason for the next.
"""

from __future__ import annotations

import msgspec
import numpy as np

from shared.contracts.fit_settings import FitSettings
from shared.contracts.manifest import Incremental, Source
from shared.contracts.tasks import Task
from shared.core.candidates import LEXICAL_ZOO, SEMANTIC_ZOO
from shared.core.carried import HELD_OUT, Carried, CarriedStage, FoldSays, prepare_carried
from shared.core.fit import Fit, Settings, decide
from shared.core.stages import StageFits
from shared.core.training import TrainingSet
from shared.core.types import Ints
from shared.encoder.base import Encoder
from shared.fitting.artifact import libraries
from shared.fitting.graphs import export_cascade, outputs_of, run_graphs, serve_as_onnx
from shared.fitting.horizon import Horizon, feature_kind
from shared.fitting.refit_state import HeadState, Rows, StageState, State

# With more new traces beside those known, the folds' models have seen too little of the horizon.
GROWTH = 1.3
# Settings that what is carried over does not depend on.
_FREE = {"alpha": 0.0, "delta": 0.0, "next_sample": 0.0, "label_floor": None}


def why_full(
    state: State, task: Task, horizon: Horizon, encoder: Encoder, *, windows: int
) -> str | None:
    """Why the horizon needs a full fit, None where an incremental one will do. windows: closed
    since the state's, the one to fit included."""
    if windows < 1:
        return f"window {state.window}, the last fitted in full, is not an earlier one"
    if windows >= task.full_refit_every:
        return f"{windows} windows since the last full one: full_refit_every"
    if horizon.recent is not None:
        return "a version was tripped within the horizon"
    if state.encoder != encoder.digest:
        return "another encoder"
    if state.libraries != libraries():
        return "other libraries, or another release of this code"
    changed = _changed(state.settings, FitSettings.of(task))
    if changed:
        return f"{changed} was changed"
    if state.teacher != horizon.answered_by:
        return "another teacher or another prompt"
    if state.labels != horizon.labels:
        return "other labels"
    if state.kind != feature_kind(horizon.inputs):
        return "inputs of another kind"
    known = int(state.rows.known(horizon).sum())
    if len(horizon) > GROWTH * known:
        return f"{len(horizon) - known} traces are new beside {known} known ones"
    if any(stage.candidate not in _ZOO for stage in state.stages):
        return "a scorer that this release does not know"
    return None


def settings_of(task: Task, jobs: int) -> Settings:
    """What the core needs to know of a task."""
    return Settings(
        alpha=task.alpha,
        delta=task.delta,
        kind=task.evidence,
        holdout_share=task.holdout_share,
        next_sample=task.next_sample,
        label_floor=task.label_floor,
        jobs=jobs,
    )


def fit_incrementally(
    training: TrainingSet, horizon: Horizon, state: State, settings: Settings
) -> Fit:
    """The horizon's fit with what the state carries over. Deterministic."""
    carried = Carried(
        stages=tuple(
            CarriedStage(stage.name, _ZOO[stage.candidate], stage.head.head())
            for stage in state.stages
        ),
        tried=state.tried,
        say=lambda fold, rows: _say(state, fold, rows),
    )
    folds = state.rows.folds_for(horizon)
    return decide(prepare_carried(training, folds, carried, settings, serve_as_onnx), settings)


def state_of(
    fits: StageFits,
    fitted_at: Ints,
    horizon: Horizon,
    task: Task,
    encoder: Encoder,
    *,
    since: str,
    window: str,
    source: Source,
) -> State | None:
    """What the full fit of a horizon leaves for those that follow; None with a residual stage,
    whose rows change with every fit. fitted_at: int64[n], the rows that `fits` is of."""
    if any(stage.name == "residual" for stage in fits.stages):
        return None
    kind = feature_kind(horizon.inputs)
    thresholds = [0.0] * len(fits.stages)
    exported = [
        export_cascade(cascade, fits.rows, kind, thresholds) for cascade in fits.fold_cascades
    ]
    folds = np.full(len(horizon), HELD_OUT)
    folds[fitted_at] = fits.folds
    heads = [stage.head for stage in fits.served.stages]
    return State(
        task=task.name,
        since=since,
        window=window,
        source=source,
        settings=msgspec.structs.replace(FitSettings.of(task), **_FREE),
        encoder=encoder.digest,
        teacher=horizon.answered_by,
        labels=fits.rows.labels,
        kind=kind,
        libraries=libraries(),
        stages=tuple(
            StageState(name=s.name, candidate=s.candidate.name, head=HeadState.of(head))
            for s, head in zip(fits.stages, heads, strict=True)
        ),
        tried=fits.tried,
        folds=tuple(stages for stages, _ in exported),
        blobs={name: blob for _, blobs in exported for name, blob in blobs.items()},
        rows=Rows.of(horizon, folds),
    )


def note_of(state: State) -> Incremental:
    """For the manifest: what a replay makes the state again with."""
    return Incremental(since=state.since, state=state.digest, source=state.source)


_ZOO = {candidate.name: candidate for candidate in (*LEXICAL_ZOO, *SEMANTIC_ZOO)}


def _say(state: State, fold: int, rows: TrainingSet) -> FoldSays:
    stages = state.folds[fold]
    said = run_graphs(stages, state.blobs, rows)
    return FoldSays(outputs_of(stages, said), [stage.scores for stage in said])


def _changed(then: FitSettings, now: FitSettings) -> str | None:
    """The first setting that is another."""
    for name in FitSettings.__struct_fields__:
        if name not in _FREE and getattr(then, name) != getattr(now, name):
            return name
    return None
