// Decisions as they happen, newest on top, until somebody holds them.
"use strict";
(() => {
  const table = document.getElementById("live");
  if (!table) return;
  const shown = 30;
  const none = document.getElementById("live-none");
  const hold = document.getElementById("live-pause");
  let held = false;
  let source = null;

  function cell(text, kind) {
    const made = document.createElement("td");
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  }

  function row(decision) {
    const made = document.createElement("tr");
    const who = { handled: "surrogate", audited: "surrogate, audited", deferred: "teacher" };
    const at = new Date(decision.decided_at);
    const time = cell(at.toLocaleTimeString([], { hour12: false }));
    time.title = at.toISOString();
    const score = decision.accept_score;
    const answerer = cell(who[decision.outcome] || decision.outcome, decision.outcome);
    answerer.title = decision.reason;
    const answer = cell(decision.label ?? decision.error ?? "none");
    const scored = cell(score === null ? "–" : score.toFixed(3), "n");
    if (decision.threshold !== null) scored.title = `threshold ${decision.threshold.toFixed(3)}`;
    const took = decision.milliseconds;
    const why = document.createElement("td");
    const link = document.createElement("a");
    link.href = `${table.dataset.why}?id=${encodeURIComponent(decision.request_id)}`;
    link.textContent = "why?";
    link.setAttribute("aria-label", `Why was ${decision.request_id} decided so?`);
    why.append(link);
    made.append(
      time, cell(decision.request_id, "mono clip"), answer, answerer, scored,
      cell(took === null ? "–" : took.toFixed(1), "n"), why,
    );
    return made;
  }

  function show(data) {
    if (held) return;
    const body = table.tBodies[0];
    for (const decision of data.decisions) body.prepend(row(decision));
    while (body.rows.length > shown) body.lastElementChild.remove();
    none.textContent = data.missed ? `${data.missed} more were decided than could be shown.` : "";
    none.hidden = !data.missed;
  }

  function open() {
    source = new EventSource(table.dataset.live);
    source.addEventListener("decisions", (event) => show(JSON.parse(event.data)));
    source.addEventListener("trouble", (event) => {
      const why = JSON.parse(event.data).why;
      none.hidden = !why;
      none.textContent = why || "";
    });
  }

  document.addEventListener("click", (event) => {
    if (event.target.id !== "live-pause") return;
    held = !held;
    event.target.textContent = held ? "Go on" : "Hold";
    event.target.setAttribute("aria-pressed", String(held));
  });
  // A page that nobody sees needs no stream.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      source?.close();
      source = null;
    } else if (!source) open();
  });
  window.addEventListener("pagehide", () => source?.close());
  if (hold) open();
})();
