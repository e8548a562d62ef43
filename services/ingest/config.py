"""Settings of ingest."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from shared.settings import ServiceSettings


class IngestSettings(ServiceSettings):
    """Each field is read from `TRACER_<FIELD>`, so `ingest_batch_size` from
    `TRACER_INGEST_BATCH_SIZE`.

    Ingest is at least once whatever `delivery` says: traces are idempotent by (task, id).
    """

    # A batch is closed when it is full or when its first record has waited this long.
    ingest_batch_size: int = Field(default=500, ge=1, le=10_000)
    ingest_batch_seconds: float = Field(default=0.2, gt=0, le=60)

    # A trace repeated within the horizon is dropped.
    ingest_repeat_horizon: timedelta = Field(default=timedelta(days=1), gt=timedelta(0))
    ingest_memory_keys: int = Field(default=1_000_000, ge=1)

    # Clocks differ; what lies further ahead than this is a mistake, and would hold up a window.
    ingest_future_tolerance: timedelta = Field(default=timedelta(days=1), ge=timedelta(0))

    # Faust's worker
    ingest_buffer_records: int = Field(default=4096, ge=1)
    ingest_session_timeout_seconds: float = Field(default=45.0, ge=6)
    ingest_request_timeout_seconds: float = Field(default=60.0, ge=6)
    ingest_stall_seconds: float = Field(default=120.0, gt=0)
