from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from isl_emu.errors import MachineError, NetworkError
from isl_emu.files import write_json, write_whole
from isl_emu.live import control
from isl_emu.live.control import ControlDesk, announce, ask, find_live_run, pack, path_inside, unpack
from isl_emu.parts.programs.programs import STARTS_JOURNAL
from isl_emu.runs import directory as rundir
from isl_emu.runs.directory import RunDirectory, create_run_directory
from isl_emu.runs.endpoints import Endpoint, write_endpoints
from isl_emu.runs.folder import RunFolder


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunDirectory:
    monkeypatch.setattr(rundir, "runs_root", lambda: tmp_path / "runs")
    return create_run_directory()


@pytest.fixture
def folder(run, tmp_path) -> Path:
    path = tmp_path / "out"
    (path / "journal").mkdir(parents=True)
    announce(run, path)
    return path


def _greet(request, answer) -> int:
    answer.output.write(f"hello {request['name']}\n".encode())
    return 7


def _fail(request, answer) -> int:
    raise NetworkError("net: it is not there")


def _wait_for_cancel(request, answer) -> int:
    answer.output.write(b"waiting\n")
    while not answer.cancelled():
        threading.Event().wait(0.01)
    request["seen"].set() if "seen" in request else None
    return 130


def _break(request, answer) -> int:
    raise ZeroDivisionError("nobody thought of this")


def _copy(request, answer) -> int:
    while (piece := answer.read()) != b"":
        answer.output.write(piece or b"")
    answer.errors.write(b"copied\n")
    return 0


HANDLERS = {"copy": _copy, "break": _break, "greet": _greet, "fail": _fail, "wait": _wait_for_cancel}


def test_an_answer_comes_with_its_output_and_status(run, folder):
    said = []
    with ControlDesk(folder / "journal", HANDLERS):
        assert ask(run, folder, {"verb": "greet", "name": "world"}, said.append) == 7
    assert b"".join(said) == b"hello world\n"


def test_an_error_is_said_and_not_raised_in_the_run(run, folder):
    said = []
    with ControlDesk(folder / "journal", HANDLERS):
        assert ask(run, folder, {"verb": "fail"}, said.append) == 1
        assert ask(run, folder, {"verb": "greet", "name": "again"}, said.append) == 7
    assert b"".join(said) == b"Error: net: it is not there; " + NetworkError.remedy.encode() + b"\nhello again\n"


def test_an_error_that_nobody_thought_of_is_an_answer_too(run, folder):
    said = []
    with ControlDesk(folder / "journal", HANDLERS):
        assert ask(run, folder, {"verb": "break"}, said.append) == 1
    assert b"ZeroDivisionError" in b"".join(said)


