"""Secrets in files, as container platforms mount them: `TRACER_<FIELD>_FILE` names the file.

Only fields that hold secrets can be given so: those of type SecretStr, and those that no repr
shows.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

MAX_SECRET_BYTES = 1024 * 1024


class SecretFiles(PydanticBaseSettingsSource):
    """A source of settings. Raises ValueError, which names the variable and never the content."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls)
        self._prefix = str(self.config.get("env_prefix") or "")

    def __call__(self) -> dict[str, Any]:
        found = {}
        for name, field in self.settings_cls.model_fields.items():
            value, key, _ = self.get_field_value(field, name)
            if value is not None:
                found[key] = value
        return found

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = f"{self._prefix}{field_name.upper()}"
        path = os.environ.get(f"{variable}_FILE")
        if not path or not is_secret(field):
            return None, field_name, False
        if os.environ.get(variable):
            raise ValueError(f"{variable} and {variable}_FILE are both set: keep one of them")
        text = _read(Path(path), f"{variable}_FILE")
        if field.annotation == dict[str, str]:
            try:
                return json.loads(text), field_name, True
            except ValueError:
                raise ValueError(f"{variable}_FILE: {path} does not hold JSON") from None
        return text, field_name, False


def is_secret(field: FieldInfo) -> bool:
    """Whether a setting may come from a file."""
    kinds = (field.annotation, *get_args(field.annotation))
    return SecretStr in kinds or field.repr is False


def _read(path: Path, variable: str) -> str:
    """The file's text without the newline that editors leave at its end."""
    try:
        if path.stat().st_size > MAX_SECRET_BYTES:
            raise ValueError(f"{variable}: {path} has more than {MAX_SECRET_BYTES} bytes")
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8"
        raise ValueError(f"{variable}: {path} cannot be read: {why}") from None
