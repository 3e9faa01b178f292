"""Files appear whole or not at all."""

from __future__ import annotations

import pytest

from pruning_env.files import atomic_path, atomic_write


def test_text_is_written_as_utf8_and_bytes_as_they_are(tmp_path):
    atomic_write(tmp_path / "text", "7 × 7")
    atomic_write(tmp_path / "bytes", b"\x00\xff")
    assert (tmp_path / "text").read_bytes() == "7 × 7".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"


def test_missing_folders_are_made_and_nothing_else_is_left_behind(tmp_path):
    atomic_write(tmp_path / "a" / "b" / "row.json", "{}")
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["row.json"]


def test_an_existing_file_is_replaced(tmp_path):
    path = tmp_path / "row.json"
    atomic_write(path, "old, and longer")
    atomic_write(path, "new")
    assert path.read_text() == "new"


def test_the_destination_is_untouched_while_the_writer_writes(tmp_path):
    path = tmp_path / "row.json"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
        assert temporary.suffix == ".json"
    assert path.read_text() == "new"


def test_a_writer_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "row.json"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="half way"), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("half way")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_share_a_temporary_file(tmp_path):
    path = tmp_path / "row.json"
    with atomic_path(path) as first, atomic_path(path) as second:
        first.write_text("first")
        second.write_text("second")
        assert first != second
    assert path.read_text() == "first"  # the outer block ends last
    assert list(tmp_path.iterdir()) == [path]


def test_new_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    atomic_write(tmp_path / "atomic", "")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode
