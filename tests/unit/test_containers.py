"""What a container is built from, without building one."""

from __future__ import annotations

from pathlib import Path

from isl_emu.nodes.containers import hosts_text
from isl_emu.nodes.mounts import hidden_paths, mount_points

MOUNTINFO = """\
24 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 24 0:25 / /run rw,nosuid shared:5 - tmpfs tmpfs rw
41 24 0:40 / /mnt/two\\040words rw - ext4 /dev/vdb rw
"""


def test_mount_points_with_blanks() -> None:
    assert mount_points(MOUNTINFO) == {Path("/"), Path("/run"), Path("/mnt/two words")}


def test_only_covered_paths_are_bound_and_none_twice() -> None:
    covers = {Path("/"), Path("/nonexistent/data"), Path("/tmp")}
    visible = [Path("/nonexistent/data/v/lib"), Path("/nonexistent/data/v"), Path("/usr/nothing"), Path("/tmp/m.gguf")]
    assert hidden_paths(visible, covers) == [Path("/nonexistent/data/v"), Path("/tmp/m.gguf")]


def test_a_name_that_only_begins_like_a_mount_point_is_not_covered() -> None:
    assert hidden_paths([Path("/nonexistent/data2/v")], {Path("/nonexistent/data")}) == []


def test_hosts_names_every_node() -> None:
    assert hosts_text({"p00s00": "10.0.0.1"}) == "127.0.0.1\tlocalhost\n10.0.0.1\tp00s00\n"
