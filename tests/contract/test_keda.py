"""deploy/keda names what exists: the routers' group, the topic of requests, its partitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from services.router.config import RouterSettings
from shared.bus.kafka_config import consumer_config
from shared.contracts.topics import Topic, load_topics

FILE = Path(__file__).resolve().parents[2] / "deploy" / "keda" / "router-scaledobject.yaml"
# KEDA's kafka scaler, 2.10 and later; what it does not know it ignores in silence.
KNOWN = {
    "activationLagThreshold", "allowIdleConsumers", "bootstrapServers", "consumerGroup",
    "excludePersistentLag", "lagThreshold", "limitToPartitionsWithLag", "offsetResetPolicy",
    "partitionLimitation", "sasl", "scaleToZeroOnInvalidOffset", "tls", "topic", "unsafeSsl",
    "version",
}  # fmt: skip


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    document = yaml.safe_load(FILE.read_text())
    assert (document["apiVersion"], document["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    found: dict[str, Any] = document["spec"]
    return found


@pytest.fixture(scope="module")
def metadata(spec: dict[str, Any]) -> dict[str, Any]:
    (trigger,) = spec["triggers"]
    assert trigger["type"] == "kafka"
    found: dict[str, Any] = trigger["metadata"]
    return found


def test_it_watches_the_lag_of_the_routers_group(
    metadata: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TRACER_GROUP_SUFFIX", "TRACER_TOPIC_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    settings = RouterSettings()
    assert metadata["consumerGroup"] == settings.group("router")
    assert metadata["topic"] == settings.topic(Topic.REQUESTS)
    config = consumer_config("b", metadata["consumerGroup"], None, {})
    assert metadata["offsetResetPolicy"] == config["auto.offset.reset"]


def test_no_more_routers_than_partitions_and_never_none(spec: dict[str, Any]) -> None:
    partitions = load_topics()[Topic.REQUESTS].partitions
    assert spec["maxReplicaCount"] == partitions
    assert spec["minReplicaCount"] >= 1


def test_every_field_is_one_that_keda_reads(metadata: dict[str, Any]) -> None:
    assert metadata.keys() <= KNOWN
    assert all(isinstance(value, str) for value in metadata.values())  # KEDA takes strings only


def test_a_router_is_added_before_its_share_of_a_batch_is_late(metadata: dict[str, Any]) -> None:
    """A lag that one micro-batch makes must not start a router."""
    assert int(metadata["lagThreshold"]) >= 2 * RouterSettings().max_batch
