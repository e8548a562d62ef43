"""The laws of reports, for every registry."""

from __future__ import annotations

from abc import abstractmethod

import msgspec
import pytest

from shared.contracts.report import MAX_REPORT_BYTES, Report, unpublished_key
from shared.registry.base import (
    MAX_UNPUBLISHED_REPORTS,
    CorruptReport,
    Registry,
    ReportTooLarge,
    UnknownVersion,
)
from tests.artifacts import make_artifact, make_report
from tests.contract.registry_laws import NO_VERSION, publish, publish_windows


class ReportLaws:
    """Mixed into a subclass of RegistryLaws."""

    @abstractmethod
    def corrupt_report(self, registry: Registry, task: str, key: str) -> None:
        """Cut the stored report short, behind the registry's back."""

    def test_a_report_of_a_version_comes_back_as_it_was_put(
        self, registry: Registry, task: str
    ) -> None:
        version = publish(registry, make_artifact(task)).version
        report = make_report(task, version)
        assert registry.report(task, report.key) is None
        registry.put_report(report)
        assert registry.report(task, report.key) == report
        assert registry.reports(task) == [version]

    def test_putting_one_again_replaces_it(self, registry: Registry, task: str) -> None:
        version = publish(registry, make_artifact(task)).version
        registry.put_report(make_report(task, version))
        other = msgspec.structs.replace(make_report(task, version), summary="other words")
        registry.put_report(other)
        assert registry.report(task, other.key) == other
        assert registry.reports(task) == [version]

    def test_a_report_of_a_version_that_is_not_stored_is_refused(
        self, registry: Registry, task: str
    ) -> None:
        with pytest.raises(UnknownVersion, match=NO_VERSION):
            registry.put_report(make_report(task, NO_VERSION))
        assert registry.report(task, NO_VERSION) is None
        assert registry.reports(task) == []

    def test_one_of_no_version_needs_none(self, registry: Registry, task: str) -> None:
        report = make_report(task, None, window="2026-03-04")
        registry.put_report(report)
        assert registry.report(task, unpublished_key("2026-03-04")) == report
        assert registry.reports(task) == ["unpublished-2026-03-04"]

    def test_only_the_unpublished_put_last_are_kept(self, registry: Registry, task: str) -> None:
        windows = [f"2026-03-{day:02}" for day in range(1, MAX_UNPUBLISHED_REPORTS + 1)]
        for window in (*windows, windows[0], "2026-04-01"):  # the first is put again
            registry.put_report(make_report(task, None, window=window))
        kept = [*windows[2:], windows[0], "2026-04-01"]
        assert registry.reports(task) == [unpublished_key(window) for window in kept]
        assert registry.report(task, unpublished_key(windows[1])) is None
        assert registry.report(task, unpublished_key(windows[0])) is not None

    def test_a_report_goes_with_its_version(self, task: str) -> None:
        registry: Registry = self.make(keep_versions=2)  # type: ignore[attr-defined]
        first = publish(registry, make_artifact(task)).version
        registry.put_report(make_report(task, first))
        registry.put_report(make_report(task, None))
        versions = publish_windows(registry, task, 3)
        registry.put_report(make_report(task, versions[-1]))
        assert first not in registry.versions(task)
        assert registry.report(task, str(first)) is None
        assert registry.reports(task) == [make_report(task, None).key, versions[-1]]
        registry.close()

    def test_a_report_that_is_too_large_is_not_sent(self, registry: Registry, task: str) -> None:
        report = make_report(task, None)
        room = MAX_REPORT_BYTES - len(report.encode())
        largest = msgspec.structs.replace(report, summary=report.summary + "x" * room)
        registry.put_report(largest)
        assert registry.report(task, report.key) == largest
        with pytest.raises(ReportTooLarge, match="exceeds the limit"):
            registry.put_report(msgspec.structs.replace(largest, summary=largest.summary + "x"))
        assert registry.report(task, report.key) == largest

    def test_a_damaged_report_is_not_half_read(self, registry: Registry, task: str) -> None:
        report = make_report(task, None)
        registry.put_report(report)
        self.corrupt_report(registry, task, report.key)
        with pytest.raises(CorruptReport, match=report.key):
            registry.report(task, report.key)

    def test_reports_change_nothing_else(self, registry: Registry, task: str) -> None:
        publish(registry, make_artifact(task))
        before = registry.active(task), registry.history(task)
        registry.put_report(make_report(task, before[0].version))
        assert (registry.active(task), registry.history(task)) == before

    def test_tasks_do_not_see_each_others_reports(self, registry: Registry, task: str) -> None:
        report: Report = make_report(task, None)
        registry.put_report(report)
        assert registry.report(f"{task}-2", report.key) is None
        with pytest.raises(ValueError, match="not a task name"):
            registry.report("a}b", report.key)
