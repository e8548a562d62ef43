"""Issue 5's targets, by name, from the figures of one run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.routing.rounds import medians

Figures = Mapping[str, Any]


def targets(rounds: Sequence[tuple[Figures, Figures]], stream: Figures) -> list[dict[str, Any]]:
    """One entry a target: `measured` against `target`, and whether it is met.

    `rounds`: ours and the peer's. A ratio is the median of those within a round."""
    ours = medians([mine for mine, _ in rounds])

    def times(mine: str, theirs: str) -> float:
        return statistics.median(o[mine] / p[theirs] for o, p in rounds)

    exactly = stream["exactly_once"]
    saved = 1 - ours["text_batch_cpu_s_per_1000"] / ours["text_batch_lexical_off_cpu_s_per_1000"]
    scale = stream["scale_out"]
    return [
        at_least("text in, batch: × the peer's predict_batch with its own embedder",
                 times("text_batch_per_s", "own_text_batch_per_s"), 10),
        beside("text in, batch: × the peer's predict_batch with our encoder",
               times("text_batch_per_s", "text_batch_per_s")),
        at_least("text in, batch: × the bare encoder at its best batch size and threads",
                 ours["text_batch_of_encoder"], 3),
        at_most("one text at a time: median latency, of the peer's predict with its own embedder",
                times("text_one_ms_p50", "own_text_one_ms_p50"), 1 / 20),
        beside("one text at a time: median latency, of the peer's predict with our encoder",
               times("text_one_ms_p50", "text_one_ms_p50")),
        at_least("embeddings in: × the peer's predict, one at a time",
                 1 / times("embedding_one_ms_p50", "embedding_one_ms_p50"), 50),
        at_least("embeddings in: × the peer's predict_batch",
                 times("embedding_batch_per_s", "embedding_batch_per_s"), 10),
        at_least("Kafka, exactly once: share of the in-process throughput",
                 exactly["per_s"] / ours["handler_per_s"], 0.7),
        at_most("Kafka, exactly once: end-to-end p99 at half load, ms",
                exactly["latency"]["50% load"]["p99_ms"], 100),
        at_least("CPU saved by the lexical stage, of the share it answers",
                 saved / ours["lexical_share"], 0.9),
        at_least("agreement of what is answered, on the test texts", ours["agreement"], 0.95),
        at_most("start to ready with a warm disk copy, s", stream["start"]["median_s"], 3),
        at_least("2 routers, × 1 router, lexical stage on", *_grown(scale, "on")),
        at_least("2 routers, × 1 router, lexical stage off", *_grown(scale, "off")),
    ]  # fmt: skip


def at_least(name: str, measured: float, target: float) -> dict[str, Any]:
    return _entry(name, measured, f"≥ {target:.3g}", measured >= target)


def at_most(name: str, measured: float, target: float) -> dict[str, Any]:
    return _entry(name, measured, f"≤ {target:.3g}", measured <= target)


def beside(name: str, measured: float) -> dict[str, Any]:
    """A ratio that nothing is asked of."""
    return {"name": name, "measured": measured, "target": None, "met": None}


def _entry(name: str, measured: float, target: str, met: bool) -> dict[str, Any]:
    return {"name": name, "measured": measured, "target": target, "met": bool(met)}


def _grown(scale: Mapping[str, float], lexical: str) -> tuple[float, float]:
    """The broker and the reader of progress have the same two cores: 1.3 is growth."""
    one, two = (scale[f"{n} routers, lexical stage {lexical}"] for n in (1, 2))
    return two / one, 1.3


