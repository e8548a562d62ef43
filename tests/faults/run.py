"""The fault suite: `make test-faults SCHEDULES=200 SEED=1`.

One cluster, many schedules of faults, each judged by the checker; a JSON line for each on standard
output. `FIRST=42 SCHEDULES=1` with the same seed plays schedule 42 alone. Exits 1 when a law was
broken; the logs are kept then.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.kafka.local_kafka import KafkaUnavailable
from services.ctl.paths import cache_folder
from shared.encoder.default import ensure_default_encoder
from tests.faults import report
from tests.faults.inject import unavailable
from tests.faults.playing import Played, playing
from tests.faults.schedule import deal
from tests.faults.system import System


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is ended
    folder = Path(tempfile.mkdtemp(prefix="tracer-faults-"))
    try:
        summary = run(options, folder)
    except KafkaUnavailable as error:
        print(f"no Apache Kafka here: {error}", file=sys.stderr)
        return 2
    print(json.dumps(summary), flush=True)
    if options.report:
        report.write(summary)
    if summary["violations"]:
        print(f"violations; the logs are in {folder}", file=sys.stderr)
        return 1
    if options.keep:
        print(f"the logs are in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The summary of all schedules. Raises KafkaUnavailable."""
    began = time.monotonic()
    played: list[Played] = []
    with System(folder, ensure_default_encoder(cache_folder() / "encoder")) as system:
        without = unavailable(system)
        with playing(system) as player:
            player.first_version(f"{options.seed}-{options.first}")
            for number in range(options.first, options.first + options.schedules):
                if time.monotonic() - began > 60 * options.minutes:
                    break
                schedule = deal(options.seed, number, without=frozenset(without))
                played.append(player.play(schedule))
                print(json.dumps(played[-1].line()), flush=True)
            final = player.close_windows()
    known = [violation for one in played for violation in one.violations]
    late = [str(v) for v in final.violations if str(v) not in known]
    return {
        "seed": options.seed,
        "first": options.first,
        "schedules": len(played),
        "asked": options.schedules,
        "seconds": round(time.monotonic() - began, 1),
        "faults": dict(sorted(Counter(kind for one in played for kind in one.kinds).items())),
        "not_available": without,
        "requests": sum(one.requests for one in played),
        "traces": sum(one.traces for one in played),
        "calls": sum(one.calls for one in played),
        "events_checked": final.checked,
        "violations": len(known) + len(late),
        "violations_at_the_end": late,
        "failing": [one.seed for one in played if one.violations],
        "exits": dict(sum((Counter(one.exits) for one in played), Counter())),
        "settle_seconds_median": _median([one.settle_seconds for one in played]),
        "settle_seconds_longest": max((one.settle_seconds for one in played), default=0.0),
    }


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--schedules", type=int, default=20)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--first", type=int, default=0, help="number of the first schedule")
    parser.add_argument("--minutes", type=float, default=180.0, help="begin no schedule after this")
    parser.add_argument("--report", action="store_true", help="write docs/reliability.md")
    parser.add_argument("--keep", action="store_true", help="keep the logs in any case")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
