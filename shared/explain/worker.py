"""`python -m shared.explain.worker`: answers questions on stdin, one after another, on stdout.

A process of its own, so that the console needs no model in its memory, and neither a long text nor
a damaged graph can hold its pages up. It ends when its stdin does, or when nobody has asked for a
while: the model takes some 300 MB.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from shared.contracts.tasks import InvalidTasks, load_tasks
from shared.explain.wire import Answered, Asked, Fault, failed
from shared.registry.base import RegistryError, UnknownVersion
from shared.registry.redis import connect
from shared.registry.trust import Trust
from shared.settings import ServiceSettings
from shared.telemetry.log import configure_logging

log = logging.getLogger(__name__)

IDLE_SECONDS = 600.0
EXTRA = "tracer-kafka[explain]"

Answer = Callable[[Asked], Answered]


class ExplainSettings(ServiceSettings):
    """`encoder`: the artifact of the routers and the trainer; `store`: the trainer's windows."""

    encoder: Path = Path("data/encoder")
    store: str = "data/windows"


def answering(settings: ExplainSettings, scratch: Path) -> Answer:
    """What answers a question; embeddings of stored traces are remembered in `scratch`. Whatever is
    missing is said in the answer: this returns in any case."""
    try:
        # Here, because where the extra is not installed that is an answer too.
        from shared.encoder.cache import CachedEncoder
        from shared.encoder.errors import EncoderError
        from shared.explain.asking import Explainer, Question, Unanswerable, open_encoder
    except ModuleNotFoundError as error:
        problem = f"{error.name} is not installed: texts are explained where {EXTRA} is"
        return lambda _: failed(Fault.PLACE, problem)
    try:
        tasks = load_tasks(settings.tasks)
        pieces, encoder, lacking = open_encoder(
            settings.encoder, lambda made: CachedEncoder(made, scratch / "embeddings.sqlite")
        )
    except (InvalidTasks, EncoderError) as error:
        problem = f"{error}. TRACER_ENCODER names the folder of the routers' encoder."
        return lambda _: failed(Fault.PLACE, problem)
    registry = connect(settings.redis_url.get_secret_value(), trust=Trust(settings.trusted_keys))
    explainer = Explainer(registry, pieces, encoder, settings.store, lacking)

    def answer(asked: Asked) -> Answered:
        task = tasks.get(asked.task)
        if task is None:
            return failed(Fault.QUESTION, f"there is no task {asked.task!r}")
        try:
            return Answered(found=explainer.answer(Question(task, asked.texts, asked.version)))
        except Unanswerable as error:
            return failed(Fault.QUESTION, str(error))
        except UnknownVersion as error:
            return failed(Fault.VERSION, str(error))
        except RegistryError as error:
            return failed(Fault.PLACE, str(error))

    return answer


def serve(answer: Answer, questions: int, answers: int, *, idle: float) -> None:
    """Until `questions` (a file descriptor) ends, or none has come for `idle` seconds. Who asks
    waits for the answer before asking again, so that a line never waits in a buffer."""
    with os.fdopen(questions, "rb") as asked, os.fdopen(answers, "wb") as told:
        while select.select([asked], [], [], idle)[0]:
            line = asked.readline()
            if not line:
                return
            told.write(msgspec.json.encode(answer(msgspec.json.decode(line, type=Asked))) + b"\n")
            told.flush()


def main() -> int:
    settings = ExplainSettings()
    configure_logging("explain", settings.log_level)
    # Answers alone are on stdout: what a library prints goes where logs go.
    answers = os.dup(1)
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory(prefix="tracer-explain-") as scratch:
        serve(answering(settings, Path(scratch)), os.dup(0), answers, idle=IDLE_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
