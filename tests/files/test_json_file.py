import codecs
import json
import math

import pytest

from poly_jax.errors import UserError
from poly_jax.files.json_fields import Fields, check_items
from poly_jax.files.json_file import MAX_DEPTH, parse_json, read_json


def _written(tmp_path, content: bytes):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    return path


def test_an_object_is_read_with_and_without_a_byte_order_mark(tmp_path):
    content = '{"a": [1, 2.5, true, null, "é\\ud83d\\ude00"]}'
    expected = {"a": [1, 2.5, True, None, "é😀"]}
    assert read_json(_written(tmp_path, content.encode())) == expected
    assert read_json(_written(tmp_path, b"\xef\xbb\xbf" + content.encode())) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not valid JSON"),
        (b"{", "is not valid JSON .*line 1 column 2"),
        (b"{}{}", "is not valid JSON"),
        (b'{"a": "\xff"}', r"is not UTF-8 text \(invalid start byte at byte 7\)"),
        *(
            (mark + '{"a": 1}'.encode(code), "is UTF-16 text, .* `iconv -f UTF-16 -t UTF-8 FILE > NEW_FILE`")
            for mark, code in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
        ),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"a": 1e999}', "the number '1e999' is too large"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "is not valid JSON"),
        (b'{"a": 1, "a": 2}', "has the key 'a' twice"),
        (b'{"a": "\\ud800"}', r"half of a surrogate pair \('\\ud800'\)"),
        (b'{"\\udfff": 1}', "half of a surrogate pair"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nests JSON deeper than 100 levels"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nests JSON deeper than 100 levels"),
        (b"[" * 100_000, "nests JSON deeper than 100 levels"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nests JSON deeper than 100 levels"),
        (b"[1]", "holds a list where an object is needed"),
        (b"null", "holds null where an object is needed"),
        (b"true", "holds true or false where an object is needed"),
    ],
)
def test_content_that_is_not_valid_is_refused_in_one_line_that_names_the_file(tmp_path, content, message):
    path = _written(tmp_path, content)
    with pytest.raises(UserError, match=message) as error:
        read_json(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_the_deepest_allowed_nesting_is_read():
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_json(text, "it", list) == json.loads(text)


def test_no_more_than_the_limit_is_read(tmp_path):
    path = _written(tmp_path, b'{"a": 1}')
    assert read_json(path, max_bytes=8) == {"a": 1}
    with pytest.raises(UserError, match="larger than 7 bytes"):
        read_json(path, max_bytes=7)


def test_a_missing_file_and_a_folder_are_reported_by_name(tmp_path):
    with pytest.raises(UserError, match=r"gone\.json is missing; copy the folder again"):
        read_json(tmp_path / "gone.json", advice="copy the folder again")
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path)


def test_the_caller_chooses_the_type_of_the_top_level(tmp_path):
    assert read_json(_written(tmp_path, b"[1]"), list) == [1]
    assert read_json(_written(tmp_path, b"[1]"), object) == [1]
    with pytest.raises(UserError, match="holds an object where a list is needed"):
        read_json(_written(tmp_path, b"{}"), list)


def test_nan_is_read_where_the_caller_allows_it():
    assert math.isnan(parse_json('{"loss": NaN}', "it", allow_nan=True)["loss"])
    assert parse_json('{"loss": Infinity}', "it", allow_nan=True) == {"loss": math.inf}


def test_an_error_in_a_line_names_the_line_and_bytes_are_decoded():
    assert parse_json(b'{"a": "\xc3\xa9"}', "it") == {"a": "é"}
    with pytest.raises(UserError, match=r"^input\.jsonl, line 3 is not valid JSON .*; mend the line$"):
        parse_json("{", "input.jsonl, line 3", advice="mend the line")


def test_fields_are_read_with_their_types():
    fields = Fields(
        {"n": 3, "x": 2, "s": "t", "b": False, "o": {"n": 1}, "l": ["a"], "z": None}, "config.json"
    )
    assert (fields.take("n", int), fields.take("s", str), fields.take("b", bool)) == (3, "t", False)
    assert isinstance(fields.take("x", float), float)
    assert fields.inside("o").take("n", int) == 1
    assert fields.take_list("l", str) == ["a"]
    assert fields.take("z", str, default=None) is None
    assert fields.take("absent", int, default=4) == 4
    assert "n" in fields
    assert "absent" not in fields


@pytest.mark.parametrize(
    ("value", "kind", "bounds", "message"),
    [
        ("x", int, {"at_least": 1}, "n is 'x', and it must be a whole number of at least 1"),
        (0, int, {"at_least": 1}, "n is 0, and it must be a whole number of at least 1"),
        (True, int, {}, "n is True, and it must be a whole number"),
        (1.5, int, {}, "n is 1.5, and it must be a whole number"),
        (True, float, {}, "n is True, and it must be a number"),
        (10**400, float, {}, "n is 1000000.*, and it must be a number"),
        (1, bool, {}, "n is 1, and it must be true or false"),
        (None, str, {}, "n is None, and it must be a text"),
        ([1], dict, {}, "n is a list, and it must be an object"),
        ("x\ny", dict, {}, r"n is 'x\\ny', and it must be an object"),
    ],
)
def test_a_field_of_another_type_is_refused_by_name(value, kind, bounds, message):
    with pytest.raises(UserError, match=message) as error:
        Fields({"n": value}, "config.json").take("n", kind, **bounds)
    assert str(error.value).startswith("config.json: ")
    assert len(str(error.value)) < 200


def test_absent_nested_listed_and_unknown_fields_are_reported_by_name():
    fields = Fields({"o": {}, "l": ["a", 1]}, "config.json")
    with pytest.raises(UserError, match=r"config\.json has no 'n'"):
        fields.take("n", int)
    with pytest.raises(UserError, match=r"config\.json: o has no 'n'"):
        fields.inside("o").take("n", int)
    with pytest.raises(UserError, match=r"config\.json: l: item 1 is 1, and it must be a text"):
        fields.take_list("l", str)
    with pytest.raises(UserError, match=r"config\.json has the unknown field 'l'"):
        fields.check_known(["o"])
    with pytest.raises(UserError, match=r"names\.json: item 0 is None"):
        check_items([None], str, "names.json")
