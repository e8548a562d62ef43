"""Serve one stage's graph with ONNX Runtime. Needs neither onnx nor scikit-learn."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from shared.contracts.manifest import Stage
from shared.onnx.guard import check_graph
from shared.onnx.proto import InvalidGraph

# A trial of two rows takes milliseconds; one that does not end must not hold up the router.
TRIAL_SECONDS = 10.0
OUTPUTS = {
    "label": "tensor(int64)",
    "accept": "tensor(float)",
    "novelty": "tensor(float)",
    "scores": "tensor(float)",
}
_OUTPUT_NAMES = list(OUTPUTS)
_WITHOUT_SCORES = [name for name in OUTPUTS if name != "scores"]
# Scores that nobody has asked for: one number a label and row, which need not be copied.
UNASKED = np.empty((0, 0), np.float32)


class InvalidStage(ValueError):
    """A graph that is not what its manifest says."""


class StageFailed(RuntimeError):
    """A loaded graph could not be run on these rows."""


class Scored(NamedTuple):
    """label: int64[n], index into the manifest's labels. accept, novelty: float32[n] in [0, 1].
    scores: float32[n, k], or UNASKED."""

    label: NDArray[np.int64]
    accept: NDArray[np.float32]
    novelty: NDArray[np.float32]
    scores: NDArray[np.float32]


class StageSession:
    """A loaded stage. Raises InvalidStage when the graph and the manifest disagree."""

    def __init__(self, blob: bytes, stage: Stage, *, n_labels: int) -> None:
        try:
            check_graph(blob, stage, n_labels=n_labels)
        except InvalidGraph as error:
            raise InvalidStage(f"stage {stage.name} is refused: {error}") from error
        options = onnxruntime.SessionOptions()
        # The calling thread: waking another takes a third longer for one row, and pays only from 64
        # rows on, which come in parts side by side.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # swaps stay cheap and memory flat
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                blob, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has no common base
            raise InvalidStage(f"stage {stage.name} cannot be loaded: {error}") from error
        self.stage = stage
        self.n_labels = n_labels
        self._check(n_labels)

    def run(
        self,
        rows: NDArray[np.float32] | NDArray[np.int64],
        earlier: Mapping[str, NDArray[np.float32]] | None = None,
        options: Any = None,
        *,
        asked: bool = True,
    ) -> Scored:
        """`rows`: float32[n, dim] features, or int64[n, length] word pieces for a lexical stage;
        `earlier`: the scores of the stages that this one's manifest names; `options`: ONNX
        Runtime's, of this run; `asked`: for its scores. Raises StageFailed."""
        inputs = {self.stage.input: rows}
        for name in self.stage.scores_of:
            inputs[f"{name}_scores"] = (earlier or {})[name]
        try:
            said = self._session.run(_OUTPUT_NAMES if asked else _WITHOUT_SCORES, inputs, options)
        except Exception as error:  # onnxruntime has no common base
            raise StageFailed(f"stage {self.stage.name} cannot be run: {error}") from error
        return Scored(*said, *(() if asked else (UNASKED,)))

    def _check(self, n_labels: int) -> None:
        name = f"stage {self.stage.name}"
        found = {i.name: (i.type, i.shape[1:]) for i in self._session.get_inputs()}
        expected: dict[str, tuple[str, list[object]]] = {
            f"{earlier}_scores": ("tensor(float)", [n_labels]) for earlier in self.stage.scores_of
        }
        if self.stage.features == "token_ids":
            expected["token_ids"] = ("tensor(int64)", ["length"])
        else:
            expected["features"] = ("tensor(float)", [self.stage.dim])
        if found != expected:
            raise InvalidStage(f"{name} takes {found}, its manifest says {expected}")
        outputs = {o.name: o.type for o in self._session.get_outputs()}
        if any(outputs.get(output) != kind for output, kind in OUTPUTS.items()):
            raise InvalidStage(f"{name} gives {outputs}, not {OUTPUTS}")
        self._try(name, n_labels)

    def _try(self, name: str, n_labels: int) -> None:
        """Two rows of nothing; also the warm-up."""
        rows: NDArray[np.float32] | NDArray[np.int64] = np.zeros((2, self.stage.dim), np.float32)
        if self.stage.features == "token_ids":
            last = self.stage.dim - 1
            rows = np.asarray([[0, last, -1], [last, last, last]], np.int64)
        nothing = np.zeros((2, n_labels), np.float32)
        options = onnxruntime.RunOptions()
        watchdog = threading.Timer(TRIAL_SECONDS, setattr, (options, "terminate", True))
        watchdog.daemon = True
        watchdog.start()
        try:
            trial = self.run(rows, dict.fromkeys(self.stage.scores_of, nothing), options)
        except StageFailed as error:
            late = f" within {TRIAL_SECONDS:g} s" if options.terminate else ""
            raise InvalidStage(f"{name} cannot be run{late}: {error.__cause__}") from error
        finally:
            watchdog.cancel()
        if trial.label.shape != (2,) or trial.accept.shape != (2,) or trial.novelty.shape != (2,):
            raise InvalidStage(f"{name} does not answer row by row")
        if trial.scores.shape != (2, n_labels):
            raise InvalidStage(f"{name} scores {trial.scores.shape[1:]} labels, not {n_labels}")
        finite = np.isfinite(trial.accept).all() and np.isfinite(trial.novelty).all()
        if not (finite and (trial.label >= 0).all() and (trial.label < n_labels).all()):
            raise InvalidStage(f"{name} answers outside of its labels")
