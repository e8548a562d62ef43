"""Faust's consumer, reading committed records only.

The teacher writes its traces in transactions. Faust reads what is not committed yet, and so would
take in traces of a transaction that is aborted, and of an answer that is then given again; only
its own exactly-once mode, which is not used here, reads otherwise.
"""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer  # type: ignore[import-untyped]
from faust import App
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP


class _CommittedThread(AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Transport) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # Read when the consumer starts; Faust has no setting for it.
        consumer._isolation_level = "read_committed"
        return consumer


class _CommittedConsumer(Consumer):
    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return _CommittedThread(self, loop=self.loop, beacon=self.beacon)

    def last_read(self, tp: TP) -> int | None:
        """Offset of the newest record handed out; Faust keeps it, and tells nobody."""
        return self._read_offset[tp]


class _CommittedTransport(Transport):
    Consumer = _CommittedConsumer


def read_committed(app: App) -> App:
    """The same app; its consumer, which is made when it starts, reads committed records only."""
    transport = app.transport
    app.transport = _CommittedTransport(transport.url, app)
    return app
