"""What the Vagrantfile does to a fresh machine, done in a root folder that has only Debian's essential packages."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from isl_emu.machine.kernel_cache import ROOTS_CACHE

pytestmark = pytest.mark.clean_root

CHECKOUT = Path(__file__).parents[1]
VAGRANTFILE = (CHECKOUT / "Vagrantfile").read_text()
DEBIAN = "http://deb.debian.org"
SOURCES = (
    f"deb {DEBIAN}/debian bookworm main",
    f"deb {DEBIAN}/debian bookworm-updates main",
    f"deb {DEBIAN}/debian-security bookworm-security main",
)
REGISTRIES = ("deb.debian.org", 80), ("pypi.org", 443)
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")  # of the machine, which may reach registries by its own only
WITHIN_S = 900

# Whoever ends the test ends its commands.
BOUND = ("setpriv", "--pdeathsig", "KILL")
APART = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child")
# Mounts that end with it, around a command in the new root; the kernel that this machine has built is lent to it.
INSIDE = """
set -e
root=$1 cache=$2
shift 2
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
if [ -d "$cache" ]; then mkdir -p "$root$cache" && mount --bind "$cache" "$root$cache"; fi
cd "$root"
mkdir -p old
pivot_root . old
umount -l /old
exec "$@"
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Debian 12 as debootstrap makes it, with this checkout in /vagrant as Vagrant would copy it."""
    if os.geteuid():
        pytest.skip("a root folder of its own needs root")
    if not shutil.which("mmdebstrap"):
        pytest.skip("mmdebstrap, which makes a bare Debian, is not installed")
    for host, port in REGISTRIES:
        try:
            socket.create_connection((host, port), timeout=10).close()
        except OSError as error:
            pytest.skip(f"{host} cannot be reached ({error})")
    folder = tmp_path_factory.mktemp("clean") / "root"
    made = [*BOUND, "mmdebstrap", "--variant=minbase", "--format=directory", "bookworm", str(folder), *SOURCES]
    subprocess.run(made, check=True, capture_output=True, timeout=WITHIN_S)
    left_out = [CHECKOUT / name for name in re.findall(r'"/([^"]+)"', re.search(r"exclude: (.*)", VAGRANTFILE)[1])]
    shutil.copytree(
        CHECKOUT, folder / "vagrant", ignore=lambda at, names: [name for name in names if Path(at, name) in left_out]
    )
    shutil.copy("/etc/resolv.conf", folder / "etc/resolv.conf")
    shutil.copy(CERTIFICATES, folder / "etc/machine.crt")
    yield folder
    shutil.rmtree(folder)  # 2 GB


def _inside(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "PIP_CERT": "/etc/machine.crt",
        **{name: value for name, value in os.environ.items() if name.endswith("_proxy")},
    }
    return subprocess.run(
        [*BOUND, *APART, "sh", "-c", INSIDE, "inside", str(root), str(ROOTS_CACHE), *command],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=WITHIN_S, check=False,
    )  # fmt: skip


def test_a_provisioned_machine_plans_what_the_readme_runs_from_the_login_folder(root):
    script = re.search(r'"shell", inline: "(.*)"', VAGRANTFILE)[1]
    first = _inside(root, "sh", "-c", script)
    assert first.returncode == 0, first.stdout
    assert "isl-emu set-up: ready" in first.stdout
    assert "no package" not in first.stdout
    again = _inside(root, "sh", "-c", script)
    assert (again.returncode, again.stdout) == (0, "")

    line = re.search(r"vagrant ssh -c 'isl-emu run ([a-z-]+)'", (CHECKOUT / "README.md").read_text())[1]
    planned = _inside(root, "sh", "-c", f"cd && isl-emu plan {line} --out plan.parquet && isl-emu doctor")
    assert planned.returncode == 0, planned.stdout
    assert (root / "root/plan.parquet").is_file()
    assert re.search(r"ok +exact time", planned.stdout), planned.stdout
