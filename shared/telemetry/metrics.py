"""The closed list of metrics. Nothing else in the code makes one."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

# --- every service
DEAD_LETTERS = Counter(
    "tracer_dead_letters_total", "Events sent to the dead-letter topic", ["service", "topic"]
)
CONSUMER_LAG = Gauge(
    "tracer_consumer_lag_messages", "Assigned messages not yet committed", ["service"]
)
RETRIES = Counter("tracer_retries_total", "Batches tried again after a passing fault", ["service"])

# --- ingest
TRACES_INGESTED = Counter("tracer_traces_ingested_total", "Traces written to `traces`", ["task"])
TRACES_REPEATED = Counter("tracer_traces_repeated_total", "Repeats dropped by trace id", ["task"])
SOURCE_CALLS = Counter(
    "tracer_source_calls_total",
    "Calls in other systems' logs by what became of them: taken, refused, skipped",
    ["format", "result"],
)
OTLP_CALLS = Counter("tracer_otlp_calls_total", "Calls of the OTLP door by status", ["status"])
SEEN_STORE_AWAY = Gauge(
    "tracer_ingest_seen_store_away", "1 while Redis is away and repeats are known from memory alone"
)

# --- trainer
WINDOWS_CLOSED = Counter("tracer_windows_closed_total", "Daily windows stored", ["task"])
TRACES_LATE = Counter("tracer_traces_late_total", "Traces of windows already closed", ["task"])
FITS = Counter("tracer_fits_total", "Fits by verdict", ["task", "verdict"])
FIT_SECONDS = Gauge("tracer_fit_seconds", "Wall time of the last fit", ["task"])
REPORTS = Counter("tracer_reports_total", "Reports of fits by result", ["task", "result"])
CERTIFIED_COVERAGE = Gauge(
    "tracer_certified_coverage_ratio", "Coverage of the last certificate", ["task"]
)
LIVE_AGREEMENT = Gauge(
    "tracer_live_agreement_ratio", "Agreement of the active version on its audits", ["task"]
)
LIVE_AGREEMENT_LOWER = Gauge(
    "tracer_live_agreement_lower_ratio",
    "Lower bound of the active version's agreement, valid at any time",
    ["task"],
)
AUDITS = Counter("tracer_audits_total", "Audits recorded", ["task"])

# --- router
DECISIONS = Counter(
    "tracer_decisions_total", "Requests by outcome and reason", ["task", "outcome", "reason"]
)
BATCH_SECONDS = Histogram(
    "tracer_router_batch_seconds", "Time from poll to commit of a micro-batch", buckets=_LATENCY
)
BATCH_SIZE = Histogram(
    "tracer_router_batch_requests",
    "Requests in a micro-batch",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
)
ACTIVE_EPOCH = Gauge("tracer_router_active_epoch", "Epoch of the version in use", ["task"])
SWAPS = Counter("tracer_router_swaps_total", "Versions swapped in", ["task"])
REJECTED_ARTIFACTS = Counter(
    "tracer_router_rejected_artifacts_total", "Versions this router would not serve", ["task"]
)
POINTER_DOUBTS = Counter(
    "tracer_router_pointer_doubts_total",
    "Active pointers that went back, or served what was tripped",
    ["task"],
)
REMEMBERED = Counter(
    "tracer_router_remembered_total",
    "Texts looked up among the answers remembered, by result (hit or miss)",
    ["result"],
)
DOOR_CALLS = Counter("tracer_door_calls_total", "Calls of the door by HTTP status", ["status"])
DOOR_SECONDS = Histogram(
    "tracer_door_call_seconds", "Time from a call's head to its answer", buckets=_LATENCY
)
DOOR_BATCH_SIZE = Histogram(
    "tracer_door_batch_requests",
    "Requests of concurrent calls that were worked together",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
)

# --- teacher
TEACHER_CALLS = Counter(
    "tracer_teacher_calls_total", "Calls to the LLM by result", ["task", "result"]
)
TEACHER_SECONDS = Histogram(
    "tracer_teacher_call_seconds", "Duration of a call to the LLM", ["task"], buckets=_LATENCY
)
TEACHER_COST = Counter(
    "tracer_teacher_cost_usd_total",
    "US dollars the LLM's answers cost, by the price table",
    ["task"],
)
TEACHER_TOKENS = Counter(
    "tracer_teacher_tokens_total", "Tokens the LLM read and wrote", ["task", "direction"]
)
TEACHER_BUDGET_LEFT = Gauge(
    "tracer_teacher_budget_left_ratio", "Share of the day's budget that is left", ["task"]
)
TEACHER_WAITING = Gauge(
    "tracer_teacher_budget_waiting", "1 while requests wait for the next day's budget", ["task"]
)
