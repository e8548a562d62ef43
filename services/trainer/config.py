"""The trainer's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from shared.fitting.cluster import DaskCluster
from shared.registry.trust import Trust, trust_of
from shared.settings import ServiceSettings


class TrainerSettings(ServiceSettings):
    """`store` is a folder or an `s3://` URL; `lateness`, `idle` and `partition_idle` are seconds.

    A window closes `lateness` after its day's end in event time, or when its task has been idle
    for `idle` and the clock is past that point.
    """

    store: str = "data/windows"
    cache: Path = Path("data/cache")
    encoder: Path = Path("data/encoder")
    lateness: float = Field(default=3600.0, ge=0)
    idle: float = Field(default=300.0, gt=0)
    partition_idle: float = Field(default=30.0, gt=0)
    fit_jobs: int = Field(default=1, ge=1)
    # Where folds are computed: `loky`, fit_jobs processes of this machine, or `dask`, a cluster at
    # fit_cluster, tls://host:port with three PEM files; tcp:// to another machine only by `allow`.
    fit_backend: Literal["loky", "dask"] = "loky"
    fit_cluster: str | None = None
    fit_cluster_ca: Path | None = None
    fit_cluster_certificate: Path | None = None
    fit_cluster_key: Path | None = None
    fit_cluster_plain: Literal["refuse", "allow"] = "refuse"
    keep_versions: int = Field(default=20, ge=1)  # stored of each task, most of what Redis holds
    encoder_threads: int | None = Field(default=None, ge=1)
    max_batch: int = Field(default=5_000, ge=1)
    # What versions are signed with, in PEM; best from a file: TRACER_SIGNING_KEY_FILE.
    signing_key: SecretStr | None = None

    @model_validator(mode="after")
    def _folds_go_where_nobody_listens(self) -> Self:
        cluster = self.cluster()
        if cluster and not cluster.is_guarded and self.fit_cluster_plain != "allow":
            raise ValueError(
                "TRACER_FIT_CLUSTER is tcp:// to another machine: whoever reaches that port runs "
                "code in the trainer; use tls://, or say TRACER_FIT_CLUSTER_PLAIN=allow where only "
                "the trainer and its workers reach it"
            )
        return self

    def cluster(self) -> DaskCluster | None:
        """Where folds are computed, None on this machine. Raises ValueError."""
        if self.fit_backend == "loky":
            return None
        if not self.fit_cluster:
            raise ValueError("TRACER_FIT_BACKEND=dask needs TRACER_FIT_CLUSTER, its scheduler")
        return DaskCluster(
            self.fit_cluster,
            self.fit_cluster_ca,
            self.fit_cluster_certificate,
            self.fit_cluster_key,
        )

    @model_validator(mode="after")
    def _what_is_published_is_believed(self) -> Self:
        self.trust()
        return self

    def trust(self) -> Trust:
        """Whom to believe, and what to sign with. Raises ValueError."""
        key = self.signing_key.get_secret_value() if self.signing_key else None
        if self.trusted_keys is not None and not key:
            raise ValueError(
                "TRACER_SIGNING_KEY is not set: no router would believe what is published; set "
                "TRACER_SIGNING_KEY_FILE to the key of `tracerctl keys new`"
            )
        return trust_of(
            self.trusted_keys, unsigned_allowed=self.unsigned == "allow", signing_key=key
        )
