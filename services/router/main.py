"""The router as a process."""

from __future__ import annotations

import gc
import sys
from concurrent.futures import ThreadPoolExecutor

from services.router.config import RouterSettings
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.encoder.threads import usable_threads
from shared.running import Surroundings, run_service


def main() -> int:
    return run_service(
        "router", RouterSettings, _run, stall_seconds=lambda settings: settings.stall_seconds
    )


def _run(settings: RouterSettings, around: Surroundings) -> None:
    threads = settings.threads or usable_threads()
    with ThreadPoolExecutor(1, "starting") as beside:
        loading = beside.submit(OnnxEncoder, settings.encoder, threads=threads)
        # Here, because it takes as long as the encoder does and a core of its own: most of it are
        # the clients of Kafka and Redis.
        from services.router.app import build

        encoder = loading.result()
    router = build(settings, encoder, threads=threads, clock=around.clock, health=around.health)
    # What is loaded stays; looking through it would hold up a batch now and then (50 to 100 ms).
    gc.freeze()
    try:
        router.run(around.stop)
    finally:
        router.close()


if __name__ == "__main__":
    sys.exit(main())
