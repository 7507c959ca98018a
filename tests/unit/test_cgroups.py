"""Limits by cgroups, against folders that look like a kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from isl_emu.errors import MachineError
from isl_emu.nodes.cgroups import Cgroup, Hierarchy, cpu_quota_us, find_hierarchy, remove_run_cgroups

HYBRID = """\
tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nsdelegate 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,name=systemd 0 0
cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0
"""
UNIFIED = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n"


def test_hybrid_mounts_are_version_1_with_joint_controllers_once() -> None:
    hierarchy = find_hierarchy(HYBRID, lambda mount: ["blkio"])
    assert hierarchy.version == 1
    assert hierarchy.mounts["cpu"] == hierarchy.mounts["cpuacct"] == Path("/sys/fs/cgroup/cpu,cpuacct")
    assert len(hierarchy.roots) == 3


def test_a_unified_mount_with_both_controllers_is_version_2() -> None:
    hierarchy = find_hierarchy(UNIFIED, lambda mount: ["cpu", "io", "memory", "pids"])
    assert (hierarchy.version, hierarchy.roots) == (2, (Path("/sys/fs/cgroup"),))


def test_missing_controllers_are_named() -> None:
    with pytest.raises(MachineError, match="no cgroup controller memory or pids is mounted"):
        find_hierarchy("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n")
    with pytest.raises(MachineError, match="no cgroup controller cpu or memory or pids is mounted"):
        find_hierarchy(UNIFIED, lambda mount: ["pids"])


@pytest.mark.parametrize(
    ("cpus", "quota_us", "period_us"),
    [(1.0, 20_000, 20_000), (0.5, 10_000, 20_000), (2.0, 40_000, 20_000), (0.05, 1_000, 20_000), (0.02, 1_000, 50_000)],
)
def test_quota_and_period_give_the_share(cpus: float, quota_us: int, period_us: int) -> None:
    assert cpu_quota_us(cpus) == (quota_us, period_us)


def _version_1(root: Path, cpuacct: bool) -> Hierarchy:
    controllers = ["cpu", "memory", *(["cpuacct"] if cpuacct else [])]
    for controller in controllers:
        (root / controller / "isl-0a0b0c" / "p00s00").mkdir(parents=True)
    return Hierarchy(1, {controller: root / controller for controller in controllers})


def test_what_was_used_in_version_1(tmp_path: Path) -> None:
    group = Cgroup(_version_1(tmp_path, cpuacct=True), "0a0b0c", "p00s00")
    events = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"
    (tmp_path / "memory/isl-0a0b0c/p00s00/memory.oom_control").write_text(events)
    (tmp_path / "cpuacct/isl-0a0b0c/p00s00/cpuacct.usage").write_text("17158347\n")
    assert (group.cpu_ns(), group.oom_kills()) == (17_158_347, 2)


def test_without_its_controller_cpu_time_is_not_told_as_none(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="no controller cpuacct"):
        Cgroup(_version_1(tmp_path, cpuacct=False), "0a0b0c", "p00s00").cpu_ns()


def test_limits_and_usage_in_version_2(tmp_path: Path) -> None:
    folder = tmp_path / "isl-0a0b0c" / "p00s00"
    folder.mkdir(parents=True)
    (folder / "memory.swap.max").write_text("max\n")
    (folder / "cpu.stat").write_text("usage_usec 15\nnr_periods 9\nnr_throttled 3\nthrottled_usec 7\n")
    (folder / "memory.events").write_text("low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\n")
    group = Cgroup(Hierarchy(2, dict.fromkeys(("cpu", "memory", "pids"), tmp_path)), "0a0b0c", "p00s00")
    group.limit(0.5, 64 << 20)
    assert (folder / "cpu.max").read_text() == "10000 20000"
    assert (folder / "memory.max").read_text() == str(64 << 20)
    assert (folder / "memory.swap.max").read_text() == "0"
    assert int((folder / "pids.max").read_text()) > 1000
    assert (group.cpu_ns(), group.oom_kills()) == (15_000, 1)


def test_a_kernel_without_bandwidth_control_is_refused(tmp_path: Path) -> None:
    hierarchy = _version_1(tmp_path, cpuacct=False)
    (tmp_path / "cpu/isl-0a0b0c/p00s00/cpu.cfs_period_us").mkdir()  # writing to it fails
    with pytest.raises(MachineError, match="CONFIG_CFS_BANDWIDTH"):
        Cgroup(hierarchy, "0a0b0c", "p00s00").limit(0.5, 64 << 20)


def test_a_limit_that_the_kernel_changes_is_refused(tmp_path: Path) -> None:
    hierarchy = _version_1(tmp_path, cpuacct=False)
    (tmp_path / "cpu/isl-0a0b0c/p00s00/cpu.cfs_period_us").symlink_to("/dev/null")
    with pytest.raises(MachineError, match="but 20000 was written"):
        Cgroup(hierarchy, "0a0b0c", "p00s00").limit(0.5, 64 << 20)


def test_removing_what_is_gone_is_no_error(tmp_path: Path) -> None:
    Cgroup(Hierarchy(1, {"cpu": tmp_path, "memory": tmp_path}), "0a0b0c", "p00s00").remove()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_removed_is_an_error_after_retries(tmp_path: Path) -> None:
    folder = tmp_path / "isl-0a0b0c" / "p00s00"
    (folder / "stranger").mkdir(parents=True)
    pauses: list[float] = []
    with pytest.raises(MachineError, match="must be empty"):
        Cgroup(Hierarchy(2, {"cpu": tmp_path}), "0a0b0c", "p00s00").remove(pauses.append)
    assert len(pauses) > 10


def test_without_controllers_there_is_nothing_to_remove(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Hierarchy:
        raise MachineError("no cgroup controller")

    monkeypatch.setattr("isl_emu.nodes.cgroups.find_hierarchy", none)
    assert remove_run_cgroups("0a1b2c") == []


def test_freezing_in_version_2_waits_until_all_stand(tmp_path: Path) -> None:
    folder = tmp_path / "isl-0a0b0c" / "p00s00"
    folder.mkdir(parents=True)
    group = Cgroup(Hierarchy(2, dict.fromkeys(("cpu", "memory", "pids"), tmp_path)), "0a0b0c", "p00s00")
    assert not group.freeze()  # a kernel without a freezer
    (folder / "cgroup.freeze").write_text("0")
    (folder / "cgroup.events").write_text("populated 1\nfrozen 0\n")

    def stand_still(_: float) -> None:
        assert (folder / "cgroup.freeze").read_text() == "1"
        (folder / "cgroup.events").write_text("populated 1\nfrozen 1\n")

    assert group.freeze(stand_still)
    group.thaw()
    assert (folder / "cgroup.freeze").read_text() == "0"


def test_a_group_that_does_not_stand_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "isl-0a0b0c" / "p00s00"
    folder.mkdir(parents=True)
    (folder / "cgroup.freeze").write_text("0")
    (folder / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    with pytest.raises(MachineError, match="did not come to a stand"):
        Cgroup(Hierarchy(2, dict.fromkeys(("cpu", "memory", "pids"), tmp_path)), "0a0b0c", "p00s00").freeze(
            lambda _: None
        )
    assert (folder / "cgroup.freeze").read_text() == "0"
