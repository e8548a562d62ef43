"""What `tracerctl whatif` says to people."""

from __future__ import annotations

from typing import Any

from services.ctl.output import console, messages, print_table
from shared.rounding import at_least, at_most, dollars, whole

SHOWN_SLICES = 12
_WHY = {
    "below_threshold": "not sure enough",
    "out_of_distribution": "unlike anything seen",
    "label_floor": "a label below its floor",
    "label_removed": "a label no longer given",
    "invalid_input": "another number of texts",
    "no_active_version": "no version",
}


def tell(result: dict[str, Any]) -> None:
    """The result of `whatif.what_if` in plain sentences and tables."""
    before = result["days_before"]
    fitted = f"{result['n_traces']:,} traces" + (f" of {_days(before)} before" if before else "")
    of_task = f" for {result['task']}" if result["task"] else ""
    console.print(
        f"What if α = {result['alpha']}{of_task}? Fitted on {fitted}, replayed on "
        f"{result['day']}.\n"
    )
    _certificate(result)
    replay = result["replay"]
    if not replay["n_judged"]:
        console.print("No trace of the day can be judged, so nothing was replayed.")
    else:
        if not result["refused"]:
            _day(replay, result["delta"])
            _beside_the_certificate(replay, result["alpha"], result["delta"])
            console.print(_money(replay))
            _deferred(replay)
            _slices(result["slices"])
        _frontier(result)
        _against(result)
    if result["notes"]:
        console.print()
    for note in result["notes"]:
        messages.print(f"Note: {note}.", soft_wrap=True)


def _certificate(result: dict[str, Any]) -> None:
    found = result["certificate"]
    if found is None:
        console.print(f"Nothing would be handled: {result['reason']}.")
        return
    console.print(
        f"Certified ({found['method']}, {found['kind']}): answers {found['coverage']:.1%} of the "
        "traffic and agrees with the teacher on at least "
        f"{at_least(found['agreement_lower'])} of that: at most "
        f"{found['wrong_per_1000_at_most']} wrong answers per 1,000 requests "
        f"(with probability {whole(1 - found['delta'])})."
    )


def _day(replay: dict[str, Any], delta: float) -> None:
    judged, requests = replay["n_judged"], replay["requests"]
    stands = "" if round(requests) == judged else f", which stand for {requests:,.0f}"
    console.print(
        f"Replayed: of {judged:,} requests that can be judged{stands}, {replay['n_handled']:,} "
        f"would have been handled ({replay['coverage']:.1%} of the traffic)."
    )
    if replay["n_handled"]:
        console.print(
            f"Agreement there {replay['agreement']:.1%} "
            f"({at_least(replay['agreement_lower'])} to {at_most(replay['agreement_upper'])}): "
            f"{replay['n_wrong']:,} wrong answers, {replay['wrong_per_1000']} per 1,000 requests, "
            f"at most {replay['wrong_per_1000_at_most']} (each bound with probability "
            f"{whole(1 - delta)})."
        )


def _beside_the_certificate(replay: dict[str, Any], alpha: float, delta: float) -> None:
    """Only where the two could seem to disagree."""
    if replay["agreement"] is None or replay["agreement"] >= alpha:
        return
    if replay["agreement_upper"] < alpha:
        console.print(
            f"That is credibly below α = {alpha} (with probability {whole(1 - delta)}): the day is "
            "not like the days before it. Find out why before you deploy."
        )
    else:
        console.print(f"That is below α = {alpha}, but no more than chance does to one day.")


def _deferred(replay: dict[str, Any]) -> None:
    reasons = [
        f"{_WHY.get(row['reason'], row['reason'])} {row['share']:.1%}" for row in replay["deferred"]
    ]
    if reasons:
        console.print(f"Deferred to the teacher: {', '.join(reasons)}.")


def _money(replay: dict[str, Any]) -> str:
    saved = f"Saved: {replay['calls_saved_per_day']:,.0f} of {replay['requests']:,.0f} calls a day"
    if replay["tokens_saved_per_day"]:
        saved += f", {replay['tokens_saved_per_day']:,.0f} tokens"
    if replay["saved_per_day"] is None:
        return f"{saved}, audits taken off. In money: no price is known, give one with --price."
    return (
        f"{saved}, {dollars(replay['saved_per_day'])} of {dollars(replay['spent_per_day'])} a day, "
        f"{dollars(replay['saved_per_month'])} a month (audits taken off; "
        f"prices: {replay['price_from']})."
    )


def _slices(slices: dict[str, Any]) -> None:
    worst = slices["worst"]
    if not worst:
        console.print(
            f"Worst slices: of {slices['n_tested']} tried (labels, lengths, words) none differs "
            "credibly from the average."
        )
        return
    left = len(worst) - SHOWN_SLICES
    print_table(
        f"\nworst slices: credibly below the average, of {slices['n_tested']} tried"
        + (f"; {left} more with --json" if left > 0 else ""),
        ["slice", "", "handled", "agreement", "95% interval"],
        [
            (row["kind"], row["name"], row["n"], f"{row['agreement']:.1%}",
             f"{at_least(row['lower'])} to {at_most(row['upper'])}")
            for row in worst[:SHOWN_SLICES]
        ],
    )  # fmt: skip


def _frontier(result: dict[str, Any]) -> None:
    rows = result["frontier"]
    if not rows:
        return
    if all(row["agreement_lower"] is None for row in rows):
        console.print(f"Nor would it be at any α from {rows[0]['alpha']} up.")
        return
    priced = result["replay"]["price_from"] is not None
    print_table(
        "\nother α, same fit (wrong: answers per 1,000 requests)",
        ["α", "certified", "wrong ≤", "replayed", "agreement", "wrong",
         "$ a month" if priced else "calls a day"],
        [_point(row, result["alpha"], priced) for row in rows],
    )  # fmt: skip


def _point(row: dict[str, Any], alpha: float, priced: bool) -> tuple[str, ...]:
    mark = " ←" if row["alpha"] == alpha else ""
    if row["agreement_lower"] is None:
        return (f"{row['alpha']}{mark}", "refused", *[""] * 5)
    day = row["replay"]
    saved = day["saved_per_month"] if priced else day["calls_saved_per_day"]
    return (
        f"{row['alpha']}{mark}",
        f"{row['coverage']:.1%}",
        f"{row['wrong_per_1000_at_most']}",
        f"{day['coverage']:.1%}",
        "" if day["agreement"] is None else f"{day['agreement']:.1%}",
        f"{day['wrong_per_1000']}",
        f"{saved:,.2f}" if priced else f"{saved:,.0f}",
    )


def _against(result: dict[str, Any]) -> None:
    found = result["against"]
    if found is None:
        return
    before = found["before"]
    agreed = "" if before["agreement"] is None else f" and agreed on {before['agreement']:.1%}"
    console.print(
        f"\nAgainst {found['version']}, which would have handled {before['coverage']:.1%}{agreed}: "
        f"{found['answerer_changes']['share']:.1%} of the requests would be answered by another "
        f"({found['newly_handled']['n']:,} newly handled, {found['newly_deferred']['n']:,} newly "
        f"deferred), {found['answer_changes']['share']:.1%} would get another answer "
        f"({found['answer_becomes_the_teachers']['n']:,} the teacher's instead of a wrong one, "
        f"{found['answer_was_the_teachers']['n']:,} a wrong one instead of the teacher's)."
    )


def _days(n: int) -> str:
    return "1 day" if n == 1 else f"{n} days"
