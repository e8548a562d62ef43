from __future__ import annotations

import pytest
from doubles import HashEncoder
from surrogates import make_surrogate

from shared.registry.base import Artifact


@pytest.fixture(scope="module")
def encoder() -> HashEncoder:
    return HashEncoder()


@pytest.fixture(scope="module")
def artifact(encoder: HashEncoder) -> Artifact:
    return make_surrogate(encoder)
