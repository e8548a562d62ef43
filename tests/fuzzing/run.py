"""Coverage-guided search for bytes that break a target, by atheris (libFuzzer).

    python -m tests.fuzzing.run codecs --seconds 60

A find ends it with exit code 77 and is written to tests/fuzzing/corpus/<target>/, where the tests
replay it ever after.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

READERS = ["shared.contracts", "shared.onnx", "shared.registry", "shared.http"]
with atheris.instrument_imports(include=READERS, enable_loader_override=False):
    from tests.fuzzing.targets import SEEDS, TARGETS, seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=60)
    chosen = parser.parse_args()
    target = TARGETS[chosen.target]
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{chosen.target}-"))
    for number, data in enumerate(seeds(chosen.target)):
        (folder / f"seed-{number}").write_bytes(data)
        target(data)
    finds = SEEDS / chosen.target
    finds.mkdir(parents=True, exist_ok=True)
    atheris.Setup(
        [
            sys.argv[0], str(folder), f"-max_total_time={chosen.seconds}", "-max_len=65536",
            "-timeout=20", "-rss_limit_mb=2048",
            f"-artifact_prefix={finds}/", "-print_final_stats=1",
        ],
        target,
    )  # fmt: skip
    atheris.Fuzz()


if __name__ == "__main__":
    main()
