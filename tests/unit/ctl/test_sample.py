"""The sample data: repeatable, valid, with the classes the configuration knows."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from services.ctl.sample.__main__ import main
from services.ctl.sample.generator import START, TASK, generate, labels
from services.ctl.sample.grammar import Grammar, load_intents, load_phrases
from shared.contracts.events import RawTrace
from shared.contracts.tasks import load_tasks
from shared.contracts.taxonomy import Taxonomy

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return list(generate(6000))


def test_the_same_seed_gives_the_same_rows_in_any_process(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    main(["--out", str(one), "--n", "300"])
    command = [sys.executable, "-m", "services.ctl.sample", "--out", str(two), "--n", "300"]
    subprocess.run(command, check=True, cwd=ROOT, env={"PYTHONHASHSEED": "1"})
    assert one.read_bytes() == two.read_bytes()
    assert list(generate(300)) == [json.loads(line) for line in one.read_text().splitlines()]
    assert list(generate(300)) != list(generate(300, seed=8))


def test_labels_are_those_of_the_configured_task(rows: list[dict[str, Any]]) -> None:
    task = load_tasks(ROOT / "config" / "tasks.yaml")[TASK]
    assert labels() == task.labels
    assert {row["teacher"] for row in rows} == set(task.labels)
    taxonomy = Taxonomy(task)
    assert all(taxonomy.find(label) == label for label in labels())


def test_every_row_is_a_raw_trace(rows: list[dict[str, Any]]) -> None:
    traces = [msgspec.convert(row, RawTrace) for row in rows]
    assert len({trace.id for trace in traces}) == 6000
    for trace in traces:
        assert isinstance(trace.input, str)
        assert trace.input == trace.input.strip()
        assert not set("{}[]<>|") & set(trace.input), "an unexpanded template"
        assert trace.tokens is not None
        assert trace.cost is not None
        assert trace.cost > 0


def test_spread_over_the_days_in_order(rows: list[dict[str, Any]]) -> None:
    moments = [datetime.fromisoformat(row["occurred_at"]) for row in rows]
    assert moments == sorted(moments)
    per_day = Counter((moment - START).days for moment in moments)
    assert sorted(per_day) == [0, 1, 2, 3, 4]
    assert min(per_day.values()) > 1000
    later = list(generate(50, days=2, start=START + timedelta(days=100)))
    assert later[0]["occurred_at"] >= "2025-09-10"


def test_one_text_has_one_answer_and_some_texts_repeat(rows: list[dict[str, Any]]) -> None:
    answers = defaultdict(set)
    for row in rows:
        answers[row["input"]].add(row["teacher"])
    assert all(len(given) == 1 for given in answers.values())
    repeated = 1 - len(answers) / len(rows)
    assert 0.01 < repeated < 0.06


def test_classes_are_uneven_and_none_is_starved(rows: list[dict[str, Any]]) -> None:
    counts = Counter(row["teacher"] for row in rows)
    assert min(counts.values()) > 60
    assert max(counts.values()) > 3 * min(counts.values())
    assert 0.03 < counts["other"] / len(rows) < 0.09


def test_the_teacher_errs_now_and_then(rows: list[dict[str, Any]]) -> None:
    judged = [row for row in rows if "label" in row]
    assert 300 < len(judged) < 900
    wrong = sum(row["label"] != row["teacher"] for row in judged) / len(judged)
    assert 0.005 < wrong < 0.05


def test_no_template_names_a_slot_that_does_not_exist() -> None:
    phrases = load_phrases()
    grammar = Grammar(phrases, random.Random(1))
    templates = [
        template
        for intent in load_intents().values()
        for template in (*intent.asks, *intent.contexts)
    ]
    templates += [*phrases.closings, *phrases.asides, *(vague.text for vague in phrases.vague)]
    for template in templates:
        for _ in range(20):
            assert grammar.expand(template)
    known = set(load_intents())
    assert all(set(vague.labels) <= known for vague in phrases.vague)


def test_not_trivially_separable_and_better_with_more_traces(rows: list[dict[str, Any]]) -> None:
    def agreement(n: int) -> float:
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        features = words.fit_transform([row["input"] for row in rows[:n]])
        model = LinearSVC(random_state=0)
        model.fit(features, [row["teacher"] for row in rows[:n]])
        test = rows[4800:]
        answers = model.predict(words.transform([row["input"] for row in test]))
        pairs = zip(answers, test, strict=True)
        return sum(answer == row["teacher"] for answer, row in pairs) / len(test)

    few, many = agreement(800), agreement(3200)
    assert few + 0.04 < many
    assert 0.87 < many < 0.95


@pytest.mark.parametrize("arguments", [{"n": -1}, {"n": 1, "days": 0}])
def test_nonsense_is_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        list(generate(**arguments))
