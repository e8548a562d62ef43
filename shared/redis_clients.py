"""Redis clients for an address: one server, whoever Sentinel says is the master, or a Cluster.

    redis://user:password@host:6379/0            one server; rediss:// over TLS, unix:// a socket
    redis+sentinel://user:password@a:26379,b:26379/mymaster/0
    redis+cluster://user:password@a:6379,b:6379

`rediss+sentinel` and `rediss+cluster` are the same over TLS. redis-py's options follow as a query:
`?ssl_ca_certs=/ca.pem&ssl_certfile=/me.pem&ssl_keyfile=/me.key`; Sentinels that want a password of
their own get `sentinel_username` and `sentinel_password`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

import redis
import redis.asyncio
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.cluster import RedisCluster as AsyncRedisCluster
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.cluster import ClusterNode, RedisCluster
from redis.commands.core import Script
from redis.connection import SSLConnection, parse_url
from redis.sentinel import Sentinel

from shared.invalid_settings import InvalidRedisUrl

_EXPECTED = (
    "not a Redis URL; expected redis://user:password@host:port/db, "
    "redis+sentinel://host:port,host:port/service or redis+cluster://host:port,host:port"
)
_PORTS = {"sentinel": 26379, "cluster": 6379}


@dataclass(frozen=True)
class _Address:
    """Several hosts and what is said to them; `options` are redis-py's, secrets among them."""

    hosts: tuple[tuple[str, int], ...]
    service: str
    options: dict[str, Any] = field(repr=False)
    sentinel_options: dict[str, Any] = field(repr=False)


def client(url: str, **options: Any) -> redis.Redis:
    """A client that connects when first used. options: redis-py's, for every connection.

    Raises InvalidRedisUrl, which never shows the URL's password, when `url` is not one.
    """
    kind = _kind(url)
    if kind is None:
        return redis.Redis.from_url(_one(url), **options)
    address = _address(url, kind)
    merged = options | address.options
    if kind == "cluster":
        return cast(redis.Redis, _LateCluster(address, merged))
    asking = _to_sentinels(options, address)
    sentinel = Sentinel(address.hosts, sentinel_kwargs=asking, **merged)  # type: ignore[no-untyped-call]
    return cast(redis.Redis, sentinel.master_for(address.service))  # type: ignore[no-untyped-call]


def async_client(url: str, **options: Any) -> redis.asyncio.Redis:
    """As `client`, for asyncio."""
    kind = _kind(url)
    if kind is None:
        return redis.asyncio.Redis.from_url(_one(url), **options)
    address = _address(url, kind)
    merged = options | address.options
    if kind == "cluster":
        nodes = [AsyncClusterNode(host, port) for host, port in address.hosts]
        return cast(redis.asyncio.Redis, AsyncRedisCluster(startup_nodes=nodes, **merged))
    asking = _to_sentinels(options, address)
    sentinel = AsyncSentinel(address.hosts, sentinel_kwargs=asking, **merged)  # type: ignore[no-untyped-call]
    return cast(redis.asyncio.Redis, sentinel.master_for(address.service))


class _LateCluster:
    """redis-py's cluster client asks for the nodes as soon as it is made; this makes it when first
    used, so that a service starts while Redis is away."""

    def __init__(self, address: _Address, options: dict[str, Any]) -> None:
        self.where = ",".join(f"{host}:{port}" for host, port in address.hosts)
        self._nodes = [ClusterNode(host, port) for host, port in address.hosts]  # type: ignore[no-untyped-call]
        self._options = options
        self._made: RedisCluster | None = None
        self._lock = threading.Lock()

    def register_script(self, script: str) -> Script:
        return Script(cast(redis.Redis, self), script.encode())

    def close(self) -> None:
        with self._lock:
            if self._made is not None:
                self._made.close()

    def __getattr__(self, name: str) -> Any:
        with self._lock:
            if self._made is None:
                self._made = _made(self._nodes, self._options)
        return getattr(self._made, name)


def _made(nodes: list[ClusterNode], options: dict[str, Any]) -> RedisCluster:
    try:
        return RedisCluster(startup_nodes=nodes, **options)
    except redis.exceptions.RedisClusterException as error:  # not a RedisError
        raise redis.ConnectionError(str(error)) from error


def _kind(url: str) -> str | None:
    """ "sentinel", "cluster" or None for one server."""
    scheme = url.partition("://")[0].lower()
    transport, _, kind = scheme.partition("+")
    if not kind:
        return None
    if transport not in ("redis", "rediss") or kind not in _PORTS:
        raise InvalidRedisUrl(_EXPECTED)
    return kind


def _one(url: str) -> str:
    try:
        parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError:
        # urllib quotes the part it cannot read, which may be a piece of the password.
        raise InvalidRedisUrl(_EXPECTED) from None
    return url


def _address(url: str, kind: str) -> _Address:
    try:
        parts = urlsplit(url)
        login, _, hosts = parts.netloc.rpartition("@")
        found = tuple(_host(host, _PORTS[kind]) for host in hosts.split(","))
        service, database = _path(parts, kind)
        query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        of_sentinels = {
            name.removeprefix("sentinel_"): query.pop(name)
            for name in ("sentinel_username", "sentinel_password")
            if name in query
        }
        transport = parts.scheme.partition("+")[0]
        at = f"{login}@" if login else ""
        one = f"{transport}://{at}host/{database}?{urlencode(query)}"
        options = dict(parse_url(one))  # type: ignore[no-untyped-call]
    except ValueError:
        raise InvalidRedisUrl(_EXPECTED) from None
    options.pop("host", None)
    options.pop("port", None)
    if kind == "cluster":
        options.pop("db", None)
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
        of_sentinels |= {name: value for name, value in options.items() if name.startswith("ssl")}
    return _Address(found, service, options, of_sentinels)


def _host(text: str, port: int) -> tuple[str, int]:
    host, colon, number = text.rpartition(":")
    if not colon:
        host, number = text, str(port)
    if not host or not 0 < int(number) < 65_536:
        raise ValueError
    return host.strip("[]"), int(number)


def _path(parts: SplitResult, kind: str) -> tuple[str, str]:
    """Sentinel's service and the database; a cluster has neither."""
    names = [name for name in parts.path.split("/") if name]
    if kind == "cluster":
        if names and names != ["0"]:
            raise ValueError
        return "", "0"
    if not 1 <= len(names) <= 2:
        raise ValueError
    return names[0], names[1] if len(names) == 2 else "0"


def _to_sentinels(options: dict[str, Any], address: _Address) -> dict[str, Any]:
    """Sentinels are asked with the same patience."""
    patience = ("socket_timeout", "socket_connect_timeout", "retry")
    shared = {name: options[name] for name in patience if name in options}
    return shared | address.sentinel_options
