"""The closed list of metrics. Nothing else in the code makes one.

Names follow Prometheus: `tracer_`, the service where it is one's own, what, and the unit in full;
seconds, ratios of 0 to 1, US dollars. Every process exports those without labels, at 0 before
anything happened; a series with labels begins when its labels are first used.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

# What keeps the values of each label few; no text of a message is ever one.
LABELS = {
    "task": "the tasks of tasks.yaml",
    "service": "ingest, trainer, teacher, router",
    "topic": "the topics that services read",
    "field": "the fields of events; `other` for what is none",
    "format": "the formats of calls that ingest reads",
    "result": "words of the code, named in the metric's text or the guide",
    "status": "the HTTP statuses that are answered",
    "outcome": "the outcomes of a decision: handled, deferred, audited",
    "reason": "the reasons of a decision",
    "verdict": "what came of a fit: the kinds of announcements, and failed",
    "direction": "input, output",
}

# --- every service
ALIVE = Gauge("tracer_alive", "1 when /healthz says alive: it makes progress")
READY = Gauge("tracer_ready", "1 when /readyz says ready: it can do its work now")
DEAD_LETTERS = Counter(
    "tracer_dead_letters_total",
    "Events sent to the dead-letter topic, by the field at fault",
    ["service", "topic", "field"],
)
CONSUMER_LAG = Gauge(
    "tracer_consumer_lag_messages", "Assigned messages not yet committed", ["service"]
)
RETRIES = Counter("tracer_retries_total", "Batches tried again after a passing fault", ["service"])

UNKNOWN_LABELS = Counter(
    "tracer_unknown_labels_total",
    "Answers that are none of the task's labels, whatever its `unknown_labels` makes of them",
    ["service", "task"],
)

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
TRACES_LATE = Counter(
    "tracer_traces_late_total", "Traces stored with windows already closed", ["task"]
)
FITS = Counter("tracer_fits_total", "Fits by verdict", ["task", "verdict"])
FIT_SECONDS = Gauge("tracer_fit_seconds", "Wall time of the last fit", ["task"])
LAST_FIT = Gauge(
    "tracer_last_fit_timestamp_seconds",
    "Unix time at which the last fit ended, whatever its verdict",
    ["task"],
)
TRACES_HELD = Gauge("tracer_trainer_held_traces", "Traces of open windows, held in memory")
REPORTS = Counter("tracer_reports_total", "Reports of fits by result", ["task", "result"])
CERTIFIED_COVERAGE = Gauge(
    "tracer_certified_coverage_ratio",
    "Coverage of the active version's certificate; absent while none answers",
    ["task"],
)
TARGET_AGREEMENT = Gauge(
    "tracer_target_agreement_ratio", "The agreement that is asked for: alpha", ["task"]
)
LIVE_AGREEMENT = Gauge(
    "tracer_live_agreement_ratio",
    "Agreement of the active version on its audits; absent before the first and while none answers",
    ["task"],
)
LIVE_AGREEMENT_LOWER = Gauge(
    "tracer_live_agreement_lower_ratio",
    "Lower bound of the active version's agreement, valid at any time",
    ["task"],
)
AUDITS = Counter("tracer_audits_total", "Audits recorded", ["task"])

# --- router
DECISIONS = Counter(
    "tracer_decisions_total",
    "Requests answered or deferred, by outcome and reason; once more where a commit failed and "
    "they are read again",
    ["task", "outcome", "reason"],
)
BATCH_SECONDS = Histogram(
    "tracer_router_batch_seconds", "Time from poll to commit of a micro-batch", buckets=_LATENCY
)
BATCH_SIZE = Histogram(
    "tracer_router_batch_requests", "Requests in a micro-batch", buckets=_REQUESTS
)
REQUEST_SECONDS = Histogram(
    "tracer_router_request_seconds",
    "Time from a request's record in Kafka to its decision, by the broker's clock and the router's",
    buckets=(*_LATENCY, 60, 300, 1800),
)
ACTIVE_EPOCH = Gauge("tracer_router_active_epoch", "Epoch of the version in use", ["task"])
LOAD_SECONDS = Histogram(
    "tracer_router_load_seconds",
    "Time to check, load and warm a version, or to find that it cannot be used",
    buckets=_LATENCY,
)
REGISTRY_ANSWERED = Gauge(
    "tracer_registry_answered_timestamp_seconds",
    "Unix time at which the registry last told what is active; of the start before it did",
    ["service"],
)
SWAPS = Counter("tracer_router_swaps_total", "Versions swapped in", ["task"])
REJECTED_ARTIFACTS = Counter(
    "tracer_router_rejected_artifacts_total", "Versions this router would not serve", ["task"]
)
POINTER_DOUBTS = Counter(
    "tracer_router_pointer_doubts_total",
    "Active pointers that went back, served what was tripped or could not be read",
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
    buckets=_REQUESTS,
)

# --- teacher
TEACHER_CALLS = Counter(
    "tracer_teacher_calls_total",
    "Calls to the LLM by result: answered; failed, for good; fault, which passes; unavailable and "
    "waits, which were not made for the budget's sake",
    ["task", "result"],
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
