"""Results that a rerun reuses, in a file that any JSON reader can read."""

import json

import pytest

from poly_jax.errors import UserError
from poly_jax.reporting.results_file import ResultsFile


def test_a_result_is_not_computed_again_even_in_a_later_process(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"score": 1.5}

    path = tmp_path / "results.jsonl"
    assert ResultsFile(path).once({"a": 1, "b": "x"}, compute) == {"score": 1.5}
    assert ResultsFile(path).once({"b": "x", "a": 1}, compute) == {"score": 1.5}
    assert len(calls) == 1
    ResultsFile(path).once({"a": 2, "b": "x"}, compute)
    assert len(calls) == 2


def test_half_a_line_from_a_stopped_process_is_dropped_and_the_rest_kept(tmp_path):
    path = tmp_path / "results.jsonl"
    ResultsFile(path).add({"a": 1}, {"score": 1.0})
    whole = path.read_text()
    path.write_text(whole + '{"key": {"a": 2}, "resu')
    results = ResultsFile(path)
    assert results.get({"a": 1}) == {"score": 1.0}
    assert {"a": 2} not in results
    results.add({"a": 2}, {"score": 2.0})
    assert ResultsFile(path).get({"a": 2}) == {"score": 2.0}


def test_a_file_with_other_content_is_named_with_its_line(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"key": {"a": 1}, "result": {}}\n[1, 2]\n')
    with pytest.raises(UserError, match=r"results\.jsonl, line 2, is not a result"):
        ResultsFile(path)


def without_constants(text):
    """Parse JSON strictly: bare NaN and Infinity are errors."""

    def refuse(name):
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def test_undefined_numbers_are_null_in_the_file_and_none_in_every_process(tmp_path):
    path = tmp_path / "results.jsonl"
    results = ResultsFile(path)
    added = {"loss": float("nan"), "metrics": {"a": float("inf"), "b": 2.0}, "curve": [1.0, float("nan")]}
    results.add({"a": 1}, added)
    expected = {"loss": None, "metrics": {"a": None, "b": 2.0}, "curve": [1.0, None]}
    assert without_constants(path.read_text()) == {"key": {"a": 1}, "result": expected}
    assert results.get({"a": 1}) == ResultsFile(path).get({"a": 1}) == expected


def test_a_file_of_an_earlier_version_with_bare_nan_is_read(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"key": {"a": 1}, "result": {"loss": NaN, "metrics": {"b": -Infinity}}}\n')
    assert ResultsFile(path).get({"a": 1}) == {"loss": None, "metrics": {"b": None}}


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b'"x"',
        b"{}",
        b'{"key": [], "result": {}}',
        b'{"key": {}, "result": 3}',
        b"\xff\xfe",
        pytest.param(b"[" * 100_000, id="deep"),
    ],
)
def test_a_damaged_line_is_named_and_left_as_it_is(tmp_path, line):
    path = tmp_path / "results.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(UserError, match=r"results\.jsonl, line 1, is not a result of this program"):
        ResultsFile(path)
    assert path.read_bytes() == line + b"\n"
