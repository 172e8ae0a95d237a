"""T0's table of training data sets, and both published formulas for the share of each template."""

import collections
import csv
import json

import pytest

from poly_jax.tasks.t0_pretraining.data_sets import DATA_SETS, p3_name, training_data_set

BY_NAME = {data_set.p3_name: data_set for data_set in DATA_SETS}


def test_there_are_313_templates_of_38_data_sets():
    assert len(BY_NAME) == 38
    assert sum(data_set.n_templates for data_set in DATA_SETS) == 313


@pytest.mark.parametrize(
    ("name", "rows", "rate"),
    [
        # A small data set is used whole, in both programs.
        ("glue_mrpc", 3_668, 3_668),
        # Of a large one, the templates share 500,000 rows.
        ("amazon_polarity", 55_555, 55_555),
        # Between the two, T-Few cuts and t-zero does not: 363,846 < 500,000, and 500,000 // 6 = 83,333.
        ("glue_qqp", 83_333, 363_846),
        ("ag_news", 71_428, 120_000),
    ],
)
def test_a_template_has_the_rows_of_t_few_and_the_rate_of_t_zero(name, rows, rate):
    assert BY_NAME[name].rows_per_template == rows
    assert BY_NAME[name].rate_per_template == rate


def test_the_templates_have_the_published_ten_million_rows_in_total():
    assert sum(each.n_templates * each.rows_per_template for each in DATA_SETS) == 10_606_443


def test_characters_that_p3_does_not_use_in_names_become_one_underscore():
    assert p3_name(BY_NAME["glue_mrpc"], "same thing") == "glue_mrpc_same_thing"
    assert p3_name(BY_NAME["cos_e_v1.11"], "i think -- so?") == "cos_e_v1.11_i_think_so_"


@pytest.mark.parametrize(
    "name",
    [
        "super_glue_rte_must_be_true",  # a held-out task
        "gigaword_summarize_",  # left out by name in both programs
        "quail_no_prompt_text_score_eval",  # the same rows again, one for each choice
        "glue_mrpc",  # no template
        "glue_cola_is_this_correct",  # another subset
        "wiki_qa2_x",
    ],
)
def test_templates_that_t0_does_not_train_on_belong_to_no_data_set(name):
    assert training_data_set(name) is None


def test_the_table_agrees_with_t_zeros_own(shared_data):
    with (shared_data / "t0" / "datasets.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["do_train"] == "BASE"]
    assert {(each.name, each.subset, each.train_size) for each in DATA_SETS} == {
        (row["HF_name"], row["subset"], int(row["train_size"])) for row in rows
    }


def test_every_published_template_has_its_data_set_name_rows_and_rate(shared_data):
    templates = json.loads((shared_data / "t0" / "t0_train_tasks_313.json").read_text())
    counts = collections.Counter()
    for entry in templates:
        data_set = training_data_set(entry["task_name"])
        assert data_set is not None, entry["task_name"]
        assert (data_set.name, data_set.subset or None) == (entry["dataset"], entry["subset"])
        assert p3_name(data_set, entry["template"]) == entry["task_name"]
        assert data_set.rows_per_template == entry["mttl_cap"]
        assert data_set.rate_per_template == entry["tzero_mixture_rate"]
        counts[data_set] += 1
    assert counts == {data_set: data_set.n_templates for data_set in DATA_SETS}
