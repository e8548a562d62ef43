"""Scripts, style sheets and pictures, from memory: compressed once, under addresses that name their
content, so that browsers keep them and ask no more."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from shared.web import VENDOR

STATIC = Path(__file__).parent / "static"
FOLDERS = {"vendor": VENDOR, "own": STATIC}
_FOREVER = "public, max-age=31536000, immutable"
_LEAST_BYTES = 500  # less does not pay


@dataclass(frozen=True)
class Asset:
    """address: with a digest of the content. packed: gzip, None where that is no smaller."""

    address: str
    media_type: str
    content: bytes
    packed: bytes | None


@cache
def assets() -> Mapping[str, Asset]:
    """All there are, by the path below /static: `own/console.css`."""
    return {
        f"{folder}/{path.name}": _asset(folder, path)
        for folder, root in FOLDERS.items()
        for path in sorted(root.iterdir())
        if path.is_file()
    }


def address(name: str) -> str:
    """Of `console.css`, or another of them by its name. Raises FileNotFoundError."""
    for folder in FOLDERS:
        if found := assets().get(f"{folder}/{name}"):
            return found.address
    raise FileNotFoundError(f"no asset {name}")


class Assets:
    """Answers GET and HEAD below /static."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", "")).lstrip("/")
        await _answer(assets().get(path), scope)(scope, receive, send)


def _answer(found: Asset | None, scope: Scope) -> Response:
    if scope["method"] not in ("GET", "HEAD"):
        return PlainTextResponse("GET only", 405, {"allow": "GET, HEAD"})
    if found is None:
        return PlainTextResponse("no such file", 404)
    headers = {"cache-control": _FOREVER, "vary": "accept-encoding"}
    content = found.content
    if found.packed is not None and "gzip" in Headers(scope=scope).get("accept-encoding", ""):
        content, headers["content-encoding"] = found.packed, "gzip"
    response = Response(content, headers=headers, media_type=found.media_type)
    if scope["method"] == "HEAD":
        response.body = b""
    return response


def _asset(folder: str, path: Path) -> Asset:
    content = path.read_bytes()
    packed = gzip.compress(content, 9, mtime=0) if len(content) >= _LEAST_BYTES else content
    digest = hashlib.sha256(content).hexdigest()[:12]
    return Asset(
        address=f"/static/{folder}/{path.name}?v={digest}",
        media_type=mimetypes.guess_type(path.name)[0] or "application/octet-stream",
        content=content,
        packed=packed if len(packed) < len(content) else None,
    )
