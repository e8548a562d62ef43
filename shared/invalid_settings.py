"""Settings that cannot be used, in one line that names the variables and shows no value."""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_settings import SettingsError


class InvalidRedisUrl(ValueError):
    """What TRACER_REDIS_URL holds is no address. It is here, where redis-py, which takes long to
    import, is not needed to name it."""


def told(error: ValueError) -> str:
    """Of what reading settings raises: pydantic's, and those of secrets in files."""
    if isinstance(error, ValidationError):
        return "; ".join(_problem(dict(problem)) for problem in error.errors())
    if isinstance(error, SettingsError):  # 'error parsing value for field "kafka" from source …'
        field = str(error).partition('"')[2].partition('"')[0]
        return f"{_variable(field)}: not JSON"
    return str(error)


def _problem(problem: dict[str, object]) -> str:
    said = str(problem["msg"]).removeprefix("Value error, ")
    where = problem["loc"]
    # What several settings together are wrong in names them itself.
    return f"{_variable(*where)}: {said}" if isinstance(where, tuple) and where else said


def _variable(*where: object) -> str:
    return f"TRACER_{'_'.join(str(part) for part in where).upper()}"
