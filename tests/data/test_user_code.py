"""Errors in the code of a user's task and impossible rates are reported in one line that names the place."""

import functools
import sys

import pytest

from poly_jax.data.batches import eval_batches, train_batches
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.routed import routed
from poly_jax.data.task_table import TaskTable
from poly_jax.data.user_code import cause, own_errors
from poly_jax.errors import UserError

LENGTHS = {"inputs": 12, "targets": 12}


def train(name, **options):
    return train_batches(name, TaskTable.of(name), sequence_length=LENGTHS, batch_size=2, seed=0, **options)


def fails_when_built(dataset):
    raise KeyError("no such field")


def fails_inside_a_map(dataset):
    def change(example):
        return {**example, "inputs": example["question"]}

    return dataset.map(change)


def fails_on_an_example(dataset):
    def check(values):
        if len(values) > 3:
            raise ValueError("an answer is too long")
        return values

    def change(example):
        checked = tf.numpy_function(check, [example["inputs"]], tf.int32)
        return {**example, "inputs": tf.ensure_shape(checked, [None])}

    return dataset.map(change)


def test_a_preprocessor_that_ends_the_process_is_reported_by_name(plain_task):
    def leaves(dataset):
        raise SystemExit(3)

    plain_task("owl", preprocessors=[leaves])
    with pytest.raises(UserError, match=r"preprocessor '.*leaves.*' of task 'owl' failed: SystemExit: 3"):
        next(train("owl"))


def test_an_error_is_found_behind_the_place_where_a_task_is_cached(plain_task):
    plain_task("elk", preprocessors=[seqio.CacheDatasetPlaceholder(), fails_on_an_example])
    with pytest.raises(UserError, match=r"preprocessor '.*fails_on_an_example.*' of task 'elk' failed"):
        next(train("elk"))


def test_an_error_that_names_its_own_place_is_reported_as_it_is(plain_task):
    def refuses(dataset):
        def refuse(values):
            raise UserError("file.jsonl, line 3 is empty")

        def change(example):
            refused = tf.numpy_function(refuse, [example["inputs"]], tf.int32)
            return {**example, "inputs": tf.ensure_shape(refused, [None])}

        return dataset.map(change)

    plain_task("emu", preprocessors=[refuses])
    with pytest.raises(UserError, match=r"^file\.jsonl, line 3 is empty$"):
        next(train("emu"))


@pytest.mark.parametrize("preprocessor", [fails_when_built, fails_inside_a_map, fails_on_an_example])
def test_an_error_in_a_preprocessor_names_it_and_its_task(plain_task, preprocessor):
    causes = {
        fails_when_built: "KeyError: 'no such field'",
        fails_inside_a_map: "KeyError: 'question'",
        fails_on_an_example: "ValueError: an answer is too long",
    }
    plain_task("owl", preprocessors=[preprocessor])
    for read in (lambda: next(train("owl")), lambda: list(evaluate("owl"))):
        with pytest.raises(UserError) as caught:
            read()
        message = str(caught.value)
        assert preprocessor.__name__ in message
        assert "task 'owl'" in message
        assert causes[preprocessor] in message
        assert "\n" not in message


def evaluate(name):
    return eval_batches(name, TaskTable.of(name), split="test", sequence_length=LENGTHS, batch_size=2)


def test_an_error_in_a_data_source_names_its_task_and_split(plain_task):
    def read(split, shuffle_files):
        raise OSError("the disk is gone")

    plain_task("owl", source=seqio.FunctionDataSource(read, splits=("train",)))
    with pytest.raises(
        UserError, match="the data of task 'owl', split 'train', failed: OSError: the disk is"
    ):
        train("owl")


def test_an_error_in_a_generator_is_reported_as_one_of_the_data_source(plain_task, plain_mixture):
    def rows():
        yield {"inputs": [5, 1], "targets": [5, 1]}
        raise RuntimeError("line 7 of the file is broken")

    def read(split, shuffle_files):
        spec = tf.TensorSpec([None], tf.int32)
        return tf.data.Dataset.from_generator(rows, output_signature={"inputs": spec, "targets": spec})

    plain_task("bat", source=seqio.FunctionDataSource(read, splits=("train",)))
    seqio.MixtureRegistry.add("zoo", ["ant", "bat"], default_rate=1.0)
    with pytest.raises(
        UserError, match="the data source of task 'bat' failed on split 'train': RuntimeError: line 7"
    ):
        for _, _ in zip(range(40), train("zoo"), strict=False):
            pass


