"""A bound on a whole HTTP call: the libraries' own timeout counts from byte to byte."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any


class WholeCalls:
    """Before an HTTP client of the providers' libraries: its timeout for a read is one for the
    whole call. Providers send blank lines while a request waits, for as long as that lasts.

    Raises TimeoutError, at the latest one such timeout after the last byte. Never streams.
    """

    def send(self, request: Any, **options: Any) -> Any:
        deadline = time.monotonic() + request.extensions["timeout"]["read"]
        client: Any = super()
        response = client.send(request, **{**options, "stream": True})
        try:
            body = b"".join(_until(deadline, response.iter_raw()))
        finally:
            response.close()
        # The body as it came: the headers say how it is to be decoded.
        return type(response)(
            response.status_code, headers=response.headers, content=body, request=request
        )


def _until(deadline: float, chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if time.monotonic() > deadline:
            raise TimeoutError
        yield chunk
