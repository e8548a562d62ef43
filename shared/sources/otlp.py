"""Spans as OTLP: an ExportTraceServiceRequest in protobuf or in OTLP's JSON.

The Collector's Kafka exporter writes one such request a record, with many spans; so do SDKs that
post to `/v1/traces`. JSON is OTLP's own mapping: ids as hexadecimal, 64 bit numbers as text.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any

import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from shared.contracts.depth import MAX_DEPTH
from shared.sources.base import MAX_CALLS, Fragment, Item, NoAnswer, Refused, Unusable
from shared.sources.documents import mapping_of, parse, since_epoch, text_of
from shared.sources.genai import Event, from_attributes

_ERROR = 2  # STATUS_CODE_ERROR
_NANO = 1_000_000_000

# A resource's attributes, read once for all of its spans, or why they cannot be.
Resource = dict[str, Any] | Unusable


def otlp_proto(value: bytes, origin: str) -> list[Item]:
    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(value)
    except DecodeError as error:
        raise Unusable("not an ExportTraceServiceRequest in protobuf") from error
    spans = list(_proto_spans(request))
    _check_count(len(spans))
    return [_proto_call(*each, origin=f"{origin}-{i}") for i, each in enumerate(spans)]


def _proto_spans(
    request: ExportTraceServiceRequest,
) -> Iterator[tuple[Resource, ResourceSpans, ScopeSpans, Span]]:
    for resource_spans in request.resource_spans:
        resource = _resource(_values, resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield resource, resource_spans, scope_spans, span


def _proto_alone(outer: ResourceSpans, scope: ScopeSpans, span: Span) -> bytes:
    alone: bytes = ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=outer.resource,
                schema_url=outer.schema_url,
                scope_spans=[
                    ScopeSpans(scope=scope.scope, schema_url=scope.schema_url, spans=[span])
                ],
            )
        ]
    ).SerializeToString()
    return alone


def _proto_call(
    resource: Resource, outer: ResourceSpans, scope: ScopeSpans, span: Span, *, origin: str
) -> Item:
    fragment = partial(_proto_alone, outer, scope, span)
    if isinstance(resource, Unusable):
        return Refused(resource, fragment)
    try:
        return _call(
            name=span.name,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            nanoseconds=span.start_time_unix_nano,
            attributes=_values(span.attributes),
            resource=resource,
            events=[(event.name, _values(event.attributes)) for event in span.events],
            failed=span.status.message or "no reason given" if span.status.code == _ERROR else None,
            fragment=fragment,
            origin=origin,
        )
    except Unusable as error:
        return Refused(error, fragment)


def _resource(values: Callable[[Any], dict[str, Any]], pairs: Any) -> Resource:
    try:
        return values(pairs)
    except Unusable as error:
        return error


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value, MAX_DEPTH) for pair in pairs}


def _value(value: AnyValue, depth: int) -> Any:
    if depth == 0:
        raise Unusable(f"attributes nested deeper than {MAX_DEPTH} levels", field="attributes")
    match value.WhichOneof("value"):
        case "array_value":
            return [_value(each, depth - 1) for each in value.array_value.values]
        case "kvlist_value":
            pairs: list[KeyValue] = list(value.kvlist_value.values)
            return {pair.key: _value(pair.value, depth - 1) for pair in pairs}
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case None:
            return None
        case kind:
            return getattr(value, kind)


def otlp_json(value: bytes, origin: str) -> list[Item]:
    request = parse(value)
    # An empty request is one, too: SDKs send it to see who is there.
    if request != {} and not (
        isinstance(request, dict) and isinstance(request.get("resourceSpans"), list)
    ):
        raise Unusable("not an ExportTraceServiceRequest: no list", field="resourceSpans")
    spans = list(_json_spans(request))
    _check_count(len(spans))
    return [_json_call(*each, origin=f"{origin}-{i}") for i, each in enumerate(spans)]


def _json_spans(
    request: dict[str, Any],
) -> Iterator[tuple[Resource, dict[str, Any], dict[str, Any], dict[str, Any]]]:
    for outer in _objects(request.get("resourceSpans"), "resourceSpans"):
        resource = _resource(_json_values, mapping_of(outer.get("resource")).get("attributes"))
        for scope in _objects(outer.get("scopeSpans"), "resourceSpans[].scopeSpans"):
            for span in _objects(scope.get("spans"), "resourceSpans[].scopeSpans[].spans"):
                yield resource, outer, scope, span


def _json_alone(outer: dict[str, Any], scope: dict[str, Any], span: dict[str, Any]) -> bytes:
    alone = {**outer, "scopeSpans": [{**scope, "spans": [span]}]}
    return msgspec.json.encode({"resourceSpans": [alone]})


def _json_call(
    resource: Resource,
    outer: dict[str, Any],
    scope: dict[str, Any],
    span: dict[str, Any],
    *,
    origin: str,
) -> Item:
    fragment = partial(_json_alone, outer, scope, span)
    if isinstance(resource, Unusable):
        return Refused(resource, fragment)
    try:
        status = mapping_of(span.get("status"))
        failed = status.get("code") in (_ERROR, "STATUS_CODE_ERROR")
        return _call(
            name=text_of(span.get("name")) or "",
            trace_id=_hex(span, "traceId"),
            span_id=_hex(span, "spanId"),
            nanoseconds=_integer(span.get("startTimeUnixNano") or 0, "startTimeUnixNano"),
            attributes=_json_values(span.get("attributes")),
            resource=resource,
            events=[
                (text_of(event.get("name")) or "", _json_values(event.get("attributes")))
                for event in _objects(span.get("events"), "events")
            ],
            failed=text_of(status.get("message")) or "no reason given" if failed else None,
            fragment=fragment,
            origin=origin,
        )
    except Unusable as error:
        return Refused(error, fragment)


def _json_values(pairs: Any) -> dict[str, Any]:
    return {
        str(pair.get("key")): _json_value(pair.get("value"))
        for pair in _objects(pairs, "attributes")
    }


def _json_value(value: Any) -> Any:
    """Depth is bounded by `parse`."""
    if not isinstance(value, dict) or not value:
        return None
    kind, inner = next(iter(value.items()))
    match kind:
        case "arrayValue":
            return [_json_value(each) for each in mapping_of(inner).get("values") or ()]
        case "kvlistValue":
            return _json_values(mapping_of(inner).get("values"))
        case "intValue":
            return _integer(inner, "intValue")
        case _:
            return inner


def _call(
    *,
    name: str,
    trace_id: str,
    span_id: str,
    nanoseconds: int,
    attributes: dict[str, Any],
    resource: dict[str, Any],
    events: list[Event],
    failed: str | None,
    fragment: Fragment,
    origin: str,
) -> Item:
    metadata = {"trace_id": trace_id, "span_id": span_id, "service": resource.get("service.name")}
    return from_attributes(
        attributes,
        record={"name": name, "resource": resource},
        identity=f"{trace_id}-{span_id}" if trace_id and span_id else origin,
        fragment=fragment,
        occurred_at=_moment(nanoseconds),
        events=events,
        fault=NoAnswer(f"the call failed: {failed[:200]}", field="status") if failed else None,
        metadata={key: value for key, value in metadata.items() if value},
    )


def _moment(nanoseconds: int) -> datetime | None:
    return since_epoch(nanoseconds / _NANO)


def _objects(value: Any, name: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise Unusable("a list of objects is needed", field=name)
    return value


def _hex(span: dict[str, Any], name: str) -> str:
    text = span.get(name) or ""
    try:
        return binascii.unhexlify(text).hex()
    except (ValueError, TypeError):
        raise Unusable(f"{name} is not hexadecimal, as OTLP's JSON has it", field=name) from None


def _integer(value: Any, name: str) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise Unusable(f"{name} is no whole number", field=name) from None
    if not -(2**63) <= number < 2**64:
        raise Unusable(f"{name} is no number of 64 bits", field=name)
    return number


def _check_count(count: int) -> None:
    if count > MAX_CALLS:
        raise Unusable(
            f"{count} spans in one record, of at most {MAX_CALLS}: export smaller batches"
        )