def test_input_comes_through_byte_for_byte_and_errors_apart(run, folder):
    given = os.urandom(3 * control.PIECES_AHEAD * control.PIECE_BYTE // 2)
    source, said, errors = io.BytesIO(given), [], []
    with ControlDesk(folder / "journal", HANDLERS):
        assert ask(run, folder, {"verb": "copy"}, said.append, errors.append, source.read) == 0
    assert b"".join(said) == given
    assert b"".join(errors) == b"copied\n"
    assert not list((folder / "journal" / control.FOLDER).glob("*.input*"))


def test_input_is_not_read_further_than_it_is_taken(run, folder):
    read = []

    def endless(size_byte: int) -> bytes:
        read.append(size_byte)
        return bytes(size_byte)

    with ControlDesk(folder / "journal", HANDLERS | {"sleepy": _read_one_and_end}):
        assert ask(run, folder, {"verb": "sleepy"}, lambda _: None, read=endless) == 0
    assert len(read) <= control.PIECES_AHEAD + 2


def _read_one_and_end(request, answer) -> int:
    while answer.read() is None:
        threading.Event().wait(0.01)
    threading.Event().wait(0.3)
    return 0


def test_a_folder_is_packed_and_unpacked_with_all_in_it(tmp_path):
    source, here = tmp_path / "source", tmp_path / "here"
    (source / "inner").mkdir(parents=True)
    here.mkdir()
    (source / "inner" / "data").write_bytes(os.urandom(100_000))
    (source / "tool").write_text("#!/bin/sh\n")
    (source / "tool").chmod(0o755)
    (source / "link").symlink_to("/etc/hostname")
    os.link(source / "tool", source / "same")
    archive = io.BytesIO()
    pack("source", tmp_path, archive)
    for target, expected in (("here", here / "source"), ("new", tmp_path / "new"), ("here/other", here / "other")):
        archive.seek(0)
        unpack(archive, target, tmp_path)
        assert (expected / "inner" / "data").read_bytes() == (source / "inner" / "data").read_bytes()
        assert os.access(expected / "tool", os.X_OK)
        assert (expected / "same").read_text() == "#!/bin/sh\n"
        assert os.readlink(expected / "link") == "/etc/hostname"
    archive.seek(0)
    unpack(archive, "mine", tmp_path, owner=(os.geteuid() or 1234, os.getegid()))
    assert {path.lstat().st_uid for path in (tmp_path / "mine").rglob("*")} == {os.geteuid() or 1234}
    archive.seek(0)
    with pytest.raises(NotADirectoryError, match="no such folder"):
        unpack(archive, "missing/", tmp_path)
    with pytest.raises(FileNotFoundError):
        pack("missing", tmp_path, archive)


def test_a_path_in_an_image_leads_where_it_leads_its_programs(tmp_path):
    root = tmp_path / "root"
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "bin").symlink_to("/usr/bin")
    (root / "up").symlink_to("../../../usr")
    (root / "usr" / "here").symlink_to("bin")
    (root / "round").symlink_to("/round")
    for path, leads in {"/bin/one": "usr/bin/one", "/up/here": "usr/bin", "/../../usr": "usr", "/new": "new"}.items():
        assert path_inside(str(root), Path(path)) == root / leads
    with pytest.raises(OSError, match="symbolic links"):
        path_inside(str(root), Path("/round/trip"))
    archive = io.BytesIO()
    (tmp_path / "one").write_text("1")
    pack("one", tmp_path, archive)
    archive.seek(0)
    unpack(archive, "/bin/", Path("/files"), str(root))
    assert (root / "usr" / "bin" / "one").read_text() == "1"
    back = io.BytesIO()
    pack("/up/here/one", Path("/files"), back, str(root))
    back.seek(0)
    unpack(back, "back", tmp_path)
    assert (tmp_path / "back").read_text() == "1"


def test_who_stops_waiting_cancels(run, folder):
    finished = threading.Event()

    def wait(request, answer):
        status = _wait_for_cancel({}, answer)
        finished.set()
        return status

    def stop_at_first_word(said: bytes) -> None:
        if said:
            raise KeyboardInterrupt

    with ControlDesk(folder / "journal", {"wait": wait}):
        with pytest.raises(KeyboardInterrupt):
            ask(run, folder, {"verb": "wait"}, stop_at_first_word)
        assert finished.wait(10)


def test_a_run_that_ends_does_not_leave_one_waiting(run, folder):
    (folder / "journal" / control.FOLDER).mkdir()
    (run.path / "owner.json").unlink()
    with pytest.raises(MachineError, match="has ended, but an answer was to come"):
        ask(run, folder, {"verb": "greet"}, lambda _: None)


def test_a_run_without_a_net_yet_says_so(run, folder):
    with pytest.raises(MachineError, match="does not answer yet"):
        ask(run, folder, {"verb": "greet"}, lambda _: None)


@pytest.mark.parametrize("name", ["journal", "journal/control"])
def test_what_is_in_a_guest_does_not_lead_the_asking_side_elsewhere(run, folder, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "control").mkdir(parents=True)
    with ControlDesk(folder / "journal", HANDLERS):
        pass
    (folder / name).rename(folder / "away")
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(MachineError, match="does not answer yet"):
        ask(run, folder, {"verb": "greet", "name": "you"}, bytes)
    assert not [path for path in elsewhere.rglob("*") if path.is_file()]


def test_an_answer_that_is_a_link_or_a_pipe_is_not_read(run, folder, tmp_path):
    secret, said = tmp_path / "secret", []
    secret.write_text("secret")

    def mislead(request, answer) -> int:
        answer.enquiry.output.unlink()
        answer.enquiry.output.symlink_to(secret)
        answer.enquiry.errors.unlink()
        os.mkfifo(answer.enquiry.errors)
        return 3

    with ControlDesk(folder / "journal", {"mislead": mislead}):
        assert ask(run, folder, {"verb": "mislead"}, said.append) == 3
    assert said == []


def test_a_file_is_not_written_through_a_link(tmp_path):
    (tmp_path / "wish.json.new").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        write_whole(tmp_path / "wish.json", "{}")
    assert not (tmp_path / "elsewhere").exists()


def test_the_only_live_run_is_found(run, folder):
    assert find_live_run(None) == (run, folder)
    assert find_live_run(folder) == (run, folder)


