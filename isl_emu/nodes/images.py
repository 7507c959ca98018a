"""Images: the root file systems that users bring, as a folder, a tarball, an OCI image layout, or an archive of one.

Layers are unpacked in a thread whose root is the target, so neither a path with ".." nor a link leads out of it. They
come from strangers: devices are refused, rights to become another user are taken off, and their size is bounded.

Source: the OCI image format specification 1.1, layer.md and image-layout.md.
"""

from __future__ import annotations

import bz2 as _bz2  # noqa: F401  which tarfile would import where no module can be found
import gzip as _gzip  # noqa: F401
import hashlib
import json
import lzma as _lzma  # noqa: F401
import os
import posixpath
import shutil
import subprocess
import tarfile
import threading
import zlib as _zlib  # noqa: F401
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from isl_emu.errors import WorkloadError
from isl_emu.limits import IMAGE_FILES, IMAGE_MIB
from isl_emu.nodes.namespaces import CLONE_FS, in_own_thread, unshare

MIB = 1 << 20
MOST_JSON_BYTE = 4 * MIB  # of an index, a manifest or a configuration
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
ZSTD = b"\x28\xb5\x2f\xfd"  # how what it has packed begins (RFC 8878)
SHARED = 0o1777  # rights that stay
USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_Open = Callable[[], IO[bytes]]


