"""How a task's mapping makes a raw trace of a call."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from jsonpath import JSONPath, JSONPathEnvironment, JSONPathError

from shared.contracts.codec import InvalidEvent, decode
from shared.contracts.events import MAX_TEXT_CHARS, RawTrace
from shared.contracts.mapping import Condition, LabelRule, SourceMapping
from shared.contracts.prompting import read_answer
from shared.contracts.tasks import InvalidTasks, Task
from shared.sources.base import Call, Unusable
from shared.sources.documents import parse, text_of

_MAX_ANSWER_CHARS = 100_000
_MAX_FOUND = 1_000
_PLACEHOLDER = re.compile(r"\{\{\s*(.+?)\s*\}\}")
_FENCE = "```"
# RFC 9535 alone, so that a mapping means the same to any other implementation.
_environment = JSONPathEnvironment(strict=True)

Find = Callable[[Any], list[Any]]


class Reader:
    """One mapping of one task, its paths and patterns compiled."""

    def __init__(self, task: Task, mapping: SourceMapping) -> None:
        """Raises InvalidTasks naming the field of a path that cannot be compiled."""
        self.task = task.name
        where = f"task {task.name!r}, source {mapping.format.value!r}"
        parts = mapping.input if isinstance(mapping.input, tuple) else (mapping.input,)
        self._inputs = [_text_reader(part, mapping, f"{where}: input") for part in parts]
        self._where = [_Condition.of(each, f"{where}: where") for each in mapping.where]
        self._refuse = [_Condition.of(each, f"{where}: refuse") for each in mapping.refuse]
        self._answer = compiled(mapping.answer, f"{where}: answer")
        self._label = _label_reader(mapping.label, f"{where}: label.field")
        human = mapping.human_label or "$.label"
        self._human = compiled(human, f"{where}: human_label")
        self._metadata = {
            name: compiled(path, f"{where}: metadata.{name}")
            for name, path in mapping.metadata.items()
        }

    def takes(self, call: Call) -> bool:
        """Whether the call is this task's."""
        return all(condition.holds(call.view) for condition in self._where)

    def trace(self, call: Call) -> RawTrace:
        """Raises Unusable naming the field."""
        if call.fault is not None:
            raise call.fault
        if isinstance(call.occurred_at, Unusable):
            raise call.occurred_at
        for condition in self._refuse:
            if condition.holds(call.view):
                raise Unusable(f"refused by the mapping: {condition}", field="refuse")
        try:
            texts, teacher = self._texts(call.view), self._teacher(call.view)
        except Unusable as error:
            if call.silence is None:
                raise
            raise Unusable(f"{error}: {call.silence}", field=error.field) from error
        document = {
            "id": call.id,
            "task": self.task,
            "input": texts[0] if len(texts) == 1 else texts,
            "teacher": teacher,
            "occurred_at": call.occurred_at,
            "model": _clean(text_of(call.view.get("model"))),
            "tokens": call.tokens,
            "cost": call.cost,
            "label": self._human_label(call.view),
            "metadata": self._carried(call) or None,
        }
        try:
            return decode(msgspec.json.encode(document), RawTrace)
        except InvalidEvent as error:
            raise Unusable(str(error), field=error.field) from error
        except UnicodeEncodeError as error:
            raise Unusable("half a surrogate pair, which is no character") from error

    def _texts(self, view: Mapping[str, Any]) -> list[Any]:
        """One or two."""
        texts = [read(view) for read in self._inputs]
        if len(texts) == 1 and isinstance(texts[0], list):
            texts = texts[0]  # a row that holds a pair
            if len(texts) != 2:
                raise Unusable("two texts are a pair; any other list is none", field="input")
        return texts

    def _teacher(self, view: Mapping[str, Any]) -> str:
        return self._label(_single(self._answer(view), "answer"))

    def _human_label(self, view: Mapping[str, Any]) -> str | None:
        found = self._human(view)
        return _clean(text_of(found[0])) if found else None

    def _carried(self, call: Call) -> dict[str, Any]:
        own = {name: find(call.view) for name, find in self._metadata.items()}
        return call.metadata | {name: found[0] for name, found in own.items() if found}


@dataclass(frozen=True, slots=True)
class _Condition:
    condition: Condition
    find: Find
    pattern: re.Pattern[str] | None

    @classmethod
    def of(cls, condition: Condition, where: str) -> _Condition:
        pattern = re.compile(condition.matches) if condition.matches else None
        return cls(condition, compiled(condition.path, where), pattern)

    def holds(self, view: Mapping[str, Any]) -> bool:
        found = self.find(view)
        if self.condition.equals is not None:
            wanted = self.condition.equals
            return any(value == wanted and type(value) is type(wanted) for value in found)
        if self.pattern is not None:
            texts = (text_of(value) for value in found)
            return any(self.pattern.search(text) for text in texts if text is not None)
        return bool(found)

    def __str__(self) -> str:
        if self.condition.equals is not None:
            return f"{self.condition.path} is {self.condition.equals!r}"
        if self.condition.matches is not None:
            return f"{self.condition.path} matches {self.condition.matches!r}"
        return f"{self.condition.path} is there"


def compiled(path: str, where: str) -> Find:
    """Raises InvalidTasks naming `where` and what is wrong with the path."""
    try:
        query: JSONPath = _environment.compile(path)  # type: ignore[assignment]
    except JSONPathError as error:
        said = str(error).splitlines()[0]
        raise InvalidTasks(f"{where}: {path!r} is not a JSONPath ({said}), try $.input") from error

    def find(view: Any) -> list[Any]:
        found = []
        for match in query.finditer(view):
            if match.obj is not None:
                found.append(match.obj)
            if len(found) > _MAX_FOUND:
                raise Unusable(f"{path} finds more than {_MAX_FOUND} values", field=path)
        return found

    return find


