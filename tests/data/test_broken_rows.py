"""Broken rows are counted, named with file and line, and refused above a share that a user chooses."""

import pytest

from poly_jax.data.broken_rows import BrokenRow, RowCheck, checking
from poly_jax.errors import UserError


def read(check, broken, total, file="a.tsv"):
    """Read `total` rows, of which those in `broken` are broken, and return the others."""
    rows = []
    for line in range(1, total + 1):
        with check.row(file, line, f"{file}, line {line}"):
            if line in broken:
                raise UserError(f"{file}, line {line} is not UTF-8; repair it")
            rows.append(line)
    return rows


def test_the_rows_beside_a_broken_one_are_read_and_it_is_named():
    check = RowCheck(0.5)
    assert read(check, {2}, 4) == [1, 3, 4]
    assert check.broken == (BrokenRow("a.tsv", 2, "is not UTF-8; repair it"),)


def test_any_broken_row_is_refused_unless_a_share_is_set():
    check = RowCheck()
    read(check, {2}, 1000)
    with pytest.raises(UserError, match=r"^a\.tsv, line 2 is not UTF-8; repair it$"):
        check.finish()


def test_several_broken_rows_are_counted_in_one_line_that_names_the_first():
    check = RowCheck()
    read(check, {2, 5, 6, 7, 9}, 1200)
    with pytest.raises(UserError) as raised:
        check.finish()
    message = str(raised.value)
    assert message.startswith("5 of 1,200 rows are broken (max_broken_share 0): a.tsv, line 2 is not UTF-8")
    assert "a.tsv, line 6 " in message
    assert "line 7" not in message
    assert message.endswith("; and 2 more")
    assert "\n" not in message


@pytest.mark.parametrize(("broken", "total", "refused"), [(1, 10, False), (2, 20, False), (2, 19, True)])
def test_exactly_the_share_that_is_set_is_accepted(broken, total, refused, capsys):
    check = RowCheck(0.1)
    read(check, set(range(1, broken + 1)), total)
    if refused:
        with pytest.raises(
            UserError, match=rf"{broken} of {total} rows are broken \(max_broken_share 0\.1\)"
        ):
            check.finish()
    else:
        check.finish()
        said = capsys.readouterr().err
        assert said.startswith(f"left out {broken} of {total} rows, which are broken: a.tsv, line 1 is not")


def test_a_reading_without_a_row_left_is_refused_whatever_the_share():
    check = RowCheck(0.99)
    read(check, {1}, 1)
    with pytest.raises(UserError, match="line 1"):
        check.finish()


def test_the_share_is_of_all_files_of_a_reading():
    check = RowCheck(0.25)
    read(check, {1}, 2)
    read(check, set(), 2, "b.tsv")
    check.finish()


def test_without_a_check_a_broken_row_is_refused_at_the_end():
    with pytest.raises(UserError, match="2 of 3 rows are broken"), checking(None) as check:
        read(check, {1, 3}, 3)
    given = RowCheck()
    with checking(given) as check:
        read(check, {1, 3}, 3)
    assert len(given.broken) == 2


def test_other_errors_are_not_hidden():
    with pytest.raises(ZeroDivisionError), RowCheck(0.5).row("a", 1, "a, line 1"):
        1 / 0  # noqa: B018


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan")])
def test_a_share_outside_its_range_is_refused(share):
    with pytest.raises(UserError, match=r"max_broken_share is .*; give a share of rows, from 0 to below 1"):
        RowCheck(share)
