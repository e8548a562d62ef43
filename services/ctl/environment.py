"""The environment's settings, or an error that names the variable."""

from __future__ import annotations

from pydantic import ValidationError

from services.ctl.output import fail
from shared.settings import ServiceSettings


def environment() -> ServiceSettings:
    """Read `TRACER_…`; ends the command when one of them cannot be used."""
    try:
        return ServiceSettings()
    except ValidationError as error:
        problems = "; ".join(
            f"TRACER_{'_'.join(str(part) for part in problem['loc']).upper()}: {problem['msg']}"
            for problem in error.errors()
        )
        fail(problems, code=2)
    except ValueError as error:  # a secret's file
        fail(str(error), code=2)