def test_without_a_live_run_there_is_an_error(run, folder):
    (run.path / "owner.json").write_text(f'{{"pid": {os.getpid()}, "start_ticks": 1}}')
    with pytest.raises(MachineError, match="there is none"):
        find_live_run(None)


def test_of_several_live_runs_one_must_be_named(run, folder, tmp_path):
    other = tmp_path / "other"
    announce(create_run_directory(), other)
    with pytest.raises(MachineError, match="there are 2"):
        find_live_run(None)
    assert find_live_run(other)[1] == other


def test_another_users_run_must_be_named_though_both_are_root(run, folder, monkeypatch):
    monkeypatch.setattr("isl_emu.runs.directory._user", lambda: 12345)
    with pytest.raises(MachineError, match=r"there is none of yours.*other users' \(1\)"):
        find_live_run(None)
    assert find_live_run(folder) == (run, folder)
    own = folder.parent / "own"
    announce(create_run_directory(), own)
    assert find_live_run(None)[1] == own


@contextmanager
def _guests(folder, answering) -> Iterator[None]:
    """Three guests that share a run and have a node each: here, there, and far."""
    nodes = {"here": 0, "there": 1, "far": 2}
    write_json(folder / "cut.json", {"part": [*nodes.values()]})
    write_endpoints({name: Endpoint("", "", 8080) for name in nodes}, folder / "journal")
    with ExitStack() as desks:
        for part in nodes.values():
            journal = RunFolder(folder, part).journal
            journal.mkdir(exist_ok=True)
            (journal / STARTS_JOURNAL).write_text("{}\n")
            desks.enter_context(ControlDesk(journal, answering(part)))
        yield


def test_what_changes_a_run_is_asked_of_all_its_guests_while_they_stand(run, folder):
    """First of those that have the nodes; where one refuses the others are not asked, and all go on."""
    done = []

    def answering(part):
        def stand(request, answer) -> int:
            answer.output.write(b"2000000000")
            done.append(f"{request['asked']} stands")
            return 0

        def release(request, answer) -> int:
            done.append("goes on")
            return 0

        def act(request, answer) -> int:
            if request.get("refuses") == part:
                raise NetworkError("link: it is not there")
            done.append(f"{part} at {request['stand_ns']}")
            answer.output.write(f"guest {part}\n".encode())
            return 0

        return {"stand": stand, "release": release, **dict.fromkeys(("fault", "set", "restore", "stop"), act)}

    def said(**request) -> tuple[int, str]:
        done.clear()
        found = bytearray()
        return ask(run, folder, request, found.extend), found.decode()

    all_at = "{} at 2000000000 {} at 2000000000 {} at 2000000000".format
    with _guests(folder, answering):
        assert said(verb="set", place=["far", "there"]) == (0, "guest 2\n")
        assert " ".join(done) == f"set stands {all_at(2, 1, 0)} goes on"
        assert said(verb="restore", place=[]) == (0, "guest 0\n")
        assert " ".join(done) == f"restore stands {all_at(0, 1, 2)} goes on"
        assert said(verb="fault", place=["there"], refuses=1)[0] == 1
        assert done == ["fault stands", "goes on"]
        assert said(verb="stop", at_ns=None) == (0, "guest 0\n")  # which lets all go on that it held
        assert " ".join(done) == f"stop stands {all_at(2, 1, 0)}"


def test_of_several_guests_that_is_asked_which_has_the_node(run, folder):
    """Of a link those are asked that have its ends; what all of them have is counted by who asks."""

    def answering(part):
        def answer(request, answer) -> int:
            answer.output.write(f"{request['verb']} {part}{' its end' if request.get('ends_alone') else ''}\n".encode())
            return 0

        return dict.fromkeys(("exec", "link", "status", "capture"), answer)

    def said(**request) -> str:
        found = bytearray()
        assert ask(run, folder, request, found.extend) == 0
        return found.decode()

    with _guests(folder, answering):
        assert said(verb="exec", node="there") == "exec 1\n"
        assert said(verb="exec", node="nowhere") == "exec 0\n"  # who says so
        assert said(verb="link", a="far", b="here") == "link 2\nlink 0 its end\n"
        assert said(verb="capture", place=["far"]) == "capture 2\n"
        with pytest.raises(MachineError, match="capture: here - far leads from one guest to another"):
            said(verb="capture", place=["here", "far"])
        assert said(verb="status") == "0 of 3 model servers ready\nprograms: 3 running, 0 ended\nstatus 0\n"
