"""Where the folds of a fit are computed: in processes of this machine, or on a Dask cluster.

Whichever it is, only folds travel: what is fitted on them comes back, and everything that becomes
an artifact is made of them in the trainer's own process. So a cluster that fails leaves nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import platform
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from joblib import ParallelBackendBase, parallel_config
from threadpoolctl import threadpool_info

log = logging.getLogger(__name__)

# What a fold's numbers come from: workers must have the trainer's own versions.
_LIBRARIES = ("joblib", "numpy", "scikit-learn", "scipy", "threadpoolctl")
CONNECT_SECONDS = 10.0


class ClusterUnavailable(OSError):
    """The cluster cannot be reached, or went away; the same fit may succeed later."""


class ClusterFailed(RuntimeError):
    """The cluster would fail at this fit again; the message says why."""


@dataclass(frozen=True)
class DaskCluster:
    """A scheduler's `address`, `tcp://host:port` or `tls://host:port`; for TLS the files with the
    authority both sides believe, this side's certificate and its key, all in PEM.

    Dask's protocol is pickle: who reaches the scheduler runs code here and on every worker.
    """

    address: str
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for what is no address, or for TLS without its three files."""
        parts = urlsplit(self.address)
        if parts.scheme not in ("tcp", "tls") or not parts.hostname or not _port(self.address):
            raise ValueError("not a Dask scheduler's address; expected tls://host:port, or tcp://")
        files = (self.ca, self.certificate, self.key)
        if parts.scheme == "tls" and None in files:
            raise ValueError("tls:// needs an authority, a certificate and its key, each a file")
        if parts.scheme == "tcp" and any(files):
            raise ValueError("certificates are given, but tcp:// would not use them: say tls://")

    @property
    def is_guarded(self) -> bool:
        """Whether strangers on the network cannot reach it, as far as the address tells."""
        parts = urlsplit(self.address)
        return parts.scheme == "tls" or _is_loopback(parts.hostname or "")

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Parallel work of joblib in this context is the cluster's. Raises ClusterUnavailable and
        ClusterFailed, also in place of what Dask raises for its own reasons while it works."""
        distributed = _distributed()
        try:
            client = distributed.Client(
                self.address,
                security=self._security(distributed),
                timeout=CONNECT_SECONDS,
                set_as_default=False,
                name="tracer-trainer",
            )
        except OSError as error:
            raise ClusterUnavailable(f"no Dask scheduler at {self.address}: {error}") from error
        try:
            _compare(_told_by_workers(client, self.address))
            with parallel_config(_telling_backend(client)):
                yield
        except distributed.KilledWorker as error:
            raise ClusterFailed(
                f"the same fold ended {error.allowed_failures + 1} of the cluster's workers: out "
                "of memory? Give them more, or lower max_rows"
            ) from error
        except (CancelledError, distributed.comm.CommClosedError) as error:
            raise ClusterUnavailable(f"the Dask cluster at {self.address} went away") from error
        finally:
            client.close(timeout=CONNECT_SECONDS)

    def _security(self, distributed: Any) -> Any:
        if self.ca is None:
            return None
        return distributed.Security(
            tls_ca_file=str(self.ca),
            tls_client_cert=str(self.certificate),
            tls_client_key=str(self.key),
            require_encryption=True,
        )


@contextmanager
def spread(jobs: int, cluster: DaskCluster | None = None) -> Iterator[int]:
    """Where joblib works in this context; gives how many jobs to ask it for."""
    if cluster is None:
        with parallel_config("loky", inner_max_num_threads=1):
            yield jobs
    else:
        with cluster.joined():
            yield -1  # as many as it has threads


def origin() -> dict[str, str]:
    """What numbers computed in this process depend on besides their data."""
    blas = {str(pool["architecture"]) for pool in threadpool_info() if "architecture" in pool}
    found = {name: version(name) for name in _LIBRARIES}
    return found | {"python": platform.python_version(), "blas kernels": "/".join(sorted(blas))}


def _told_by_workers(client: Any, address: str) -> Mapping[str, Any]:
    """What each worker there says of itself. An error in place of it, where it cannot."""
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        told: Mapping[str, Any] = client.run(origin, on_error="return")
    except TimeoutError as error:
        raise ClusterUnavailable(f"the Dask cluster at {address} has no workers") from error
    return told


def _compare(told: Mapping[str, Any]) -> None:
    """Raises ClusterFailed where a worker would compute with other libraries."""
    ours = origin()
    for worker, theirs in told.items():
        if isinstance(theirs, BaseException):
            raise ClusterFailed(
                f"Dask worker {worker} cannot run this trainer's code ({theirs!r}): start it in "
                "the trainer's own image"
            )
        other = sorted(name for name in ours if theirs.get(name) != ours[name])
        if other == ["blas kernels"]:
            log.warning(
                "a Dask worker has another kind of processor: last digits, and so artifacts, may "
                "differ from those of one machine",
                extra={"worker": worker, "theirs": theirs["blas kernels"]},
            )
        elif other:
            differences = ", ".join(f"{n} {theirs.get(n)} for {ours[n]}" for n in other)
            raise ClusterFailed(f"Dask worker {worker} has other versions: {differences}")


def _telling_backend(client: Any) -> ParallelBackendBase:
    """joblib's backend for Dask, which (1.6) waits for ever for what Dask has given up: there a
    task's end is told only if it ended well."""
    from joblib._dask import DaskDistributedBackend

    class TellingBackend(DaskDistributedBackend):  # type: ignore[misc]
        async def _collect(self) -> None:
            while self._continue:
                async for future, result in self.waiting_futures:
                    done, tell = self._results.pop(future), self._callbacks.pop(future)
                    if future.status == "error":
                        result = result[1]
                    elif future.status != "finished":
                        result = CancelledError(f"{future.key}: {future.status}")
                    if isinstance(result, BaseException):
                        done.set_exception(result)
                    else:
                        done.set_result(result)
                    tell(result)  # where it is an exception it is raised from there
                await asyncio.sleep(0.01)

    return TellingBackend(client=client, wait_for_workers_timeout=CONNECT_SECONDS)


def _distributed() -> Any:
    try:
        import distributed
        import distributed.comm
    except ImportError as error:
        raise ClusterFailed(
            "fits on Dask need the extra: pip install 'tracer-kafka[trainer,dask]'"
        ) from error
    return distributed


def _port(address: str) -> int | None:
    try:
        return urlsplit(address).port
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
