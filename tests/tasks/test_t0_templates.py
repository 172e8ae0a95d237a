"""promptsource's templates: how they are read, rendered and chosen."""

import json

import pytest
from etils import epath

from poly_jax.errors import UserError
from poly_jax.tasks.t0_few_shot.held_out import HELD_OUT_TASKS
from poly_jax.tasks.t0_few_shot.reading import show_examples
from poly_jax.tasks.t0_few_shot.templates import Renderer, Template, read_templates


def template(text, answer_choices="Yes ||| No", name="t"):
    return Template(name, text, answer_choices, original_task=True)


def render(text, answer_choices="Yes ||| No", seed="", **fields):
    return Renderer().render(template(text, answer_choices), fields, seed)


def test_parts_and_choices_are_split_and_stripped():
    shown = render("\n{{ x }} true? ||| {{ answer_choices[label] }}\n", x="It is.", label=1)
    assert shown == ("It is. true?", "No", ("Yes", "No"))


def test_a_separator_inside_a_field_is_plain_text():
    shown = render(
        "{{ x }} ||| {{ answer_choices[0] }}", "{{ ends | join('|||') }}", x="a|||b", ends=["p|||q", "r"]
    )
    assert shown == ("a|||b", "p|||q", ("p|||q", "r"))


def test_inserted_values_are_cut_at_a_word_and_the_text_of_the_template_is_not():
    words = "word " * 500
    shown = render("z" * 3000 + "{{ x }} ||| {{ answer_choices[0] }}", x=words)
    assert shown.input.startswith("z" * 3000 + "word")
    # As in Jinja's truncate: at most 2,048 characters including the three dots, and no word is split.
    assert shown.input[3000:] == "word " * 408 + "word..."


def test_random_choices_of_a_template_depend_on_the_seed():
    text = "{{ ['a', 'b', 'c', 'd'] | choice }} ||| {{ answer_choices[0] }}"
    renderer = Renderer()
    drawn = [renderer.render(template(text), {}, seed=str(seed % 20)).input for seed in range(40)]
    assert drawn[:20] == drawn[20:]
    assert set(drawn) == {"a", "b", "c", "d"}