def test_errors_in_metrics_and_postprocessors_name_them(plain_task):
    def wrong(targets, predictions):
        return {"share": 1 / 0}

    def shorten(text, **_):
        return text.no_such_method()

    plain_task("owl", metric_fns=[wrong])
    plain_task("ant", metric_fns=[wrong], postprocess_fn=shorten)
    for name, message in (
        ("owl", "metric 'wrong' of task 'owl' failed: ZeroDivisionError: division by zero"),
        (
            "ant",
            "postprocessor 'shorten' of task 'ant' failed: AttributeError: 'str' object has no attribute",
        ),
    ):
        view = routed(name, TaskTable.of(name))
        evaluator = seqio.Evaluator(
            view.name, _passing(), eval_split="test", sequence_length=None, async_compute_metrics=False
        )
        with pytest.raises(UserError, match=message), own_errors():
            evaluator.evaluate(compute_metrics=True, predict_fn=lambda data: [(int(i), [5]) for i, _ in data])


def _passing():
    from poly_jax.data.feature_converter import RoutedEncDecFeatureConverter

    return RoutedEncDecFeatureConverter()


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"owl": 1.0, "ant": -1.0}, "the rate of task 'ant' in mixture 'pair' is -1; give a finite number"),
        ({"owl": float("nan"), "ant": 1.0}, "the rate of task 'owl' in mixture 'pair' is nan"),
        ({"owl": float("inf"), "ant": 1.0}, "the rate of task 'owl' in mixture 'pair' is inf"),
        ({"owl": 0.0, "ant": 0.0}, "every task of mixture 'pair' with a split 'train' has rate 0"),
        (
            {"owl": 1.0, "ant": seqio.mixing_rate_num_examples},
            "task 'ant' does not say how many examples it has, which its rate in mixture 'pair' needs",
        ),
        (
            {"owl": 1.0, "ant": functools.partial(seqio.mixing_rate_num_examples, maximum=9)},
            "task 'ant' does not say how many examples",
        ),
    ],
)
def test_impossible_rates_are_refused(plain_task, rates, message):
    for name in rates:
        plain_task(name)
    seqio.MixtureRegistry.add("pair", list(rates.items()))
    with pytest.raises(UserError, match=message):
        train("pair")


def test_a_task_with_rate_0_is_left_out(plain_task):
    plain_task("ant")
    plain_task("owl")
    seqio.MixtureRegistry.add("one", [("ant", 1.0), ("owl", 0.0)])
    assert next(train("one"))["task_ids"].tolist() == [0, 0]


def test_the_cause_is_the_python_error_that_tensorflow_quotes():
    traced = 'in user code:\n\n    File "a.py", line 3, in f  *\n        g(x)\n\n    TypeError: g() takes 2\n'
    assert cause(TypeError(traced)) == "TypeError: g() takes 2"
    quoted = (
        "{{function_node X}} ValueError: bad row\nTraceback (most recent call last):\n\nValueError: bad row\n"
    )
    assert cause(RuntimeError(quoted)) == "ValueError: bad row"
    assert cause(ValueError("")) == "ValueError: no message"
    assert cause(RuntimeError("poly_jax.errors.UserError: use a split")) == "use a split"


def test_the_rates_of_the_recorded_case_are_refused(shared_cases, registry, monkeypatch):
    monkeypatch.syspath_prepend(shared_cases / "mixture_rate_unknown_count")
    sys.modules.pop("my_tasks", None)
    import my_tasks  # noqa: F401

    for name in ("by_size", "by_size_capped"):
        with pytest.raises(UserError, match="task 'uncounted' does not say how many examples it has"):
            train(name)
    with pytest.raises(UserError, match="the rate of task 'uncounted' in mixture 'negative' is -1"):
        train("negative")
    with pytest.raises(UserError, match="every task of mixture 'all_zero'"):
        train("all_zero")
    assert next(train("zero_rate"))["task_ids"].tolist() == [0, 0]
