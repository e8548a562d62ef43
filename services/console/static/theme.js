// Before anything is drawn: the colours somebody chose here, or the system's.
"use strict";
(() => {
  const chosen = localStorage.getItem("tracer-theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
})();
