"""OpenTelemetry's GenAI conventions, as attributes and as events, in their old and new names.

Messages are looked for in this order:

- `gen_ai.input.messages`, `gen_ai.output.messages`, `gen_ai.system_instructions` (current; as
  structured values or as JSON), on the span or on its event
  `gen_ai.client.inference.operation.details`;
- one event a message: `gen_ai.system.message`, `gen_ai.user.message`, `gen_ai.assistant.message`,
  `gen_ai.choice` (conventions up to 1.36);
- `gen_ai.content.prompt` and `gen_ai.content.completion` events, or the attributes `gen_ai.prompt`
  and `gen_ai.completion` (before 1.28);
- `gen_ai.prompt.N.content` and `gen_ai.completion.N.content` (OpenLLMetry);
- `langfuse.observation.input` and `langfuse.observation.output` (Langfuse's SDKs).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from shared.sources.base import Call, Fragment, Moment, Skipped, Unusable
from shared.sources.chat import Said, answer_of, fault_of, message_of, messages_of, view_of
from shared.sources.documents import cost_of, first, mapping_of, parse_inner, text_of, tokens_of

Event = tuple[str, dict[str, Any]]

_OPERATIONS = (None, "chat", "text_completion", "generate_content", "completion")
_MARKS = ("gen_ai.", "langfuse.observation.")
_INDEXED = re.compile(r"^gen_ai\.(prompt|completion)\.(\d{1,4})\.(role|content|finish_reason)\Z")
_MESSAGE_EVENT = re.compile(r"^gen_ai\.(system|user|assistant|tool)\.message\Z")
_SILENCE = "the span carries no messages: let the instrumentation capture message content"
_DETAILS = "gen_ai.client.inference.operation.details"


def from_attributes(
    attributes: dict[str, Any],
    *,
    record: dict[str, Any],
    identity: str,
    fragment: Fragment,
    occurred_at: Moment,
    events: Sequence[Event] = (),
    fault: Unusable | None = None,
    metadata: dict[str, Any] | None = None,
) -> Call | Skipped:
    """A span's attributes and events as a call; skipped where they are not of an LLM's answer.

    `record`: the span, whose attributes are to be seen at `$.record.attributes`, too, with JSON in
    strings parsed.
    """
    if not any(name.startswith(_MARKS) for name in attributes):
        return Skipped("no gen_ai attributes")
    operation = text_of(attributes.get("gen_ai.operation.name"))
    observation = text_of(attributes.get("langfuse.observation.type"))
    if operation not in _OPERATIONS:
        return Skipped(f"operation {operation}")
    if operation is None and observation not in (None, "generation"):
        return Skipped(f"an observation of type {observation}")
    asked, answer, finish = _chat(attributes, events)
    finish = finish or _last(parse_inner(attributes.get("gen_ai.response.finish_reasons")))
    silent = asked is None and answer is None
    parsed = {name: parse_inner(value) for name, value in attributes.items()}
    return Call(
        id=identity,
        view=view_of(
            asked,
            answer,
            model=_model(attributes),
            attributes=attributes,
            record={**record, "attributes": parsed},
        ),
        fragment=fragment,
        occurred_at=occurred_at,
        tokens=tokens_of(
            first(attributes, "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
            first(attributes, "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
        ),
        cost=cost_of(attributes.get("gen_ai.usage.cost")),
        fault=fault or fault_of(asked, finish),
        silence=_SILENCE if silent else None,
        metadata=metadata or {},
    )


def _model(attributes: dict[str, Any]) -> str | None:
    names = ("gen_ai.response.model", "gen_ai.request.model", "langfuse.observation.model.name")
    return text_of(first(attributes, *names))


def _chat(
    attributes: dict[str, Any], events: Sequence[Event]
) -> tuple[list[Said] | None, Said | None, str | None]:
    """What was asked, what was answered, and why the answer ended."""
    details = next((body for name, body in events if name == _DETAILS), {})
    for found in (
        _current(attributes | details),
        _by_message(events),
        _whole(attributes, events),
        _indexed(attributes),
        _langfuse(attributes),
    ):
        if found[0] is not None or found[1] is not None:
            return found
    return None, None, None


_Chat = tuple[list[Said] | None, Said | None, str | None]


def _current(attributes: dict[str, Any]) -> _Chat:
    asked = messages_of(attributes.get("gen_ai.input.messages"))
    system = parse_inner(attributes.get("gen_ai.system_instructions"))
    if asked is not None and system:
        instructions = message_of({"content": system}, "system")
        asked = [instructions, *asked] if instructions else asked
    outputs = parse_inner(attributes.get("gen_ai.output.messages"))
    if isinstance(outputs, list):
        outputs = outputs[0] if outputs else None
    answer = message_of(outputs, "assistant")
    return asked, answer, text_of(mapping_of(outputs).get("finish_reason"))


def _by_message(events: Sequence[Event]) -> _Chat:
    asked: list[Said] = []
    answer, finish = None, None
    for name, body in events:
        # As span events some put the body into one attribute.
        body = body | mapping_of(body.get("gen_ai.event.content"))
        if match := _MESSAGE_EVENT.match(name):
            said = message_of(body, match[1])
            asked += [said] if said else []
        elif name == "gen_ai.choice" and answer is None:
            content = parse_inner(body.get("message"))
            content = content if isinstance(content, dict) else {"content": content}
            answer = message_of(content if "message" in body else body, "assistant")
            finish = text_of(body.get("finish_reason"))
    return asked or None, answer, finish


def _whole(attributes: dict[str, Any], events: Sequence[Event]) -> _Chat:
    found = dict(attributes)
    for name, body in events:
        if name in ("gen_ai.content.prompt", "gen_ai.content.completion"):
            found |= body
    asked = messages_of(found.get("gen_ai.prompt"))
    return asked, _completion(found.get("gen_ai.completion")), None


def _indexed(attributes: dict[str, Any]) -> _Chat:
    found: dict[str, dict[int, dict[str, Any]]] = {"prompt": {}, "completion": {}}
    for name, value in attributes.items():
        if match := _INDEXED.match(name):
            found[match[1]].setdefault(int(match[2]), {})[match[3]] = _content(value)
    asked = [message_of({"role": "user", **body}) for _, body in sorted(found["prompt"].items())]
    answer = found["completion"].get(0, {})
    said = [each for each in asked if each is not None]
    return said or None, message_of(answer, "assistant"), text_of(answer.get("finish_reason"))


def _content(value: Any) -> Any:
    """Several parts are written as JSON; any other JSON is what was said."""
    parts = parse_inner(value)
    if not isinstance(parts, list) or not parts:
        return value
    return parts if all(isinstance(each, dict) and "type" in each for each in parts) else value


def _langfuse(attributes: dict[str, Any]) -> _Chat:
    asked = messages_of(attributes.get("langfuse.observation.input"))
    return asked, _completion(attributes.get("langfuse.observation.output")), None


def _completion(value: Any) -> Said | None:
    """The first of the messages; what holds none is the answer itself."""
    answered = messages_of(value)
    return answered[0] if answered else answer_of(value)


def _last(value: Any) -> str | None:
    """The reason of the first choice."""
    return text_of(value[0]) if isinstance(value, list) and value else text_of(value)
