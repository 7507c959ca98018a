"""A folder becomes one on another machine, as it grows, and nobody who writes into it leads the other side astray."""

from __future__ import annotations

from pathlib import Path

import pytest

from isl_emu.cluster.mirror import Mirror, Piece
from isl_emu.errors import MachineError
from isl_emu.files import write_json


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    return tmp_path / "there", tmp_path / "here"


def _content(folder: Path) -> dict[str, bytes | None]:
    paths = [path for path in folder.rglob("*") if not path.is_symlink()]
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def _carry(source: Mirror, target: Mirror, most_byte: int = 7) -> int:
    """All that is new, in small pieces; how many there were."""
    count = 0
    while pieces := source.changes(most_byte):
        target.apply(pieces)
        count += len(pieces)
    return count


def test_what_is_new_appended_or_replaced_arrives_and_nothing_twice(sides: tuple[Path, Path]) -> None:
    there, here = sides
    source, target = Mirror(there), Mirror(here)
    (there / "journal" / "control").mkdir(parents=True)
    (there / "journal" / "a.jsonl").write_text('{"k": 0}\n')
    (there / "empty").write_text("")
    write_json(there / "state.json", {"now": 1})
    assert _carry(source, target) > 4
    assert _content(here) == _content(there)
    assert source.changes() == []
    with (there / "journal" / "a.jsonl").open("a") as file:
        file.write('{"k": 1}\n')
    write_json(there / "state.json", {"now": 2})
    assert [(piece.path, piece.begins) for piece in source.changes()] == [
        ("state.json", True),
        ("journal/a.jsonl", False),
    ]
    (there / "journal" / "b.jsonl.new").write_text("half of a")
    assert source.changes() == []


def test_what_has_come_is_not_sent_back(sides: tuple[Path, Path]) -> None:
    there, here = sides
    (there / "journal").mkdir()
    (there / "journal" / "plan").write_text("as planned")
    source, target = Mirror(there), Mirror(here)
    _carry(source, target)
    assert target.changes() == []
    with (here / "journal" / "plan").open("a") as file:
        file.write(", and more")
    assert target.changes() == [Piece("journal/plan", b", and more", False)]


def test_a_file_that_is_linked_to_another_is_replaced_and_the_other_is_not_changed(sides: tuple[Path, Path]) -> None:
    _, here = sides
    (here / "first").write_text("of all")
    (here / "second").hardlink_to(here / "first")
    Mirror(here).apply([Piece("second", b"of one")])
    assert (here / "first").read_text() == "of all"
    assert (here / "second").read_text() == "of one"


def test_an_answer_is_complete_before_its_status_is_sent(sides: tuple[Path, Path]) -> None:
    there, here = sides
    source, target = Mirror(there), Mirror(here)
    for name in ("1.status", "1.output", "1.errors"):
        (there / name).write_bytes(b"x" * 20)
    while pieces := source.changes(6):
        target.apply(pieces)
        if (here / "1.status").exists():
            assert (here / "1.output").stat().st_size == (here / "1.errors").stat().st_size == 20


def test_no_link_is_followed_on_either_side(sides: tuple[Path, Path], tmp_path: Path) -> None:
    there, here = sides
    (tmp_path / "secret").write_text("of the machine")
    (tmp_path / "elsewhere").mkdir()
    (there / "file").symlink_to(tmp_path / "secret")
    (there / "folder").symlink_to(tmp_path)
    assert [piece for piece in Mirror(there).changes() if piece.data is not None] == []
    (here / "journal").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        Mirror(here).apply([Piece("journal/1.request", b"{}")])
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "/secret", ""])
def test_nothing_leads_out_of_the_folder(sides: tuple[Path, Path], path: str) -> None:
    with pytest.raises(MachineError, match="leads out of the folder"):
        Mirror(sides[1]).apply([Piece(path, b"x")])


def test_what_is_not_wanted_does_not_travel(sides: tuple[Path, Path]) -> None:
    there, _ = sides
    for name in ("journal", "journal.1"):
        (there / name).mkdir()
        (there / name / "a").write_text("1")
    pieces = Mirror(there, lambda path: not path.startswith("journal.1")).changes()
    assert [piece.path for piece in pieces] == ["journal", "journal/a"]
