"""How many threads this process may really use.

ONNX Runtime counts the machine's cores and ignores both the affinity and the container's quota;
more threads than CPU time only wait for each other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable_threads(root: Path = _CGROUP_ROOT, membership: Path = _MEMBERSHIP) -> int:
    """At least 1, at most the CPUs of the affinity mask and the whole CPUs of the quota."""
    quota = cpu_quota(root, membership)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cpus or 1, int(quota) if quota is not None else cpus or 1))


def cpu_quota(root: Path = _CGROUP_ROOT, membership: Path = _MEMBERSHIP) -> float | None:
    """The smallest CPU quota of this process's cgroup and its parents, or None without one."""
    quotas = [quota for folder in _folders(root, membership) if (quota := _quota(folder))]
    return min(quotas, default=None)


def _folders(root: Path, membership: Path) -> Iterator[Path]:
    """Every cgroup folder whose limits hold for this process: version 1 and version 2."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in (root / controllers, root / "cpu") if controllers else (root,):
            folder = mount / path.lstrip("/")
            yield from (folder, *(parent for parent in folder.parents if root in parent.parents))
            yield mount


def _quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").is_file():  # version 2: "<quota|max> <period>"
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return int(quota) / int(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError, ZeroDivisionError):
        return None  # a limit that cannot be read is no reason not to start
