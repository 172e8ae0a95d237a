"""Files of prompted rows: what is read from them, and how a broken row is reported."""

import json

import pytest
from etils import epath

from poly_jax.data.quiet import tf
from poly_jax.errors import UserError
from poly_jax.tasks.t0_pretraining.row_files import CachedRecords, JsonLines


def json_lines(path, *lines):
    path.write_bytes(b"".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return JsonLines([epath.Path(path)])


def line(inputs="question", targets="answer"):
    return json.dumps({"inputs": inputs, "targets": targets}) + "\n"


def record(**texts):
    features = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text])) for name, text in texts.items()
    }
    # P3's tokens, which stand beside the texts.
    features["inputs"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[7, 8]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def pretokenized(inputs=b"question", targets=b"answer"):
    return record(inputs_pretokenized=inputs, targets_pretokenized=targets)


def records(path, *contents):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for content in contents:
            writer.write(content)
    return epath.Path(path)


def test_rows_are_read_at_any_place_and_keep_every_character(tmp_path):
    texts = ["a", "two\nlines\u2028and a half \\", "ünïcödé", "last"]
    file = json_lines(
        tmp_path / "x.jsonl", *(line(text, text.upper()) for text in texts[:-1]), line("last", "L")[:-1]
    )
    assert len(file) == 4
    assert [file.row(place).inputs for place in (3, 1, 0, 2)] == ["last", texts[1], "a", texts[2]]
    assert file.row(2).targets == "ÜNÏCÖDÉ"


def test_records_are_read_at_any_place_over_several_files(tmp_path):
    paths = [
        records(tmp_path / "0", pretokenized(b"a"), pretokenized(b"b" * 3000)),
        records(tmp_path / "1"),
        records(tmp_path / "2", pretokenized(b"c", b"d")),
    ]
    file = CachedRecords(paths)
    assert [file.row(place).inputs for place in (2, 0, 1)] == ["c", "a", "b" * 3000]
    assert file.row(2).targets == "d"
    assert len(CachedRecords(paths, limit=2)) == 2


def test_only_the_first_rows_are_used_where_there_is_a_limit(tmp_path):
    path = tmp_path / "x.jsonl"
    json_lines(path, *(line(str(n)) for n in range(9)))
    file = JsonLines([epath.Path(path)], limit=4)
    assert [file.row(place).inputs for place in range(len(file))] == ["0", "1", "2", "3"]
    assert len(JsonLines([epath.Path(path)], limit=100)) == 9


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("{inputs\n", r"x\.jsonl, line 2 is not valid JSON"),
        ("\n", r"x\.jsonl, line 2 is not valid JSON"),
        ("[1]\n", r"x\.jsonl, line 2 holds a list where an object is needed"),
        ('{"inputs": "a"}\n', r"x\.jsonl, line 2 has no 'targets'"),
        ('{"inputs": "a", "targets": 3}\n', r"x\.jsonl, line 2: targets is 3, and it must be a text"),
        (line("a", " "), r"x\.jsonl, line 2 has empty targets"),
        (line("", "a"), r"x\.jsonl, line 2 has empty inputs"),
        (b'{"inputs": "\xff", "targets": "a"}\n', r"x\.jsonl, line 2 is not UTF-8 text"),
    ],
)
def test_a_broken_line_is_an_error_that_names_the_file_and_the_line(tmp_path, broken, message):
    file = json_lines(tmp_path / "x.jsonl", line(), broken, line())
    assert file.row(0) == file.row(2) == ("question", "answer")
    with pytest.raises(UserError, match=message) as raised:
        file.row(1)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (b"\xff\xff\xff", r"x, record 2 is no tf\.train\.Example"),
        (record(inputs_pretokenized=b"a"), r"x, record 2 has no text 'targets_pretokenized'"),
        (pretokenized(b"\xff"), r"x, record 2: inputs_pretokenized is not UTF-8 text"),
        (pretokenized(b"a", b""), r"x, record 2 has empty targets"),
    ],
    ids=["no record", "no target", "not UTF-8", "empty target"],  # A record's bytes are not the same twice.
)
def test_a_broken_record_is_an_error_that_names_the_file_and_the_record(tmp_path, broken, message):
    file = CachedRecords([records(tmp_path / "x", pretokenized(), broken)])
    assert file.row(0) == ("question", "answer")
    with pytest.raises(UserError, match=message) as raised:
        file.row(1)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kept", [-1, 5, 30])
def test_a_file_that_ends_inside_a_record_is_an_error_that_names_the_record(tmp_path, kept):
    path = records(tmp_path / "x", pretokenized(), pretokenized())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 + kept] if kept > 0 else whole[:-1])
    with pytest.raises(UserError, match=r"x, record 2 is damaged, or the file ends inside it"):
        len(CachedRecords([path]))


def test_a_missing_or_empty_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(UserError, match=r"absent cannot be read \(No such file"):
        len(CachedRecords([epath.Path(tmp_path / "absent")]))
    with pytest.raises(UserError, match=r"x\.jsonl has no row"):
        len(json_lines(tmp_path / "x.jsonl"))


def test_every_real_row_can_be_read(shared_data):
    folder = shared_data / "t0" / "p3_rendered"
    manifest = json.loads((folder.parent / "p3_rendered_manifest.json").read_text())
    for entry in manifest:
        file = JsonLines([epath.Path(folder / f"{entry['task_name']}.jsonl")])
        assert len(file) == entry["rows"]
        targets = {file.row(place).targets for place in range(len(file))}
        assert len(targets) <= entry["distinct_targets"]
