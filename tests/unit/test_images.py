"""Images that users bring: read, bounded, and unpacked without a way out of their folder."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from isl_emu.errors import ScenarioError, WorkloadError
from isl_emu.nodes.images import ImageUser, open_image, unpack, unpack_image, unpacked_byte
from isl_emu.runs.wishes import Trust
from isl_emu.scenario.parse import parse_scenario
from tests.images import Entry, layer, oci_layout
from tests.scenarios import SMALL

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root unpacks images: isl-emu does so in its guest")


def _unpacked(tmp_path: Path, *layers: list[Entry]) -> Path:
    oci_layout(tmp_path / "image", [layer(entries) for entries in layers])
    return unpack(open_image(tmp_path / "image"), tmp_path / "root")


@needs_root
def test_layers_lie_over_each_other_and_white_out(tmp_path: Path) -> None:
    root = _unpacked(
        tmp_path,
        [("bin/one", b"1"), ("etc/kept", b"k"), ("etc/gone", b"g"), ("var/a/x", b"x"), ("var/a/y", b"y")],
        [("bin/one", b"2"), ("etc/.wh.gone", b""), ("var/a/new", b"n"), ("var/a/.wh..wh..opq", b"")],
    )
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert found == {"bin/one": b"2", "etc/kept": b"k", "var/a/new": b"n"}


@needs_root
def test_nothing_leads_out_of_the_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    root = _unpacked(
        tmp_path,
        [
            ("way", str(outside)),
            ("way/new", b"n"),
            ("../../outside/up", b"u"),
            ("/outside/abs", b"a"),
            ("su", b"s", 0o4755),
        ],
        [("etc", "../../outside"), ("etc/more", b"m"), ("etc/.wh.mine", b"")],
    )
    assert sorted(path.name for path in outside.iterdir()) == ["mine"]
    assert (root / outside.relative_to("/") / "new").read_bytes() == b"n"
    assert (root / "outside" / "up").read_bytes() == b"u"
    assert stat.S_IMODE((root / "su").stat().st_mode) == 0o755


@needs_root
def test_devices_are_refused_but_for_those_of_dev(tmp_path: Path) -> None:
    _unpacked(tmp_path / "fine", [("dev/sda", None), ("bin/one", b"1")])
    assert not (tmp_path / "fine" / "root" / "dev" / "sda").exists()
    with pytest.raises(WorkloadError, match="/disk is a device, a pipe or a sparse file, but an image has"):
        _unpacked(tmp_path / "bad", [("disk", None)])


@pytest.mark.parametrize("kind", ["tar", "archive", "layout"])
def test_each_kind_is_read(tmp_path: Path, kind: str) -> None:
    packed = layer([("bin/one", b"123")])
    if kind == "tar":
        (tmp_path / "image").write_bytes(packed)
    else:
        oci_layout(tmp_path / "layout", [packed])
        if kind == "archive":
            with tarfile.open(tmp_path / "image", "w") as archive:
                archive.add(tmp_path / "layout", ".")
        else:
            (tmp_path / "layout").rename(tmp_path / "image")
    assert unpacked_byte(tmp_path / "image") == 3
    image = open_image(tmp_path / "image")
    assert image.environment.get("MODE") == (None if kind == "tar" else "own")


LISTS: list[Entry] = [
    ("etc/passwd", b"root:x:0:0::/root:/bin/sh\nrubbish\napp:x:1000:100:An app:/srv:/bin/sh\nodd:x:one:2:::\n"),
    ("etc/group", b"users:x:100:\nwheel:x:10:root,app\nvideo:x:44:app\nodd:x:four:app\n"),
]


@needs_root
@pytest.mark.parametrize(
    ("user", "found"),
    [
        ("", ImageUser(0, 0, (), "/root")),
        ("app", ImageUser(1000, 100, (10, 44), "/srv")),
        ("1000", ImageUser(1000, 100, (10, 44), "/srv")),
        ("app:wheel", ImageUser(1000, 10, (), "/srv")),
        ("1000:7", ImageUser(1000, 7, (), "/srv")),
        ("77", ImageUser(77, 0, (), "/")),
        ("77:video", ImageUser(77, 44, (), "/")),
    ],
)
def test_the_user_of_an_image_is_found_in_its_own_lists(tmp_path: Path, user: str, found: ImageUser) -> None:
    oci_layout(tmp_path / "image", [layer(LISTS)], User=user)
    assert unpack_image(tmp_path / "image", tmp_path / "root").user == found


@needs_root
@pytest.mark.parametrize("user", ["nobody", "app:nobody", "odd", "-1", "99999999999"])
def test_a_user_that_an_image_has_not_got_is_told(tmp_path: Path, user: str) -> None:
    oci_layout(tmp_path / "image", [layer(LISTS)], User=user)
    with pytest.raises(WorkloadError, match=f"its user is '{user}', but its /etc/passwd and /etc/group have none such"):
        unpack_image(tmp_path / "image", tmp_path / "root")


@needs_root
def test_lists_of_users_are_read_in_the_image_alone(tmp_path: Path) -> None:
    oci_layout(tmp_path / "image", [layer([("etc/passwd", "/../../../etc/passwd")])], User="daemon")
    with pytest.raises(WorkloadError, match="its user is 'daemon'"):
        unpack_image(tmp_path / "image", tmp_path / "root")


def test_what_its_makers_want_to_be_run_is_read(tmp_path: Path) -> None:
    oci_layout(tmp_path / "image", [], Entrypoint=["busy", "who"], Cmd=["a b"], WorkingDir="/srv")
    image = open_image(tmp_path / "image")
    assert (image.entry_point, image.arguments, image.folder) == (("busy", "who"), ("a b",), "/srv")
    oci_layout(tmp_path / "odd", [], Entrypoint="busy who")
    with pytest.raises(WorkloadError, match="Entrypoint is no list of words"):
        open_image(tmp_path / "odd")


def test_a_registry_is_refused_with_what_to_do() -> None:
    text = SMALL + '[[node]]\nnodes = ["p00s00"]\nimage = "docker://docker.io/library/alpine"\n'
    with pytest.raises(
        ScenarioError, match=r"no registry is asked.*skopeo copy docker://docker.io/library/alpine oci:"
    ):
        parse_scenario(text, "the test")


@pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")
def test_layers_packed_by_zstd_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = gzip.decompress(layer([("bin/one", b"123"), ("big", bytes(3 << 20))]))
    packed = subprocess.run(["zstd", "-c"], input=plain, capture_output=True, check=True).stdout
    oci_layout(tmp_path / "image", [packed])
    assert unpacked_byte(tmp_path / "image") == 3 + (3 << 20)
    oci_layout(tmp_path / "cut", [packed[:-9]])
    with pytest.raises(WorkloadError, match="a layer cannot be read"):
        unpacked_byte(tmp_path / "cut")
    monkeypatch.setenv("PATH", str(tmp_path))
    oci_layout(tmp_path / "again", [packed])
    with pytest.raises(WorkloadError, match="packed by zstd, which is not on this machine: apt-get install zstd"):
        unpacked_byte(tmp_path / "again")


def test_a_folder_is_its_own_root(tmp_path: Path) -> None:
    assert unpack(open_image(tmp_path), tmp_path / "nowhere") == tmp_path


def test_a_folder_that_a_mount_would_misread_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x,lowerdir=" / "etc").mkdir(parents=True)
    with pytest.raises(WorkloadError, match="has a comma, a colon or a backslash"):
        open_image(tmp_path / "x,lowerdir=" / "etc")


def test_an_image_is_a_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = parse_scenario(SMALL + '[[node]]\nnodes = ["p00s00"]\nimage = "own"\n', "the test")
    assert scenario.foreign == ("node[0].image: unpacks own",)
    assert scenario.has_programs
    assert (scenario.image_of("p00s00"), scenario.image_of("p00s01")) == ("own", None)
    with pytest.raises(ScenarioError, match="--no-programs: the scenario has node.0..image: unpacks own"):
        Trust(programs=False).check(scenario.foreign, ())
    monkeypatch.chdir(tmp_path)
    Trust().check_images([tmp_path / "own"])
    Trust(all=True).check_images([Path("/etc")])
    (tmp_path / "link").symlink_to("/etc")
    for path in (Path("/etc"), tmp_path / "link", tmp_path / ".." / "else"):
        with pytest.raises(ScenarioError, match="it is not in the folder where isl-emu is called"):
            Trust().check_images([path])


def test_a_damaged_layer_is_refused(tmp_path: Path) -> None:
    oci_layout(tmp_path / "image", [layer([("bin/one", b"1")])])
    blobs = tmp_path / "image" / "blobs" / "sha256"
    largest = next(path for path in blobs.iterdir() if path.read_bytes()[:2] == b"\x1f\x8b")
    largest.write_bytes(layer([("bin/one", b"2")]))
    with pytest.raises(WorkloadError, match="is damaged"):
        unpacked_byte(tmp_path / "image")


def test_a_digest_is_no_path(tmp_path: Path) -> None:
    oci_layout(tmp_path / "image", [layer([("bin/one", b"1")])])
    index = tmp_path / "image" / "index.json"
    told = json.loads(index.read_text())
    told["manifests"][0]["digest"] = "sha256:../../../../etc/passwd"
    index.write_text(json.dumps(told))
    with pytest.raises(WorkloadError, match="is no sha256 digest"):
        open_image(tmp_path / "image")


def test_an_image_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "image").write_bytes(layer([("big", bytes(3 << 20)), ("bigger", bytes(3 << 20))]))
    monkeypatch.setenv("ISL_EMU_MOST_IMAGE_MIB", "4")
    with pytest.raises(WorkloadError, match="unpacked comes to about 6 MiB, but the most is 4"):
        unpacked_byte(tmp_path / "image")


@pytest.mark.parametrize("content", [b"", b"no tar", b"\x1f\x8b broken"])
def test_what_is_no_image_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "image").write_bytes(content)
    with pytest.raises(WorkloadError, match="but it is a folder, a tar, or an OCI layout or archive") as told:
        open_image(tmp_path / "image")
    assert "\n" not in str(told.value)
    with pytest.raises(WorkloadError, match=r"cannot be read \(No such file or directory\), but"):
        open_image(tmp_path / "missing")


def test_an_empty_tar_is_an_empty_image(tmp_path: Path) -> None:
    written = io.BytesIO()
    tarfile.open(fileobj=written, mode="w").close()
    (tmp_path / "image").write_bytes(written.getvalue())
    assert unpacked_byte(tmp_path / "image") == 0
