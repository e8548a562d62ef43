"""python -m services.ctl.sample --out FILE --n 6000 --days 5"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from services.ctl.sample.generator import START, generate


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the project's own sample traces as JSONL.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=6000)
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--start", type=datetime.fromisoformat, default=START)
    options = parser.parse_args(arguments)
    if options.start.tzinfo is None:
        parser.error("--start needs a time zone, such as 2025-06-02T00:00+00:00")
    with options.out.open("w", encoding="utf-8") as out:
        for row in generate(options.n, seed=options.seed, days=options.days, start=options.start):
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
