// What every page does: colours, the dialog of actions, and saying when the console is away.
"use strict";
(() => {
  const themes = ["", "light", "dark"];
  const names = { "": "as the system", light: "light", dark: "dark" };
  const signs = { "": "◐", light: "☀", dark: "☾" };
  const button = document.getElementById("theme");
  const root = document.documentElement;

  function showTheme() {
    const theme = root.dataset.theme || "";
    button.textContent = signs[theme];
    button.setAttribute("aria-label", `Colours: ${names[theme]}`);
    button.title = `Colours: ${names[theme]}`;
  }

  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme || "") + 1) % themes.length];
    if (next) {
      root.dataset.theme = next;
      localStorage.setItem("tracer-theme", next);
    } else {
      delete root.dataset.theme;
      localStorage.removeItem("tracer-theme");
    }
    showTheme();
    document.dispatchEvent(new Event("tracer:theme"));
  });
  showTheme();

  // Times are written in UTC; the reader's own is a hover away.
  function localTimes() {
    for (const time of document.querySelectorAll("time[datetime]:not([title])")) {
      time.title = new Date(time.dateTime).toLocaleString();
    }
  }
  localTimes();

  const dialog = document.getElementById("confirm");
  document.addEventListener("htmx:after:swap", () => {
    localTimes();
    document.dispatchEvent(new Event("tracer:fresh"));
    const filled = dialog.querySelector("form");
    if (filled && !dialog.open) {
      dialog.showModal();
      (dialog.querySelector("[autofocus]") || filled).focus();
    }
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest("[data-close]")) {
      event.preventDefault();
      dialog.close();
    }
  });
  dialog.addEventListener("close", () => {
    document.getElementById("confirm-body").replaceChildren();
  });

  // What takes seconds says so; coming back to the page, it can be asked again.
  const slow = document.querySelector("form[data-slow]");
  const ask = slow?.querySelector("button[data-busy]");
  const rest = ask?.textContent;
  slow?.addEventListener("submit", () => {
    ask.setAttribute("aria-busy", "true");
    ask.textContent = ask.dataset.busy;
  });
  window.addEventListener("pageshow", () => {
    if (!ask) return;
    ask.removeAttribute("aria-busy");
    ask.textContent = rest;
  });

  const offline = document.getElementById("offline");
  document.addEventListener("htmx:error", () => { offline.hidden = false; });
  document.addEventListener("htmx:response:error", () => { offline.hidden = false; });
  document.addEventListener("htmx:after:request", (event) => {
    const status = event.detail?.ctx?.response?.status ?? event.detail?.ctx?.response?.raw?.status;
    if (status && status < 400) offline.hidden = true;
  });
})();
