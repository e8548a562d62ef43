"""What goes wrong with encoders."""

from __future__ import annotations


class EncoderError(Exception):
    """Base of what building, loading or running an encoder raises."""


class BrokenEncoder(EncoderError):
    """The files of an encoder artifact are missing, damaged, or do not belong together."""


class UnsupportedModel(EncoderError):
    """This route cannot turn the model into an encoder artifact."""


class MissingPackage(EncoderError):
    """A package that only this step needs is not installed; the message says how to get it."""