@dataclass(frozen=True)
class Image:
    """An image that was found.

    Args:
        root: the folder that it is; else `layers` open its tars, the lowest first.
        environment: what its makers want programs in it to have.
        entry_point, arguments: what they want to be run, and with which words if nobody gives others.
        folder: in which it begins; empty if they do not say.
        user: as whom, as "USER", "USER:GROUP" or by numbers; empty for root.
    """

    path: Path
    root: Path | None = None
    layers: tuple[_Open, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    entry_point: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    folder: str = ""
    user: str = ""


def open_image(path: Path) -> Image:
    """The image at a path.

    Raises:
        WorkloadError: there is none that can be read.
    """
    try:
        if path.is_dir():
            if not (path / "index.json").is_file():
                if set(",:\\") & set(str(path)):  # which a mount takes for the beginning of something else
                    raise ValueError("a root folder whose path has a comma, a colon or a backslash")
                return Image(path, root=path, environment={"PATH": USUAL_PATH})
            return _layout(path, lambda name: (path / name).open("rb"))
        with tarfile.open(path) as archive:
            if "index.json" not in {posixpath.normpath(name) for name in _first_names(archive)}:
                return Image(path, layers=(lambda: path.open("rb"),), environment={"PATH": USUAL_PATH})
        return _layout(path, lambda name: _member(path, name))
    except (OSError, tarfile.TarError, EOFError, ValueError, KeyError, TypeError, AttributeError, LookupError) as error:
        raise WorkloadError(
            f"image {path}: cannot be read ({_why(error)}), but it is a folder, a tar, or an OCI layout or archive; "
            "write one by `skopeo copy SOURCE oci:FOLDER`"
        ) from None


@lru_cache(maxsize=64)
def _measured(path: Path, modified_ns: int) -> int:
    image, size_byte, files = open_image(path), 0, 0
    for layer in image.layers:
        for member in _members(image, layer):
            size_byte, files = size_byte + member.size, files + 1
            for excess in (IMAGE_MIB.excess(size_byte / MIB), IMAGE_FILES.excess(files)):
                if excess:
                    raise WorkloadError(f"image {path}: unpacked {excess}")
    return size_byte


def unpacked_byte(path: Path) -> int:
    """How large an image is when it is unpacked, at most; a folder is not.

    Raises:
        WorkloadError: it is more than the limit, or cannot be read.
    """
    return _measured(path, path.stat().st_mtime_ns if path.exists() else 0)


def unpack(image: Image, target: Path) -> Path:
    """The root folder of an image: the one that it is, or `target` with its layers one over the other.

    Raises:
        WorkloadError: a layer is damaged, or has what no image may have.
    """
    if image.root is not None:
        return image.root
    target.mkdir(parents=True, mode=0o755)
    unpacked_byte(image.path)
    for layer in image.layers:
        with closing(layer()) as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
            in_own_thread(_apply, image, tar, target)
    return target


@dataclass(frozen=True)
class UnpackedImage:
    """An image whose files are there: `image` as it was found, its root folder, and whom its programs are to be."""

    image: Image
    root: Path
    user: ImageUser


def unpack_image(path: Path, target: Path) -> UnpackedImage:
    """The image at a path, with its files in `target` unless it is a folder itself.

    Raises:
        WorkloadError: it cannot be read, has what no image may have, or names a user that it has not got.
    """
    image = open_image(path)
    root = unpack(image, target)
    return UnpackedImage(image, root, image_user(image, root))


def _apply(image: Image, tar: tarfile.TarFile, target: Path) -> None:
    """Unpack a layer over what there is, in a thread that sees nothing but the target."""
    unshare(CLONE_FS)
    os.chroot(target)
    os.chdir("/")
    os.umask(0)
    made: set[str] = set()
    try:
        for member in tar:
            path = posixpath.normpath(f"/{member.name.lstrip('/')}")
            folder, name = posixpath.split(path)
            if name == OPAQUE:
                for other in os.listdir(folder) if os.path.isdir(folder) else ():
                    if posixpath.join(folder, other) not in made:
                        _remove(posixpath.join(folder, other))
            elif name.startswith(WHITEOUT):
                _remove(posixpath.join(folder, name.removeprefix(WHITEOUT)))
            elif not path.startswith("/dev/"):  # a container has devices of its own
                _make(image, tar, member, path)
                made |= {path, *map(str, Path(path).parents)}
    except (OSError, tarfile.TarError, EOFError, ValueError) as error:
        raise WorkloadError(
            f"image {image.path}: cannot be unpacked ({type(error).__name__}: {error}), but each layer must be; make "
            "it anew"
        ) from None


def _make(image: Image, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    if path == "/":
        return
    os.makedirs(os.path.realpath(posixpath.dirname(path)), exist_ok=True)
    if member.isdir():
        if os.path.islink(path) or not os.path.isdir(path):
            _remove(path)
            os.mkdir(path)
    else:
        _remove(path)
        if member.issym():
            os.symlink(member.linkname, path)
        elif member.islnk():
            os.link(posixpath.normpath(f"/{member.linkname.lstrip('/')}"), path, follow_symlinks=False)
            return
        elif member.isreg() and not member.issparse():
            source = tar.extractfile(member)
            assert source is not None, "a regular file"
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
                shutil.copyfileobj(source, file)
        else:
            raise WorkloadError(
                f"image {image.path}: {path} is a device, a pipe or a sparse file, but an image has files, folders and "
                "links; leave it out"
            )
    os.chown(path, member.uid, member.gid, follow_symlinks=False)
    if not member.issym():
        os.chmod(path, member.mode & SHARED)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def _layout(path: Path, opened: Callable[[str], IO[bytes]]) -> Image:
    """The image of an OCI layout, the one for this machine where there are several."""
    chosen = _for_this_machine(_json(opened("index.json"))["manifests"])
    manifest = _json(opened(_blob(chosen)))
    if "manifests" in manifest:  # an index of its own
        manifest = _json(opened(_blob(_for_this_machine(manifest["manifests"]))))
    settings = _json(opened(_blob(manifest["config"]))).get("config") or {}
    given = dict(entry.split("=", 1) for entry in settings.get("Env") or () if "=" in entry)
    layers = tuple(_checked_layer(opened, layer) for layer in manifest["layers"])
    return Image(
        path, layers=layers, environment={"PATH": USUAL_PATH, **given},
        entry_point=_words(settings, "Entrypoint"), arguments=_words(settings, "Cmd"),
        folder=str(settings.get("WorkingDir") or ""), user=str(settings.get("User") or ""),
    )  # fmt: skip


def _words(settings: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = settings.get(key) or []
    if not isinstance(found, list) or not all(isinstance(word, str) and "\0" not in word for word in found):
        raise ValueError(f"{key} is no list of words")
    return tuple(found)


@dataclass(frozen=True)
class ImageUser:
    """Who programs of an image are: numbers of the user, the group and the further groups, and a home folder."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/root"


def image_user(image: Image, root: Path) -> ImageUser:
    """Whom the makers of an image want its programs to be, by the image's own lists of users and groups.

    Args:
        root: the folder of the unpacked image.

    Raises:
        WorkloadError: it names a user or a group that its lists have not got.
    """
    name, _, group = image.user.partition(":")
    if not name:
        return ImageUser()
    users, groups = in_own_thread(_accounts, root)
    user = next((row for row in users if name in (row[0], row[2])), None)
    uid = int(user[2]) if user else _number(name)
    gid: int | None = int(user[3]) if user else 0
    if group:
        gid = next((int(row[2]) for row in groups if row[0] == group), _number(group))
    if uid is None or gid is None:
        raise WorkloadError(
            f"image {image.path}: its user is {image.user!r}, but its /etc/passwd and /etc/group have none such; "
            "make it anew, with a number"
        )
    further = tuple(int(row[2]) for row in groups if user and not group and user[0] in row[3].split(","))
    return ImageUser(uid, gid, further, (user[5] if user else "") or "/")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _accounts(root: Path) -> list[list[list[str]]]:
    """The rows of an image's /etc/passwd and /etc/group that are whole, read with the image as the root."""
    unshare(CLONE_FS)
    os.chroot(root)
    os.chdir("/")
    found = []
    for name, fields in (("passwd", 7), ("group", 4)):
        try:
            with open(os.open(f"/etc/{name}", os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                lines = file.read(MOST_JSON_BYTE).decode("utf-8", "replace").split("\n")
        except OSError:
            lines = []
        rows = (line.split(":") for line in lines)
        found.append([row for row in rows if len(row) == fields and all(map(_is_number, row[2 : fields // 2 + 1]))])
    return found


def _is_number(text: str) -> bool:
    return _number(text) is not None


def _for_this_machine(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    fitting = [one for one in manifests if one.get("platform", {}).get("architecture", architecture) == architecture]
    if len(fitting) != 1:
        raise ValueError(f"it has {len(fitting)} manifests for {architecture} instead of one")
    return fitting[0]


def _blob(descriptor: Mapping[str, Any]) -> str:
    kind, _, digest = str(descriptor["digest"]).partition(":")
    if kind != "sha256" or len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise ValueError(f"{descriptor['digest']!r} is no sha256 digest")
    return f"blobs/sha256/{digest}"


def _checked_layer(opened: Callable[[str], IO[bytes]], descriptor: Mapping[str, Any]) -> _Open:
    """What opens a layer, once its digest was found right."""
    name = _blob(descriptor)

    def open_layer() -> IO[bytes]:
        found = hashlib.sha256()
        with closing(opened(name)) as blob:
            while piece := blob.read(MIB):
                found.update(piece)
        if not name.endswith(found.hexdigest()):
            raise ValueError(f"{name} is damaged")
        with closing(opened(name)) as blob:
            packed = blob.read(len(ZSTD)) == ZSTD
        return _unpacked_by_zstd(opened(name)) if packed else opened(name)

    return open_layer


def _unpacked_by_zstd(packed: IO[bytes]) -> IO[bytes]:
    """What is in a stream that is packed by zstd, as this machine's program of that name unpacks it."""
    try:
        process = subprocess.Popen(
            ["zstd", "--decompress", "--stdout"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError:
        raise ValueError("a layer is packed by zstd, which is not on this machine: apt-get install zstd") from None
    assert process.stdin is not None and process.stdout is not None

    def feed(target: IO[bytes]) -> None:
        with suppress(BrokenPipeError), packed, target:  # whoever reads has had enough
            shutil.copyfileobj(packed, target, MIB)
        process.wait()

    threading.Thread(target=feed, args=(process.stdin,), daemon=True).start()
    return process.stdout


def _why(error: Exception) -> str:
    """Why an image cannot be read; tarfile itself tells of each packing that it has tried, line by line."""
    if isinstance(error, tarfile.ReadError):
        return "it is no tar"
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"


def _json(stream: IO[bytes]) -> dict[str, Any]:
    with closing(stream):
        found: dict[str, Any] = json.loads(stream.read(MOST_JSON_BYTE))
    return found


def _members(image: Image, layer: _Open) -> Iterator[tarfile.TarInfo]:
    try:
        with closing(layer()) as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
            yield from tar
    except (OSError, tarfile.TarError, EOFError, ValueError) as error:
        raise WorkloadError(
            f"image {image.path}: a layer cannot be read ({type(error).__name__}: {error}), but it is a tar, plain or "
            "packed by gzip, bzip2, xz or zstd; write it so"
        ) from None


def _first_names(archive: tarfile.TarFile) -> Iterator[str]:
    """The names in an archive, as many as an image may have."""
    for number, member in enumerate(archive):
        if IMAGE_FILES.excess(number):
            return
        yield member.name


def _member(path: Path, name: str) -> IO[bytes]:
    archive = tarfile.open(path)  # noqa: SIM115  as long as the stream
    found = next(member for member in archive if posixpath.normpath(member.name) == name)
    stream = archive.extractfile(found)
    if stream is None:
        raise ValueError(f"{name} is no file")
    return stream
