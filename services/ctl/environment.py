"""The environment's settings, or an error that names the variable."""

from __future__ import annotations

from services.ctl.output import fail
from shared.invalid_settings import told
from shared.settings import ServiceSettings


def environment() -> ServiceSettings:
    """Read `TRACER_…`; ends the command when one of them cannot be used (exit code 2)."""
    try:
        return ServiceSettings()
    except ValueError as error:
        fail(told(error), code=2)
