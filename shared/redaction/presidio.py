"""Microsoft Presidio as a redactor: `redact: shared.redaction.presidio:redact`.

Not among this project's dependencies: install `presidio-analyzer`, `presidio-anonymizer` and a
spaCy model (`en_core_web_lg` unless configured otherwise) where trainer and routers run.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any


@cache
def _engines() -> tuple[Any, Any]:
    analyzer = importlib.import_module("presidio_analyzer")
    anonymizer = importlib.import_module("presidio_anonymizer")
    return analyzer.AnalyzerEngine(), anonymizer.AnonymizerEngine()


def redact(text: str) -> str:
    """English texts; entities become `<PERSON>` and the like."""
    analyzer, anonymizer = _engines()
    found = analyzer.analyze(text=text, language="en")
    return str(anonymizer.anonymize(text=text, analyzer_results=found).text)
