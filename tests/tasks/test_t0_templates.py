"""promptsource's templates: how they are read, rendered and chosen."""

import json

import pytest
from etils import epath

from poly_jax.errors import UserError
from poly_jax.tasks.t0_few_shot.held_out import HELD_OUT_TASKS
from poly_jax.tasks.t0_few_shot.templates import Renderer, Template, read_templates


def template(text, answer_choices="Yes ||| No", name="t"):
    return Template(name, text, answer_choices, original_task=True)


def render(text, answer_choices="Yes ||| No", seed="", **fields):
    return Renderer().render(template(text, answer_choices), fields, seed)


def test_parts_and_choices_are_divided_and_stripped():
    shown = render("\n{{ x }} true? ||| {{ answer_choices[label] }}\n", x="It is.", label=1)
    assert shown == ("It is. true?", "No", ("Yes", "No"))


def test_a_separator_in_a_field_divides_nothing():
    shown = render(
        "{{ x }} ||| {{ answer_choices[0] }}", "{{ ends | join('|||') }}", x="a|||b", ends=["p|||q", "r"]
    )
    assert shown == ("a|||b", "p|||q", ("p|||q", "r"))


def test_inserted_values_are_cut_at_a_word_and_the_template_s_own_text_is_not():
    words = "word " * 500
    shown = render("z" * 3000 + "{{ x }} ||| {{ answer_choices[0] }}", x=words)
    assert shown.input.startswith("z" * 3000 + "word")
    # Jinja's truncate: at most 2,048 characters with the three dots, no word broken.
    assert shown.input[3000:] == "word " * 408 + "word..."


def test_a_template_that_draws_draws_the_same_by_the_same_seed_only():
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
def test_what_cannot_be_rendered_says_why(text, answer_choices, message):
    with pytest.raises(ValueError, match=message):
        render(text, answer_choices, x="It is.")


def test_a_file_that_is_missing_broken_or_something_else_is_named(tmp_path):
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
