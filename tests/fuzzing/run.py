"""Coverage-guided search for bytes that break a target, by atheris (libFuzzer).

    python -m tests.fuzzing.run codecs --seconds 60

A find ends it with exit code 77 and is written to tests/fuzzing/corpus/<target>/, where the tests
replay it ever after.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

READERS = [
    "shared.contracts", "shared.onnx", "shared.registry", "shared.http", "shared.bus",
    "shared.rejecting", "shared.core.window", "shared.sources", "services.ingest",
    "services.router", "services.teacher", "services.trainer.handlers",
]  # fmt: skip
with atheris.instrument_imports(include=READERS, enable_loader_override=False):
    from tests.fuzzing.mutating import mutated
    from tests.fuzzing.targets import PREFIX, SEEDS, TARGETS, handlers, seeds

    if "events" in sys.argv:
        handlers()  # imported here, or coverage would not see the services


def _mutator(prefix: int, known: list[bytes]) -> Callable[[bytes, int, int], bytes]:
    def mutate(data: bytes, limit: int, seed: int) -> bytes:
        return mutated(data, limit, seed, bytewise=atheris.Mutate, known=known, prefix=prefix)

    return mutate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=60)
    chosen = parser.parse_args()
    target = TARGETS[chosen.target]
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{chosen.target}-"))
    known = list(seeds(chosen.target))
    for number, data in enumerate(known):
        (folder / f"seed-{number}").write_bytes(data)
        target(data)
    finds = SEEDS / chosen.target
    finds.mkdir(parents=True, exist_ok=True)
    more = {}
    if chosen.target in PREFIX:
        more["custom_mutator"] = _mutator(PREFIX[chosen.target], known)
    atheris.Setup(
        [
            sys.argv[0], str(folder), f"-max_total_time={chosen.seconds}", "-max_len=65536",
            "-timeout=20", "-rss_limit_mb=2048",
            f"-artifact_prefix={finds}/", "-print_final_stats=1",
        ],
        target,
        **more,
    )  # fmt: skip
    atheris.Fuzz()


if __name__ == "__main__":
    main()