@pytest.mark.parametrize(
    ("text", "answer_choices", "message"),
    [
        ("{{ y }} ||| {{ answer_choices[0] }}", "Yes ||| No", "'y' is undefined"),
        ("{{ x }}", "Yes ||| No", "is empty"),
        ("{{ x }} ||| ", "Yes ||| No", "is empty"),
        ("{{ x }} ||| {{ answer_choices[0] }}", "Yes ||| ", "is empty"),
        ("{{ x ||| y", "Yes ||| No", "TemplateSyntaxError"),
        ("{{ x | highlight }} ||| {{ answer_choices[0] }}", "Yes ||| No", "No filter named 'highlight'"),
        ("{{ x.__class__.__mro__ }} ||| Yes", "Yes ||| No", "SecurityError"),
        ("{{ x }} ||| Yes", None, "no answer choices"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_refused_with_the_reason(text, answer_choices, message):
    with pytest.raises(ValueError, match=message):
        render(text, answer_choices, x="It is.")


DOUBLED = "{% set s = s ~ s %}" * 60
ENDLESS = [
    ("{% for i in range(10000000000) %}x{% endfor %}", "OverflowError"),
    ("{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}", "too many steps"),
    ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "may not have the statement 'macro'"),
    ("{% for i in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}", "'recursive for'"),
    ("{% set x %}a{% endset %}{{ x }}", "may not have the statement 'assignblock'"),
    ("{{ 'a' * 10000000000 }}", "product is larger"),
    ("{{ 9 ** 9 ** 9 }}", "may not compute powers"),
    ("{% set s = 99 %}" + "{% set s = s * s %}" * 60 + "{{ s }}", "product is larger"),
    ("{% set s = 'ab' %}" + DOUBLED + "{{ s }}", "more than 1,000,000 characters"),
    ("{% set s = [1] %}" + "{% set s = [s, s] %}" * 60 + "{{ s }}", "more than 1,000,000"),
    ("{% set s = [1] %}" + "{% set s = s + s %}" * 60 + "{{ s }}", "more than 1,000,000"),
    ("{{ ('a' * 900000) | replace('a', 'b' * 900000) }}", "longer than 1,000,000 characters"),
    ("{{ ('a' * 900000).replace('a', 'b' * 900000) }}", "longer than 1,000,000 characters"),
    ("{{ ('a' * 900000).join(['b', 'b', 'b']) }}", "longer than 1,000,000 characters"),
    ("{{ ['b', 'b', 'b'] | join('a' * 900000) }}", "longer than 1,000,000 characters"),
    ("{{ '%1000000000d' % 1 }}", "may not format"),
    ("{{ '{:1000000000}'.format(1) }}", "may not format|unsafe"),
    ("{{ 'x'.center(1000000000) }}", "unsafe"),
    ("{{ 'x' | center(1000000000) }}", "No filter named 'center'"),
    ("{{ lipsum(n=100000000) }}", "'lipsum' is undefined"),
    ("{% for i in range(9000) %}" + "y" * 1000 + "{% endfor %}", "longer than 1,000,000 characters"),
    ("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", "nests too deep"),
    ("{% if 1 %}" * 3000 + "{% endif %}" * 3000, "nests too deep"),
]


@pytest.mark.parametrize(("text", "message"), ENDLESS)
def test_templates_that_never_end_or_grow_without_bound_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        render(text + " ||| Yes")


def test_loops_sets_filters_and_methods_of_ordinary_templates_work():
    shown = render(
        "{% set names = x.split(', ') %}{% for name in names %}{{ loop.index }}. {{ name | capitalize }}"
        "{% if not loop.last %}; {% endif %}{% endfor %} {{ names[1:] | join('+') }} {{ 1 + 2 * 3 }}"
        " {{ x ~ '!' }} {{ {'a': 'b'}['a'] }} {{ [3, 1] | sort | list }} ||| {{ answer_choices[0] }}",
        x="ant, bee, cat",
    )
    assert shown.input == "1. Ant; 2. Bee; 3. Cat bee+cat 7 ant, bee, cat! b [1, 3]"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("jinja", "3", "field 'jinja' is 3"),
        ("jinja", None, "has no field 'jinja'"),
        ("answer_choices", "[a, b]", "field 'answer_choices' is a list"),
        ("metadata", "[]", "field 'metadata' is a list"),
        (
            "metadata",
            "!TemplateMetadata {original_task: 'yes'}",
            "'original_task' is 'yes', not true or false",
        ),
        ("metadata", "{<<: {original_task: true}}", "a merge"),
        ("metadata", "[" * 3000, "nests too deep|broken YAML"),
    ],
)
def test_fields_of_a_template_with_the_wrong_type_are_refused(tmp_path, field, value, message):
    fields = {
        "name": "n",
        "jinja": "x ||| y",
        "answer_choices": "y ||| z",
        "metadata": "{original_task: true}",
    }
    lines = [f"    {name}: {text}" for name, text in (fields | {field: value}).items() if text is not None]
    path = epath.Path(tmp_path) / "templates.yaml"
    path.write_text("\n".join(["templates:", "  a: !Template", *lines, ""]))
    with pytest.raises(UserError, match=rf"templates\.yaml.*({message})"):
        read_templates(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"label": true}', "line 2 is not an object with an integer 'label'"),
        ('{"label": 1.0}', "line 2 is not an object"),
        ('{"label": -1}', "line 2 is not an object"),
        ("[" * 100_000, "line 2 nests JSON deeper"),
        ('{"label": 0, "x": "\\ud83d"}', "line 2 has half of a surrogate pair"),
        ("{", "line 2 is not valid JSON"),
    ],
)
def test_a_line_that_is_not_an_example_is_reported_by_name(tmp_path, line, message):
    path = epath.Path(tmp_path) / "42_seed.jsonl"
    path.write_text('{"label": 0}\n' + line + "\n")
    with pytest.raises(UserError, match=rf"42_seed\.jsonl, {message}"):
        show_examples(path, [], lambda place: [])


def test_a_template_file_that_is_missing_broken_or_of_another_kind_is_reported_by_name(tmp_path):
    path = epath.Path(tmp_path) / "templates.yaml"
    with pytest.raises(UserError, match=r"no templates at .*templates\.yaml"):
        read_templates(path)
    path.write_text("templates:\n  a: !Template\n    jinja: 'x\n")
    with pytest.raises(UserError, match=r"templates\.yaml: broken YAML at line 4"):
        read_templates(path)
    for other in (
        "- 1\n",
        "templates:\n  a: !Template\n    name: x\n",
        "templates:\n  a: !Unknown\n    name: x\n",
    ):
        path.write_text(other)
        with pytest.raises(UserError, match=r"templates\.yaml"):
            read_templates(path)


def test_the_templates_of_every_task_are_those_of_the_papers(shared_data):
    expected = json.loads((shared_data / "t0" / "t0_eval_tasks_11.json").read_text())
    folder = epath.Path(shared_data / "t0" / "promptsource_templates")
    got = {
        task.name: [t.name for t in task.choose(read_templates(folder / task.templates / "templates.yaml"))]
        for task in HELD_OUT_TASKS
    }
    assert got == {name: entry["original_task_templates"] for name, entry in expected.items()}