def table(result: Figures) -> str:
    ours, peer, stream = result["ours"], result["peer"], result["kafka"]
    machine = result["machine"]
    simd = ", ".join(machine.get("simd", []))
    lines = [
        f"Banking77, published split, α = 0.95, {machine['cores']} cores"
        f"{f' ({simd})' if simd else ''}, encoder "
        f"{machine['encoder']}; the version answers {ours['coverage']:.3f} of the test texts at "
        f"agreement {ours['agreement']:.3f}, {ours['lexical_share']:.3f} without the encoder; the "
        f"peer {peer['coverage']:.3f} at {peer['agreement']:.3f}.",
        "",
        "| target | measured | wanted | met |",
        "|---|---|---|---|",
    ]
    for entry in result["targets"]:
        met = {True: "yes", False: "**no**", None: ""}[entry["met"]]
        wanted = entry["target"] or ""
        lines.append(f"| {entry['name']} | {entry['measured']:.3g} | {wanted} | {met} |")
    lines += [
        "",
        "| in process | ours | peer, own embedder | peer, our encoder |",
        "|---|---|---|---|",
    ]
    lines += [
        _row("texts/s, batch", ours, peer, "text_batch_per_s", ",.0f"),
        _row("CPU s per 1,000 texts, batch", ours, peer, "text_batch_cpu_s_per_1000", ".3f"),
        _row("one text, ms, median", ours, peer, "text_one_ms_p50", ".3f"),
        _row("one text, ms, p99", ours, peer, "text_one_ms_p99", ".3f"),
        _row("embeddings/s, batch", ours, peer, "embedding_batch_per_s", ",.0f"),
        _row("one embedding, ms, median", ours, peer, "embedding_one_ms_p50", ".3f"),
        _row("one embedding, ms, p99", ours, peer, "embedding_one_ms_p99", ".3f"),
        _row("memory, MB", ours, peer, "memory_mb", ",.0f"),
        _alone("texts/s, batch, lexical stage off", ours["text_batch_lexical_off_per_s"]),
        _alone("messages/s through the handler (JSON in, JSON out)", ours["handler_per_s"]),
        _alone("bound: tokenizer alone, texts/s", ours["tokenizer_per_s"]),
        _alone("bound: encoder alone at its best, texts/s", ours["encoder_per_s"]),
        _alone("bound: Kafka client alone, messages/s", stream["client_alone_per_s"]),
    ]
    lines += ["", *_kafka(stream), "", *_others(stream)]
    return "\n".join(lines)


def _row(name: str, ours: Figures, peer: Figures, key: str, style: str) -> str:
    own = peer.get(f"own_{key}")  # none of what takes no text
    cells = ["" if value is None else f"{value:{style}}" for value in (ours[key], own, peer[key])]
    return f"| {name} | {' | '.join(cells)} |"


def _alone(name: str, per_s: float) -> str:
    return f"| {name} | {per_s:,.0f} | | |"


def _kafka(stream: Figures) -> list[str]:
    modes = ("exactly_once", "at_least_once", "as_shipped")
    names = ("`exactly_once`", "`at_least_once`", "`exactly_once`, partitions as shipped")
    lines = [
        f"| through Kafka, topics of {stream['partitions']} partitions | {' | '.join(names)} |",
        "|---|---|---|---|",
    ]
    rows = [
        ("requests/s", "{per_s:,.0f}"),
        ("CPU s per 1,000 requests", "{cpu_s_per_1000:.3f}"),
        ("memory, MB", "{memory_mb:,.0f}"),
    ]
    for name, style in rows:
        cells = " | ".join(style.format(**stream[mode]) for mode in modes)
        lines.append(f"| {name} | {cells} |")
    for load in stream["exactly_once"]["latency"]:
        cells = " | ".join(
            "{p50_ms:.0f} / {p99_ms:.0f}".format(**stream[mode]["latency"][load]) for mode in modes
        )
        lines.append(f"| end to end at {load}, ms, p50 / p99 | {cells} |")
    return lines


def _others(stream: Figures) -> list[str]:
    start, swap = stream["start"], stream["swap"]
    lines = [
        f"Start to ready {start['median_s']:.1f} s (longest {start['longest_s']:.1f}); a swap, "
        f"from the new pointer in Redis to serving, {swap['median_ms']:.0f} ms "
        f"(longest {swap['longest_ms']:.0f}).",
        "",
        "| requests/s of routers with one thread each | 1 router | 2 routers |",
        "|---|---|---|",
    ]
    for lexical in ("on", "off"):
        cells = " | ".join(
            f"{stream['scale_out'][f'{n} routers, lexical stage {lexical}']:,.0f}" for n in (1, 2)
        )
        lines.append(f"| lexical stage {lexical} | {cells} |")
    return lines
