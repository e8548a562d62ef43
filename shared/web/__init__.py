"""What a browser loads, kept here so that no page asks a foreign host for anything."""

from __future__ import annotations

from pathlib import Path

VENDOR = Path(__file__).parent / "vendor"
"""`echarts.min.js`, `htmx.min.js`, `pico.min.css` and their licences, copied by `make vendor`."""
