"""Images that users bring: read, bounded, and unpacked without a way out of their folder."""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
from pathlib import Path

import pytest

from isl_emu.errors import ScenarioError, WorkloadError
from isl_emu.nodes.images import open_image, unpack, unpacked_byte
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
    with pytest.raises(WorkloadError, match="but it is a folder, a tar, or an OCI layout or archive"):
        open_image(tmp_path / "image")
    with pytest.raises(WorkloadError, match="cannot be read"):
        open_image(tmp_path / "missing")


def test_an_empty_tar_is_an_empty_image(tmp_path: Path) -> None:
    written = io.BytesIO()
    tarfile.open(fileobj=written, mode="w").close()
    (tmp_path / "image").write_bytes(written.getvalue())
    assert unpacked_byte(tmp_path / "image") == 0
