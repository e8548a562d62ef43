from __future__ import annotations

import os
from pathlib import Path

import pytest

from shared.encoder.threads import cpu_quota, usable_threads


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def membership(tmp_path: Path) -> Path:
    return tmp_path / "membership"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


def test_version_2_takes_the_smallest_of_the_parents(root, membership):
    write(membership, "0::/pod/container\n")
    write(root / "pod" / "container" / "cpu.max", "400000 100000\n")
    write(root / "pod" / "cpu.max", "150000 100000\n")
    write(root / "cpu.max", "max 100000\n")
    assert cpu_quota(root, membership) == 1.5


def test_version_2_inside_a_container(root, membership):
    write(membership, "0::/\n")
    write(root / "cpu.max", "50000 100000\n")
    assert cpu_quota(root, membership) == 0.5
    assert usable_threads(root, membership) == 1


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_version_1(root, membership, mount):
    write(membership, f"4:memory:/job\n2:{mount}:/job\n")
    write(root / mount / "job" / "cpu.cfs_quota_us", "300000\n")
    write(root / mount / "job" / "cpu.cfs_period_us", "100000\n")
    assert cpu_quota(root, membership) == 3


@pytest.mark.parametrize("text", ["max 100000\n", "garbage", "100000 0\n", "-1\n"])
def test_no_limit(root, membership, text):
    write(membership, "0::/\n")
    write(root / "cpu.max", text)
    assert cpu_quota(root, membership) is None


def test_no_cgroups(root, membership):
    assert cpu_quota(root, membership) is None
    assert usable_threads(root, membership) == len(os.sched_getaffinity(0))


def test_the_affinity_limits(root, membership):
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_threads(root, membership) == 1
    finally:
        os.sched_setaffinity(0, before)
