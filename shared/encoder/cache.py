"""Embeddings kept in a SQLite file, so that a text is encoded once across days and restarts."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path

import numpy as np

from shared.encoder.base import Encoder, Matrix
from shared.encoder.lock import locked
from shared.encoder.onnx_encoder import ENCODING
from shared.encoder.wrapped import WrappedEncoder

_log = logging.getLogger(__name__)

_BUSY_SECONDS = 30.0
_TEXTS_AT_ONCE = 2048  # bounds memory, and what a crash can lose
_KEYS_AT_ONCE = 512  # parameters of one SELECT
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS encoders (id INTEGER PRIMARY KEY, digest TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS embeddings (
    encoder INTEGER NOT NULL, text BLOB NOT NULL, vector BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS embeddings_key ON embeddings (encoder, text);
"""


class _Damage(sqlite3.DatabaseError):
    """SQLite's own check failed."""


class CachedEncoder(WrappedEncoder):
    """An Encoder that remembers, keyed by (encoder digest and ENCODING, SHA-256 of the text);
    nothing of word pieces.

    Several processes may share the file. A damaged file is moved aside and begun anew, with a
    warning; when the file cannot be written (disk full), encoding goes on without remembering.
    """

    def __init__(self, encoder: Encoder, path: Path) -> None:
        super().__init__(encoder)
        self._path = Path(path).absolute()
        self._lock = threading.Lock()
        self._connection, self._encoder_id = self._open()

    def encode(self, texts: Sequence[str]) -> Matrix:
        """As the wrapped encoder's; each different text unknown so far is encoded once."""
        embeddings = np.empty((len(texts), self.dim), np.float32)
        rows: defaultdict[bytes, list[int]] = defaultdict(list)
        for row, text in enumerate(texts):
            rows[text_key(text)].append(row)
        with self._lock:
            for keys in _chunks(rows, _TEXTS_AT_ONCE):
                vectors = self._vectors({key: texts[rows[key][0]] for key in keys})
                for key, vector in vectors.items():
                    embeddings[rows[key]] = vector
        return embeddings

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def __enter__(self) -> CachedEncoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _vectors(self, texts: dict[bytes, str]) -> dict[bytes, Matrix]:
        vectors = self._look_up(list(texts))
        missing = {key: text for key, text in texts.items() if key not in vectors}
        if missing:
            fresh = dict(zip(missing, self._encoder.encode(list(missing.values())), strict=True))
            self._remember(fresh)
            vectors |= fresh
        return vectors

    def _look_up(self, keys: list[bytes]) -> dict[bytes, Matrix]:
        found: dict[bytes, Matrix] = {}
        with self._rebuilding():
            for start in range(0, len(keys), _KEYS_AT_ONCE):
                some = keys[start : start + _KEYS_AT_ONCE]
                marks = ",".join("?" * len(some))
                query = "SELECT text, vector FROM embeddings WHERE encoder = ? AND text IN "
                rows = self._connection.execute(f"{query}({marks})", [self._encoder_id, *some])
                for key, blob in rows:
                    if len(blob) == 4 * self.dim:
                        found[key] = np.frombuffer(blob, "<f4")
        return {key: vector for key, vector in found.items() if _is_unit(vector)}

    def _remember(self, fresh: dict[bytes, Matrix]) -> None:
        rows = [(self._encoder_id, key, row.astype("<f4").tobytes()) for key, row in fresh.items()]
        try:
            with self._rebuilding(), self._connection:
                # OR REPLACE: another process may have been as quick, or the old row was damaged.
                self._connection.executemany(
                    "INSERT OR REPLACE INTO embeddings (encoder, text, vector) VALUES (?, ?, ?)",
                    rows,
                )
        except sqlite3.OperationalError as error:
            _log.warning("embeddings are not remembered in %s: %s", self._path, error)

    @contextmanager
    def _rebuilding(self) -> Iterator[None]:
        """A damaged file costs what it held, never the call."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._connection.close()
            self._connection, self._encoder_id = self._open(suspect=True)

    def _open(self, *, suspect: bool = False) -> tuple[sqlite3.Connection, int]:
        with locked(self._path):  # no two processes create, or move aside, at the same time
            try:
                # Reading every page takes long, so only with a reason; another process may have
                # put a sound file in place by now.
                return self._connect(check=suspect)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                aside = _move_aside(self._path)
                _log.warning("%s is damaged (%s): moved to %s", self._path, error, aside)
                return self._connect(check=False)

    def _connect(self, *, check: bool) -> tuple[sqlite3.Connection, int]:
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            if check and connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise _Damage("its pages are inconsistent")
            connection.executescript(_SCHEMA)
            # Embeddings of another way of encoding differ in their last digits.
            digest = (f"{self._encoder.digest}/{ENCODING}",)
            with connection:
                connection.execute("INSERT OR IGNORE INTO encoders (digest) VALUES (?)", digest)
            select = "SELECT id FROM encoders WHERE digest = ?"
            (encoder_id,) = connection.execute(select, digest).fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        return connection, int(encoder_id)


def text_key(text: str) -> bytes:
    """SHA-256 of the text; a lone surrogate, which UTF-8 lacks, is kept as it is."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _chunks(keys: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    rest = iter(keys)
    while chunk := list(islice(rest, size)):
        yield chunk


def _is_unit(vector: Matrix) -> bool:
    """A row damaged in place is encoded again."""
    with np.errstate(all="ignore"):
        return bool(abs(float(vector @ vector) - 1) < 1e-3)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Damage only: a locked file or a full disk is no reason to start anew."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, _Damage) or (code is not None and code & 0xFF in _DAMAGED)


def _move_aside(path: Path) -> Path:
    aside = next(
        candidate
        for number in count(1)
        if not (candidate := path.with_name(f"{path.name}.damaged-{number}")).exists()
    )
    path.rename(aside)
    for suffix in ("-wal", "-shm"):  # a new file must not meet the old one's log
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return aside
