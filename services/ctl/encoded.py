"""Inputs made ready once, to be answered by one cascade after another as a router would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shared.core.tokens import Tokens
from shared.core.types import Matrix
from shared.encoder.base import Encoder
from shared.fitting.horizon import encode_inputs, input_tokens
from shared.onnx.cascade import Answers, CascadeSession


@dataclass(frozen=True)
class Encoded:
    """n inputs of one kind, single texts or pairs."""

    tokens: Tokens
    features: Matrix

    def answers(self, session: CascadeSession) -> Answers:
        return session.answer(
            len(self.features), self.tokens.rows(), lambda asked: self.features[asked]
        )


def encoded(inputs: Sequence[tuple[str, ...]], encoder: Encoder) -> Encoded:
    """Raises InvalidData where single texts and pairs are mixed."""
    return Encoded(input_tokens(inputs, encoder), encode_inputs(inputs, encoder))
