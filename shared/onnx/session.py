"""Serve one stage's graph with ONNX Runtime. Needs neither onnx nor scikit-learn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from shared.contracts.manifest import Stage


class InvalidStage(ValueError):
    """A graph that is not what its manifest says."""


class Scored(NamedTuple):
    """label: int64[n], index into the manifest's labels. accept: float32[n] in [0, 1]."""

    label: NDArray[np.int64]
    accept: NDArray[np.float32]


class StageSession:
    """A loaded stage. Raises InvalidStage when the graph and the manifest disagree."""

    def __init__(self, blob: bytes, stage: Stage, *, n_labels: int, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
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
        self._check(n_labels)

    def run(self, features: NDArray[np.float32]) -> Scored:
        """Label indices and accept scores of float32[n, dim] features."""
        label, accept = self._session.run(["label", "accept"], {"features": features})
        return Scored(label, accept)

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[n, k] class probabilities."""
        (values,) = self._session.run(["probabilities"], {"features": features})
        return np.asarray(values, dtype=np.float32)

    def _check(self, n_labels: int) -> None:
        inputs = [(i.name, i.type, i.shape[1:]) for i in self._session.get_inputs()]
        if inputs != [("features", "tensor(float)", [self.stage.dim])]:
            raise InvalidStage(
                f"stage {self.stage.name} takes {inputs}, "
                f"its manifest says features float[n, {self.stage.dim}]"
            )
        outputs = {o.name: o.type for o in self._session.get_outputs()}
        if outputs.get("label") != "tensor(int64)" or outputs.get("accept") != "tensor(float)":
            raise InvalidStage(f"stage {self.stage.name} gives {outputs}, not label and accept")
        try:
            trial = self.run(np.zeros((2, self.stage.dim), dtype=np.float32))
        except Exception as error:  # onnxruntime has no common base
            raise InvalidStage(f"stage {self.stage.name} cannot be run: {error}") from error
        if trial.label.shape != (2,) or trial.accept.shape != (2,):
            raise InvalidStage(f"stage {self.stage.name} does not answer row by row")
        if not (np.isfinite(trial.accept).all() and (trial.label < n_labels).all()):
            raise InvalidStage(f"stage {self.stage.name} answers outside of its labels")
