"""Fits on a Dask cluster: two worker processes on loopback, the same bytes, and what breaks."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dask
import distributed
import numpy as np
import pytest
from doubles import HashEncoder
from joblib import Parallel, delayed
from pydantic import ValidationError

from services.ctl.embedded.ports import LOOPBACK, free_port
from services.trainer.config import TrainerSettings
from services.trainer.examine import Examiner
from services.trainer.pipeline import Refit
from shared.clock import FakeClock
from shared.contracts.events import Trace
from shared.contracts.report import unpublished_key
from shared.contracts.tasks import Task
from shared.core.window import WindowKey
from shared.fitting import cluster as module
from shared.fitting.challenger import fit_challenger
from shared.fitting.cluster import ClusterFailed, ClusterUnavailable, DaskCluster, origin
from shared.fitting.stored import horizon_of
from shared.registry.memory import MemoryRegistry
from shared.store.parquet import WindowStore, table_of
from tests.certificates import Authority

pytestmark = pytest.mark.timeout(300)

DAY = date(2026, 1, 5)
TASK = Task(name="support", alpha=0.8)
WORDS = {
    "billing": ["invoice", "charged", "payment", "receipt", "card"],
    "delivery": ["parcel", "courier", "late", "shipping", "address"],
}


@pytest.fixture(scope="module")
def traces() -> list[Trace]:
    rng = np.random.default_rng(0)
    labels = list(WORDS)
    return [
        Trace(
            id=f"t-{i:04}",
            task="support",
            input=" ".join([*rng.choice(WORDS[labels[i % 2]], 3), f"n{rng.integers(900)}"]),
            teacher=labels[i % 2],
            occurred_at=datetime(2026, 1, 5, tzinfo=UTC) + timedelta(seconds=i),
        )
        for i in range(300)
    ]


@contextmanager
def two_workers(
    folder: Path, *, threads: int = 1, may_die: int = 1
) -> Iterator[distributed.LocalCluster]:
    """Processes, of which a fold may cost `may_die` their life and no more."""
    chosen = {
        "distributed.scheduler.allowed-failures": may_die,
        "temporary-directory": str(folder),
    }
    with (
        dask.config.set(chosen),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=threads, processes=True, host=LOOPBACK,
            dashboard_address=None, silence_logs=logging.CRITICAL,
        ) as cluster,
    ):  # fmt: skip
        yield cluster


@contextmanager
def in_this_process(workers: int, **options: object) -> Iterator[distributed.LocalCluster]:
    with distributed.LocalCluster(
        n_workers=workers, threads_per_worker=2, processes=False, host=LOOPBACK,
        **{"protocol": "tcp://", "dashboard_address": f"{LOOPBACK}:0"} | options,
        silence_logs=logging.CRITICAL,
    ) as cluster:  # fmt: skip
        yield cluster


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[distributed.LocalCluster]:
    with two_workers(tmp_path_factory.mktemp("dask")) as cluster:
        yield cluster


@pytest.fixture
def dask_cluster(local: distributed.LocalCluster) -> DaskCluster:
    return DaskCluster(local.scheduler_address)


@pytest.fixture(scope="module")
def here(traces: list[Trace]) -> tuple[bytes, dict[str, bytes]]:
    """What the same fit makes in this process."""
    return fitted(traces, None)


def fitted(traces: list[Trace], cluster: DaskCluster | None) -> tuple[bytes, dict[str, bytes]]:
    made = fit_challenger(
        TASK, DAY, horizon_of(table_of(traces)), HashEncoder(), jobs=1, cluster=cluster
    )
    assert made.artifact is not None, made.reason
    return made.artifact.manifest_bytes, dict(made.artifact.blobs)


def executed(dask_worker: distributed.Worker) -> int:
    return int(dask_worker.state.executed_count)


# --- the same bytes


def test_two_workers_make_the_artifact_that_one_process_makes(
    local: distributed.LocalCluster,
    dask_cluster: DaskCluster,
    traces: list[Trace],
    here: tuple[bytes, dict[str, bytes]],
) -> None:
    with distributed.Client(local, set_as_default=False) as watching:
        before = watching.run(executed)
        assert fitted(traces, dask_cluster) == here
        after = watching.run(executed)
    assert len(after) == 2
    assert all(after[worker] > before[worker] for worker in after)


def test_a_worker_that_is_killed_meanwhile_changes_no_byte(
    local: distributed.LocalCluster,
    dask_cluster: DaskCluster,
    traces: list[Trace],
    here: tuple[bytes, dict[str, bytes]],
) -> None:
    with distributed.Client(local, set_as_default=False) as watching:
        pids = list(watching.run(os.getpid).values())
        done = threading.Event()

        def kill_one() -> None:
            begun = sum(watching.run(executed).values())
            while sum(watching.run(executed, on_error="ignore").values()) < begun + 2:
                if done.wait(0.02):
                    return
            os.kill(pids[0], signal.SIGKILL)

        killer = threading.Thread(target=kill_one)
        killer.start()
        try:
            assert fitted(traces, dask_cluster) == here
        finally:
            done.set()
            killer.join(20)
        with pytest.raises(ProcessLookupError):
            os.kill(pids[0], 0)


# --- what goes wrong leaves nothing


def test_a_fold_that_kills_its_workers_is_named(tmp_path: Path) -> None:
    with (
        # With one thread in all joblib would work, and die, in this process.
        two_workers(tmp_path, threads=2, may_die=0) as doomed,
        pytest.raises(ClusterFailed, match="the same fold ended 1 of the cluster's workers"),
        DaskCluster(doomed.scheduler_address).joined(),
    ):
        Parallel(n_jobs=-1)(delayed(os._exit)(1) for _ in range(2))


def test_without_its_cluster_a_refit_publishes_nothing_and_can_be_made_again(
    tmp_path: Path, traces: list[Trace], monkeypatch: pytest.MonkeyPatch, dask_cluster: DaskCluster
) -> None:
    monkeypatch.setattr(module, "CONNECT_SECONDS", 1.0)
    store, registry, encoder = WindowStore(str(tmp_path)), MemoryRegistry(), HashEncoder()
    store.write("support", DAY, traces)
    away = DaskCluster(f"tcp://{LOOPBACK}:{free_port()}")
    refit = Refit(
        tasks={"support": TASK},
        windows=store,
        encoder=encoder.digest,
        examine=Examiner(store, encoder, cluster=away),
        registry=registry,
        announce=lambda _: None,
        clock=FakeClock(),
    )
    with pytest.raises(ClusterUnavailable, match="no Dask scheduler at"):
        refit(WindowKey("support", DAY))
    assert registry.versions("support") == []
    assert store.verdict("support", DAY) is None
    refit = replace(refit, examine=Examiner(store, encoder, cluster=dask_cluster))
    version = refit(WindowKey("support", DAY)).version
    assert version is not None
    assert registry.active("support").version == version
    # Learning curves are fitted there, too.
    assert registry.report("support", version) is not None
    assert registry.report("support", unpublished_key(DAY.isoformat())) is None


def test_a_scheduler_that_goes_away_is_met_by_a_later_attempt() -> None:
    with in_this_process(1) as short:
        closer = threading.Timer(1.0, short.close)
        closer.start()
        with pytest.raises(ClusterUnavailable):
            _sleep_on(DaskCluster(short.scheduler_address))
        closer.join()


def _sleep_on(cluster: DaskCluster) -> None:
    with cluster.joined():
        Parallel(n_jobs=-1)(delayed(time.sleep)(8.0) for _ in range(2))


def test_a_cluster_without_workers_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_SECONDS", 1.0)
    with (
        in_this_process(0) as empty,
        pytest.raises(ClusterUnavailable, match="has no workers"),
        DaskCluster(empty.scheduler_address).joined(),
    ):
        pass


# --- whose numbers


def test_workers_with_other_versions_are_refused(
    dask_cluster: DaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The copy of `origin` that is sent stays the real one.
    monkeypatch.setattr(module, "_compare", _comparing(numpy="1.0.0"))
    with (
        pytest.raises(ClusterFailed, match=r"other versions: numpy \S+ for 1\.0\.0"),
        dask_cluster.joined(),
    ):
        pass


def test_workers_on_another_kind_of_processor_are_told_of(
    dask_cluster: DaskCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_compare", _comparing(**{"blas kernels": "PowerOfTwo"}))
    with dask_cluster.joined():
        assert Parallel(n_jobs=-1)(delayed(abs)(-n) for n in range(4)) == [0, 1, 2, 3]
    assert "another kind of processor" in caplog.text


def _comparing(**ours: str) -> object:
    compare = module._compare

    def comparing(told: dict[str, object]) -> None:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(module, "origin", lambda: {**origin(), **ours})
            compare(told)

    return comparing


# --- who may join


def test_over_tls_only_certificates_of_the_authority_join(tmp_path: Path) -> None:
    ours, strangers = Authority(tmp_path / "ours"), Authority(tmp_path / "others", "others")
    server, mine = ours.issue("scheduler"), ours.issue("trainer")
    stranger = strangers.issue("stranger")
    security = distributed.Security(
        require_encryption=True, tls_ca_file=str(ours.file),
        tls_scheduler_cert=str(server.certificate), tls_scheduler_key=str(server.key),
        tls_worker_cert=str(server.certificate), tls_worker_key=str(server.key),
        tls_client_cert=str(server.certificate), tls_client_key=str(server.key),
    )  # fmt: skip
    with in_this_process(1, protocol="tls://", security=security) as guarded:
        address = guarded.scheduler_address
        with DaskCluster(address, ours.file, mine.certificate, mine.key).joined():
            assert Parallel(n_jobs=-1)(delayed(abs)(-n) for n in range(3)) == [0, 1, 2]
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(module, "CONNECT_SECONDS", 1.5)
            for joining in (
                DaskCluster(address, ours.file, stranger.certificate, stranger.key),
                DaskCluster(address.replace("tls://", "tcp://")),
            ):
                with pytest.raises(ClusterUnavailable), joining.joined():
                    pass


@pytest.mark.parametrize(
    ("address", "files"),
    [
        ("localhost:8786", 0),
        ("http://localhost:8786", 0),
        ("tcp://localhost", 0),
        ("tcp://localhost:many", 0),
        ("tls://localhost:8786", 0),
        ("tls://localhost:8786", 2),
        ("tcp://localhost:8786", 3),
    ],
)
def test_addresses_that_are_none(address: str, files: int) -> None:
    with pytest.raises(ValueError, match=r"tls://"):
        DaskCluster(address, *[Path(f"{n}.pem") for n in range(files)])


def settings(**values: object) -> TrainerSettings:
    return TrainerSettings(unsigned="allow", **values)  # type: ignore[arg-type]


def test_settings_choose_the_cluster() -> None:
    assert settings().cluster() is None
    chosen = settings(fit_backend="dask", fit_cluster="tcp://127.0.0.1:8786")
    assert chosen.cluster() == DaskCluster("tcp://127.0.0.1:8786")
    pem = Path("a.pem")
    over_tls = settings(
        fit_backend="dask", fit_cluster="tls://dask:8786", fit_cluster_ca=pem,
        fit_cluster_certificate=pem, fit_cluster_key=pem,
    )  # fmt: skip
    assert over_tls.cluster() == DaskCluster("tls://dask:8786", pem, pem, pem)


def test_plain_connections_to_other_machines_are_refused_unless_allowed() -> None:
    with pytest.raises(ValidationError, match="runs code in the trainer"):
        settings(fit_backend="dask", fit_cluster="tcp://dask:8786")
    allowed = settings(fit_backend="dask", fit_cluster="tcp://dask:8786", fit_cluster_plain="allow")
    assert allowed.cluster() == DaskCluster("tcp://dask:8786")
    with pytest.raises(ValidationError, match="needs TRACER_FIT_CLUSTER"):
        settings(fit_backend="dask")
