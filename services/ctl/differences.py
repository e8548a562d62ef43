"""The first difference between two artifacts, said so that a person knows where to look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import numpy_helper

from shared.contracts.manifest import Manifest
from shared.registry.base import Artifact

# Causes before effects: where a cause differs, the rest had to.
_CAUSES = (
    "encoder",
    "libraries",
    "settings",
    "source",
    "n_traces",
    "traces_sha256",
    "teacher",
    "incremental",
)
_EFFECTS = ("labels", "deferred_labels", "candidates", "families", "stages", "certificate")
_SHOWN = 60
# What to do about a cause.
HINTS = {
    "libraries": "; a replay needs the same versions (docs/replay.md)",
    "n_traces": "; does the range begin before all of its horizon (--from)?",
}


def first_difference(then: Artifact, now: Artifact) -> str | None:
    """None where they are equal, byte for byte. Of a manifest's field its path and both values; of
    a graph the tensor, the row and both numbers."""
    if then.manifest_bytes == now.manifest_bytes and dict(then.blobs) == dict(now.blobs):
        return None
    return _of_manifests(then, now) or "the manifests' bytes, though not what they say"


def _of_manifests(then: Artifact, now: Artifact) -> str | None:
    before, after = _plain(then.manifest), _plain(now.manifest)
    rest = [name for name in before | after if name not in (*_CAUSES, *_EFFECTS)]
    for name in (*_CAUSES, *_EFFECTS, *rest):
        for path, was, became in _leaves(name, before.get(name), after.get(name)):
            if path.endswith(".blob"):
                stage = int(path.split("[")[1].split("]")[0])
                return _of_graphs(then, now, stage)
            return f"{path}: {_short(was)} then, {_short(became)} now{HINTS.get(name, '')}"
    return None


def _leaves(path: str, then: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """Where two JSON values differ, in order; blobs of a stage before what follows from them."""
    if then == now:
        return
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in sorted({*then, *now}):
            yield from _leaves(f"{path}.{key}", then.get(key), now.get(key))
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for i, (was, became) in enumerate(zip(then, now, strict=True)):
            yield from _leaves(f"{path}[{i}]", was, became)
    else:
        yield path, then, now


def _of_graphs(then: Artifact, now: Artifact, stage: int) -> str:
    """Two graphs of the same stage."""
    name = then.manifest.stages[stage].name
    graphs = [
        onnx.load_from_string(artifact.blobs[artifact.manifest.stages[stage].blob]).graph
        for artifact in (then, now)
    ]
    before, after = ({t.name: numpy_helper.to_array(t) for t in g.initializer} for g in graphs)
    where = f"stages[{stage}] ({name}), its graph"
    for tensor in sorted({*before, *after}):
        if tensor not in before or tensor not in after:
            return f"{where}: tensor {tensor} is only in the one of {_which(tensor in before)}"
        a, b = before[tensor], after[tensor]
        if a.shape != b.shape:
            return f"{where}: tensor {tensor} is {a.shape} then, {b.shape} now"
        places = np.argwhere(a != b)
        if len(places):
            at = tuple(places[0].tolist())
            return (
                f"{where}: tensor {tensor}, row {list(at)}: {a[at]!r} then, {b[at]!r} now; "
                f"{len(places)} of {a.size} numbers differ"
            )
    for i, (a, b) in enumerate(zip(*(g.node for g in graphs), strict=False)):
        if a != b:
            return f"{where}: node {i}, {a.op_type} then, {b.op_type} now"
    return f"{where}: its bytes, though not its tensors or nodes"


def _plain(manifest: Manifest) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(manifest))
    return document


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _which(then: bool) -> str:
    return "then" if then else "now"
