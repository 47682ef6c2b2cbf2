"""How many CPUs there are for us, by control groups of either version that a test lays out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastssl._native import available_cpus

HERE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.fixture(autouse=True)
def eight(monkeypatch):
    """A machine of eight CPUs, all of them ours."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def lay(root: Path, groups: str, **files: str) -> str:
    """A root with /proc/self/cgroup and files under /sys/fs/cgroup, whose names have __ for / and _DOT_ for a dot."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


@pytest.mark.parametrize(
    "quota, cpus",
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("250000 100000", 3),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("1 1", 1),
    ],
)
def test_version_two(tmp_path, quota, cpus):
    assert available_cpus(lay(tmp_path, "0::/\n", cpu_DOT_max=quota + "\n")) == cpus


@pytest.mark.parametrize(
    "quota, period, cpus",
    [("-1", "100000", 8), ("300000", "100000", 3), ("10000", "100000", 1), ("150000", "100000", 2)],
)
@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_version_one(tmp_path, quota, period, cpus, mount):
    files = {f"{mount}__job__cpu_DOT_cfs_quota_us": quota, f"{mount}__job__cpu_DOT_cfs_period_us": period}
    groups = "12:memory:/job\n5:cpu,cpuacct:/job\n1:name=systemd:/job\n"
    assert available_cpus(lay(tmp_path, groups, **files)) == cpus


def test_the_tightest_group_above_counts(tmp_path):
    files = {
        "a__cpu_DOT_max": "300000 100000",
        "a__b__cpu_DOT_max": "600000 100000",
        "a__b__c__cpu_DOT_max": "max 100000",
    }
    assert available_cpus(lay(tmp_path, "0::/a/b/c\n", **files)) == 3


def test_a_container_sees_its_own_group_as_the_root(tmp_path):
    """Version 1 without a namespace: the path is the host's, and what is mounted is the container's own group."""
    files = {"cpu__cpu_DOT_cfs_quota_us": "400000", "cpu__cpu_DOT_cfs_period_us": "100000"}
    assert available_cpus(lay(tmp_path, "4:cpu:/docker/0123abc\n", **files)) == 4
    (tmp_path / "proc/self/cgroup").write_text("4:cpu:/../../elsewhere\n")
    assert available_cpus(str(tmp_path)) == 4


def test_both_versions_at_once(tmp_path):
    files = {
        "cpu__cpu_DOT_cfs_quota_us": "500000",
        "cpu__cpu_DOT_cfs_period_us": "100000",
        "x__cpu_DOT_max": "700000 100000",
    }
    assert available_cpus(lay(tmp_path, "4:cpu:/\n0::/x\n", **files)) == 5


@pytest.mark.parametrize("text", ["", "nonsense", "max", "1 0", "x 100000", "100000", "-5 100000"])
def test_what_cannot_be_read_limits_nothing(tmp_path, text):
    assert available_cpus(lay(tmp_path, "0::/\n\nnonsense\n", cpu_DOT_max=text)) == 8


def test_no_control_groups_at_all(tmp_path):
    assert available_cpus(str(tmp_path)) == 8


def test_the_affinity_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert available_cpus(lay(tmp_path, "0::/\n", cpu_DOT_max="400000 100000")) == 2


def test_this_machine(monkeypatch):
    monkeypatch.undo()
    assert 1 <= available_cpus() <= HERE


def test_limits_of_torch_are_not_ours(monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert available_cpus(str(tmp_path)) == 8
