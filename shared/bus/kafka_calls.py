"""Calls into librdkafka that end in time for their caller, whatever happens inside it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from confluent_kafka import KafkaException

from shared.bus.errors import Fatal
from shared.bus.kafka_errors import serving

logger = logging.getLogger(__name__)

_CLOSE_SECONDS = 10.0


class BoundedCalls:
    """Runs calls one after the other on a thread of its own, and gives up on one that stays away.

    librdkafka's transaction calls take a timeout, but wait for its main thread without one: after
    a broker was lost, `send_offsets_to_transaction` was seen not to return at all. Nothing can
    interrupt such a call, so its thread is left behind. It is a daemon: the process can end. And
    it holds the client: no garbage collection destroys that, which would wait just as long.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._ends: SimpleQueue[BaseException | None] = SimpleQueue()
        self._stuck = False
        threading.Thread(target=self._serve, name="librdkafka-calls", daemon=True).start()

    @property
    def stuck(self) -> bool:
        """True once a call did not come back: the client must not be touched any more."""
        return self._stuck

    def run(self, call: Callable[[], object], seconds: float) -> None:
        """Raises what `call` raises, and Fatal when it is not back after `seconds`."""
        if not self._stuck:
            self._calls.put(call)
            try:
                error = self._ends.get(timeout=seconds)
            except Empty:
                self._stuck = True
            else:
                if error is not None:
                    raise error
                return
        raise Fatal(
            f"librdkafka did not come back from a call within {seconds:.0f} s; only a new process "
            "can go on (Kafka ends the open transaction, the offsets are where they were)"
        )

    def end(self) -> None:
        """End the thread, when its last call comes back."""
        self._calls.put(None)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except BaseException as error:  # noqa: BLE001 - raised again where it was called
                self._ends.put(error)
            else:
                self._ends.put(None)


def close_client(close: Callable[[], object], seconds: float = _CLOSE_SECONDS) -> None:
    """Close a client for good, leaving it behind when that takes longer than `seconds`.

    A client that is not closed is destroyed by the garbage collector, in whatever thread that
    happens to run, and waits there for its broker.
    """
    calls = BoundedCalls()
    try:
        with serving():
            calls.run(close, seconds)
    except KafkaException as last:  # of a client that is fenced, say: it is closed all the same
        logger.debug("closing a Kafka client: %s", last)
    except Fatal as stuck:
        logger.warning("a Kafka client is left unclosed: %s", stuck)
    finally:
        calls.end()
