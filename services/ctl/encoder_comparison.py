"""How two encoders differ: in numbers, in speed, and in what a classifier makes of them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from shared.encoder.base import Encoder, Matrix

FOLDS = 5
_C = 30.0


class UnusableData(ValueError):
    """The rows cannot be compared on; the message names file and line."""


@dataclass(frozen=True, slots=True)
class Rows:
    texts: list[str]
    labels: list[str]


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """One encoder on the rows; `agreement` is the cross-validated share of labels matched."""

    folder: str
    digest: str
    precision: str
    texts_per_second: float
    texts_per_cpu_second: float
    agreement: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """`cosine_*` are of the two embeddings of one text; None when the dimensions differ.

    `same_label` is the share of rows for which both classifiers give the same label.
    """

    rows: int
    labels: int
    a: Speed
    b: Speed
    cosine_min: float | None
    cosine_mean: float | None
    same_label: float


def read_rows(path: Path, limit: int | None) -> Rows:
    """`input` and `teacher` (or else `label`) of each line, evenly thinned to `limit` rows.

    Pairs are joined with a space. Raises UnusableData.
    """
    texts, labels = [], []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                text, label = row["input"], row.get("teacher") or row["label"]
            except (ValueError, KeyError, TypeError) as error:
                raise UnusableData(
                    f"{path}:{number}: needs `input` and `teacher` or `label` ({error!r})"
                ) from error
            texts.append(" ".join(text) if isinstance(text, list) else str(text))
            labels.append(str(label))
    if limit is not None and limit < len(texts):
        kept = np.linspace(0, len(texts) - 1, limit).astype(int).tolist()
        texts, labels = [texts[row] for row in kept], [labels[row] for row in kept]
    return Rows(*_enough_of_each(texts, labels, path))


def compare(encoders: Sequence[tuple[Path, Encoder, str]], rows: Rows) -> Comparison:
    """Encode the rows with both and cross-validate a logistic regression (C = 30) on each.

    `encoders`: two of (folder, encoder, precision).
    """
    (speed_a, a, labels_a), (speed_b, b, labels_b) = (
        _measure(folder, encoder, precision, rows) for folder, encoder, precision in encoders
    )
    cosines = (a * b).sum(axis=1) if a.shape == b.shape else None
    return Comparison(
        rows=len(rows.texts),
        labels=len(set(rows.labels)),
        a=speed_a,
        b=speed_b,
        cosine_min=None if cosines is None else float(cosines.min()),
        cosine_mean=None if cosines is None else float(cosines.mean()),
        same_label=float((labels_a == labels_b).mean()),
    )


def _measure(
    folder: Path, encoder: Encoder, precision: str, rows: Rows
) -> tuple[Speed, Matrix, np.ndarray[tuple[int], np.dtype[np.str_]]]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    encoder.encode(rows.texts[:32])  # warm up
    begun, cpu_begun = time.perf_counter(), time.process_time()
    embeddings = encoder.encode(rows.texts)
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu_begun
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    labels = np.array(rows.labels)
    model = LogisticRegression(C=_C, max_iter=1000)
    predicted = cross_val_predict(model, embeddings, labels, cv=folds)
    speed = Speed(
        folder=str(folder),
        digest=encoder.digest,
        precision=precision,
        texts_per_second=len(rows.texts) / seconds,
        texts_per_cpu_second=len(rows.texts) / cpu_seconds,
        agreement=float((predicted == labels).mean()),
    )
    return speed, embeddings, predicted


def _enough_of_each(texts: list[str], labels: list[str], path: Path) -> tuple[list[str], list[str]]:
    """Labels with fewer rows than folds cannot be in every fold; their rows are left out."""
    names, counts = np.unique(labels, return_counts=True)
    frequent = set(names[counts >= FOLDS].tolist())
    if len(frequent) < 2:
        raise UnusableData(f"{path}: fewer than two labels have {FOLDS} rows or more")
    kept = [row for row, label in enumerate(labels) if label in frequent]
    return [texts[row] for row in kept], [labels[row] for row in kept]
