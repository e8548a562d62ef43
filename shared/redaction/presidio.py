"""Microsoft Presidio as a redactor: `redact: shared.redaction.presidio:redact`.

Needs the extra `tracer-kafka[presidio]` and a spaCy model where trainer, routers and whoever
explains run. The model is `en_core_web_lg`, or what the file that `NLP_CONF_FILE` names says: the
same YAML, by the same name, as Presidio's own server reads. It is never downloaded here.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import Any

# Here, so that a service without it does not start, rather than failing at its first text.
_analyzer = importlib.import_module("presidio_analyzer")
_nlp = importlib.import_module("presidio_analyzer.nlp_engine")
_anonymizer = importlib.import_module("presidio_anonymizer")

LANGUAGE = "en"
CONFIGURATION = "NLP_CONF_FILE"


class NoModel(RuntimeError):
    """The spaCy model that is configured is not installed."""


def redact(text: str) -> str:
    """English texts; entities become `<PERSON>` and the like. Raises NoModel."""
    analyzer, anonymizer = _engines()
    found = analyzer.analyze(text=text, language=LANGUAGE)
    return str(anonymizer.anonymize(text=text, analyzer_results=found).text)


@cache
def _engines() -> tuple[Any, Any]:
    provider = _nlp.NlpEngineProvider(conf_file=os.environ.get(CONFIGURATION) or None)
    for model in provider.nlp_configuration["models"]:
        name = model["model_name"]
        # Presidio would download it, from a host that production does not reach.
        if isinstance(name, str) and not importlib.util.find_spec(name) and not Path(name).is_dir():
            raise NoModel(
                f"the spaCy model {name} is not installed: install it, or name another one in the "
                f"file that {CONFIGURATION} names"
            )
    analyzer = _analyzer.AnalyzerEngine(
        nlp_engine=provider.create_engine(), supported_languages=[LANGUAGE]
    )
    return analyzer, _anonymizer.AnonymizerEngine()
