"""A container's memory limit, read from control groups."""

import psutil
import pytest

from training.estimate.free_space import free_memory

MB, TB = 10**6, 10**12  # far below and far above what any machine of these tests has free
UNLIMITED_V1 = 9_223_372_036_854_771_712  # what version 1 says where no limit is set


def group(folder, limit, used, cached=0, *, version=2):
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used - cached}\n{names[2]} {cached}\n")


def free(tmp_path, *lines):
    membership = tmp_path / "membership"
    membership.write_text("".join(f"{line}\n" for line in lines))
    return free_memory(gpu=False, cgroups=tmp_path / "cgroup", membership=membership)


def test_a_container_sees_its_limit_at_the_top_and_cached_files_are_free(tmp_path):
    group(tmp_path / "cgroup", 4 * MB, 3 * MB, cached=2 * MB)
    assert free(tmp_path, "0::/") == 3 * MB
    assert free(tmp_path, "0::/system.slice/docker-of-the-host.scope") == 3 * MB


def test_the_tightest_group_on_the_way_down_decides(tmp_path):
    group(tmp_path / "cgroup" / "user", 8 * MB, 6 * MB)
    group(tmp_path / "cgroup" / "user" / "job", 5 * MB, MB)
    group(tmp_path / "cgroup" / "user" / "job" / "part", "max", MB)
    group(tmp_path / "cgroup" / "other", MB, MB)
    assert free(tmp_path, "0::/user/job/part") == 2 * MB


def test_more_used_than_allowed_leaves_nothing(tmp_path):
    group(tmp_path / "cgroup", MB, 2 * MB)  # the limit was lowered
    assert free(tmp_path, "0::/") == 0


@pytest.mark.parametrize("controllers", ["memory", "memory,hugetlb"])
def test_cgroups_version_1_have_a_tree_for_memory(tmp_path, controllers):
    top = tmp_path / "cgroup" / "memory"
    group(top, UNLIMITED_V1, 5 * MB, version=1)
    group(top / "docker" / "id", 3 * MB, 2 * MB, MB, version=1)
    assert (
        free(tmp_path, "4:cpu,cpuacct:/docker/id", f"3:{controllers}:/docker/id", "0::/docker/id") == 2 * MB
    )


@pytest.mark.parametrize("limit", ["max", 1000 * TB])
def test_without_a_tighter_limit_the_machine_decides(tmp_path, limit):
    group(tmp_path / "cgroup" / "user", limit, MB)
    machine = pytest.approx(psutil.virtual_memory().available, rel=0.5)
    assert free(tmp_path, "0::/user") == machine
    assert free(tmp_path) == machine
    (tmp_path / "membership").unlink()  # as on macOS
    assert free_memory(gpu=False, membership=tmp_path / "membership") == machine