def _text_reader(
    spec: str, mapping: SourceMapping, where: str
) -> Callable[[Mapping[str, Any]], Any]:
    if spec.lstrip().startswith("$"):
        read = _path_reader(spec, mapping, where)
    elif _PLACEHOLDER.search(spec):
        read = _template_reader(spec, mapping, where)
    else:
        raise InvalidTasks(
            f"{where}: {spec!r} is neither a JSONPath ($.input) nor a template "
            "({{ $.record.subject }})"
        )
    if mapping.input_pattern is None:
        return read
    pattern = re.compile(mapping.input_pattern)

    def cut(view: Mapping[str, Any]) -> Any:
        text = read(view)
        match = pattern.search(text) if isinstance(text, str) else None
        if match is None:
            raise Unusable(f"input_pattern {pattern.pattern!r} does not match", field="input")
        return _group(match, "input")

    return cut


def _path_reader(
    path: str, mapping: SourceMapping, where: str
) -> Callable[[Mapping[str, Any]], Any]:
    find = compiled(path, where)

    def read(view: Mapping[str, Any]) -> Any:
        found = find(view)
        if not found:
            raise Unusable(f"{path} finds nothing", field="input")
        if mapping.pick == "only" and len(found) > 1:
            raise Unusable(f"{path} finds {len(found)} values, not one", field="input")
        if mapping.pick == "join":
            return _bounded("\n".join(_text(value, path) for value in found))
        value = found[0] if mapping.pick in ("first", "only") else found[-1]
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return value
        return _bounded(_text(value, path))

    return read


def _template_reader(
    template: str, mapping: SourceMapping, where: str
) -> Callable[[Mapping[str, Any]], str]:
    readers = {
        match[0]: _path_reader(match[1], mapping, where)
        for match in _PLACEHOLDER.finditer(template)
    }

    def read(view: Mapping[str, Any]) -> str:
        def fill(match: re.Match[str]) -> str:
            return _text(readers[match[0]](view), match[1])

        return _bounded(_PLACEHOLDER.sub(fill, template))

    return read


def _label_reader(rule: LabelRule, where: str) -> Callable[[Any], str]:
    if rule.read == "json":
        find = compiled(rule.field, where)
        return lambda answer: _json_label(answer, rule.field, find)
    if rule.read == "regex":
        pattern = re.compile(rule.pattern or "")
        return lambda answer: _regex_label(answer, pattern)
    return lambda answer: _checked(read_answer(_answer_text(answer)))


def _fenced(answer: str) -> str | None:
    """What stands between the fences of Markdown, None where it is not that. No regular expression:
    one that skips blanks on both sides takes a day for an answer of newlines."""
    text = answer.strip()
    if not (text.startswith(_FENCE) and text.endswith(_FENCE)) or len(text) < 2 * len(_FENCE):
        return None
    language, newline, inside = text[len(_FENCE) : -len(_FENCE)].partition("\n")
    plain = not language.strip() or (language.isascii() and language.strip().isalpha())
    return inside if newline and plain else None


def _json_label(answer: Any, path: str, find: Find) -> str:
    document = answer
    if isinstance(answer, str):
        fenced = _fenced(answer[:_MAX_ANSWER_CHARS])
        try:
            document = parse((_answer_text(answer) if fenced is None else fenced).encode())
        except (Unusable, UnicodeEncodeError) as error:
            raise Unusable(f"the answer is not JSON: {error}", field="output") from error
    found = find(document) if isinstance(document, dict | list) else []
    if len(found) != 1:
        raise Unusable(f"{path} finds {len(found)} values in the answer, not one", field="output")
    label = text_of(found[0])
    if label is None:
        raise Unusable(f"{path} is no text in the answer", field="output")
    return _checked(label.strip())


def _regex_label(answer: Any, pattern: re.Pattern[str]) -> str:
    match = None
    for match in pattern.finditer(_answer_text(answer)):  # noqa: B007  the last one counts
        pass
    if match is None:
        raise Unusable(f"pattern {pattern.pattern!r} is not in the answer", field="output")
    return _checked(_group(match, "label").strip())


def _group(match: re.Match[str], name: str) -> str:
    found = match[name] if name in match.re.groupindex else match[1]
    return found or ""


def _answer_text(answer: Any) -> str:
    text = _text(answer, "answer")
    if len(text) > _MAX_ANSWER_CHARS:
        raise Unusable(f"an answer of {len(text)} characters", field="output")
    return text


def _checked(label: str) -> str:
    if not label:
        raise Unusable("the answer holds no label", field="output")
    if len(label) > 256:
        raise Unusable(
            f"{len(label)} characters are no label (at most 256): see `label.read`", field="output"
        )
    return label


def _single(found: list[Any], name: str) -> Any:
    if not found:
        raise Unusable(f"{name} finds nothing: the call has no answer", field="output")
    return found[-1]


def _text(value: Any, path: str) -> str:
    text = text_of(value)
    if text is None:
        raise Unusable(f"{path} is {type(value).__name__}, not a text", field=path)
    return text


def _bounded(text: str) -> str:
    if not text.strip():
        raise Unusable("the text is blank", field="input")
    if len(text) > MAX_TEXT_CHARS:
        raise Unusable(
            f"the text has {len(text)} characters, of at most {MAX_TEXT_CHARS}", field="input"
        )
    return text


def _clean(text: str | None) -> str | None:
    """An empty one counts as none; a long one is cut, as labels and names are short."""
    return text[:256] if text else None
