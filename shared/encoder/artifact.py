"""An encoder artifact: a folder with `model.onnx`, `tokenizer.json` and `encoder.json`.

`encoder.json` names the SHA-256 of the other two. Its `digest` covers everything that decides
the numbers, so that two encoders with one digest give the same embeddings.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from shared.contracts.manifest import Sha256, sha256
from shared.encoder.errors import BrokenEncoder, EncoderError
from shared.encoder.lock import locked

MODEL, TOKENIZER, INFO = "model.onnx", "tokenizer.json", "encoder.json"
_FILES = frozenset({MODEL, TOKENIZER, INFO})
_CHUNK = 1 << 20
# Metadata of a model that gives a text the same embedding, to the last bit, whatever its row is
# filled up to, as long as that is a multiple of four.
PACKED = {"rows": "packed"}

Precision = Literal["float32", "int8"]
Positive = Annotated[int, Meta(ge=1)]


class EncoderFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an encoder besides its files.

    `max_tokens` counts the special tokens too. `weights_sha256` is of the source model's weights
    and `made_by` names the versions that built the artifact: for auditors, not in the digest.
    """

    name: str
    dim: Positive
    max_tokens: Positive
    pad_id: Annotated[int, Meta(ge=0)]
    pooling: str
    normalised: bool
    precision: Precision
    opset: Positive
    weights_sha256: Sha256
    made_by: dict[str, str]


class EncoderInfo(EncoderFacts, frozen=True, kw_only=True):
    """The contents of `encoder.json`."""

    v: Literal[1] = 1
    model_sha256: Sha256
    tokenizer_sha256: Sha256
    digest: Sha256


@dataclass(frozen=True, slots=True)
class EncoderFiles:
    """A verified artifact in memory: what was hashed is what gets loaded."""

    info: EncoderInfo
    model: bytes
    tokenizer: bytes


def load_encoder_info(folder: Path) -> EncoderInfo:
    """`encoder.json`, after checking that the other files are those it names.

    Raises BrokenEncoder naming the file that is missing or differs.
    """
    info = _read_info(folder)
    for name, expected in ((MODEL, info.model_sha256), (TOKENIZER, info.tokenizer_sha256)):
        try:
            found = file_sha256(folder / name)
        except OSError as error:
            raise _unreadable(folder / name, error) from error
        _check(folder / name, found, expected)
    return info


def read_encoder(folder: Path) -> EncoderFiles:
    """The whole artifact, verified. Raises BrokenEncoder as `load_encoder_info` does."""
    info = _read_info(folder)
    data = {}
    for name, expected in ((MODEL, info.model_sha256), (TOKENIZER, info.tokenizer_sha256)):
        try:
            data[name] = (folder / name).read_bytes()
        except OSError as error:
            raise _unreadable(folder / name, error) from error
        _check(folder / name, sha256(data[name]), expected)
    return EncoderFiles(info, data[MODEL], data[TOKENIZER])


def read_tokenizer(folder: Path) -> tuple[EncoderInfo, bytes]:
    """`encoder.json` and the verified `tokenizer.json`; the model may be missing. Raises
    BrokenEncoder."""
    info = _read_info(folder)
    path = folder / TOKENIZER
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    _check(path, sha256(data), info.tokenizer_sha256)
    return info, data


def write_encoder(
    folder: Path, *, model: bytes, tokenizer: bytes, facts: EncoderFacts
) -> EncoderInfo:
    """Write an artifact, replacing an older one in one rename.

    Equal arguments give equal bytes. Raises EncoderError when `folder` holds anything else than
    an encoder artifact: nobody's files are deleted.
    """
    hashes = {"model_sha256": sha256(model), "tokenizer_sha256": sha256(tokenizer)}
    fields = msgspec.structs.asdict(facts) | hashes
    info = msgspec.convert(fields | {"digest": _digest(fields)}, EncoderInfo)
    encoded = msgspec.json.encode(info, order="sorted")
    contents = {MODEL: model, TOKENIZER: tokenizer, INFO: msgspec.json.format(encoded) + b"\n"}
    folder = folder.absolute()
    with locked(folder):
        _replace(folder, contents)
    return info


def file_sha256(path: Path) -> str:
    """SHA-256 of a file of any size, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def plain_tokenizer(data: bytes) -> bytes:
    """A `tokenizer.json` without its truncation and padding, which the encoder decides.

    Edited as JSON, so that the bytes do not depend on the version of `tokenizers`.
    """
    document: dict[str, Any] = json.loads(data)
    document["truncation"] = document["padding"] = None
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _replace(folder: Path, contents: Mapping[str, bytes]) -> None:
    if folder.exists():
        strangers = {path.name for path in folder.iterdir()} - _FILES
        if strangers:
            raise EncoderError(f"{folder} holds other files ({min(strangers)}): not replaced")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        fresh = Path(scratch) / "new"
        fresh.mkdir()
        for name, data in contents.items():
            (fresh / name).write_bytes(data)
        if folder.exists():
            shutil.move(folder, Path(scratch) / "old")
        fresh.rename(folder)


def _read_info(folder: Path) -> EncoderInfo:
    path = folder / INFO
    try:
        info = msgspec.json.decode(path.read_bytes(), type=EncoderInfo)
    except OSError as error:
        raise _unreadable(path, error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BrokenEncoder(f"{path} is not an encoder's description: {error}") from error
    _check(path, _digest(msgspec.structs.asdict(info)), info.digest)
    return info


def _digest(fields: Mapping[str, Any]) -> str:
    deciding = (
        *("dim", "max_tokens", "pad_id", "pooling", "normalised", "precision"),
        *("model_sha256", "tokenizer_sha256"),
    )
    return sha256(json.dumps({name: fields[name] for name in deciding}, sort_keys=True).encode())


def _check(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise BrokenEncoder(
            f"{path} is damaged or not the one exported: SHA-256 {found[:12]}…, "
            f"expected {expected[:12]}…; export the encoder again"
        )


def _unreadable(path: Path, error: OSError) -> BrokenEncoder:
    if isinstance(error, FileNotFoundError):
        return BrokenEncoder(f"{path} is missing: not a complete encoder folder")
    return BrokenEncoder(f"{path} cannot be read: {error}")
