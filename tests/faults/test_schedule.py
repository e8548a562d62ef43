"""Schedules: the same seed gives the same one, and every kind of fault can be dealt."""

from __future__ import annotations

from itertools import combinations

import pytest

from tests.faults.schedule import LONGEST_FREEZE, SECONDS, deal


def test_a_seed_reproduces_its_schedules_and_their_traffic() -> None:
    assert deal(7, 42) == deal("7", 42)
    assert deal(7, 42) != deal(7, 43)
    assert deal(7, 42).chance.random() == deal(7, 42).chance.random()
    assert deal(7, 42).chance.random() != deal(7, 43).chance.random()


def test_two_hundred_schedules_have_every_kind_of_fault() -> None:
    kinds = {fault.kind for number in range(200) for fault in deal(1, number).faults}
    assert kinds == {
        "kill", "freeze", "broker", "cut", "hole", "slow", "half_open", "redis_restart",
        "redis_lost", "redis_failover", "disk_full", "clock", "teacher", "duplicates", "reorder",
    }  # fmt: skip


def test_what_a_machine_cannot_do_is_not_dealt() -> None:
    without = frozenset({"clock", "disk_full"})
    kinds = {fault.kind for n in range(300) for fault in deal(1, n, without=without).faults}
    assert not kinds & without


@pytest.mark.parametrize("number", range(100))
def test_faults_end_with_the_traffic_and_keep_out_of_each_others_way(number: int) -> None:
    faults = deal(3, number).faults
    assert 2 <= len(faults) <= 4
    for fault in faults:
        longest = LONGEST_FREEZE if fault.kind == "freeze" else SECONDS
        assert 0 < fault.begin < fault.end <= fault.begin + longest
        assert fault.kind == "freeze" or fault.end <= SECONDS
    assert all(a.touches != b.touches for a, b in combinations(faults, 2))
