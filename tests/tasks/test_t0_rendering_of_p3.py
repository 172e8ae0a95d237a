"""Templates are rendered as in P3: examples are read back from rows of one template and shown by the others.

P3's rows are texts. Where a template only inserts fields, the fields can be read back from its rows, and
every other template of the data set must give the rows that P3 has for these examples.
"""

import collections
import json
import re

import jinja2
import pytest
from etils import epath
from jinja2 import nodes

from poly_jax.tasks.t0_few_shot.templates import Renderer, Template, read_templates
from poly_jax.tasks.t0_pretraining.data_sets import DATA_SETS, p3_name

# The data sets with at least one template that only inserts fields, and a second one with rows.
READ_BACK = (
    *("ag_news", "amazon_polarity", "app_reviews", "cnn_dailymail_3.0.0", "cosmos_qa", "gigaword"),
    *("glue_mrpc", "glue_qqp", "imdb", "paws_labeled_final", "rotten_tomatoes", "samsum", "wiki_qa"),
    *("xsum", "yelp_review_full"),
)


def pattern(template):
    """Regular expressions of the input and the target of a template that only inserts fields, else None."""
    choices = []
    if template.answer_choices and "{{" not in template.answer_choices:
        choices = [choice.strip() for choice in template.answer_choices.split("|||")]
    environment = jinja2.Environment()
    environment.filters.update(dict.fromkeys(("choice", "highlight", "most_frequent"), str))
    text, found = "", set()
    for node in environment.parse(template.text).body:
        for part in node.nodes if isinstance(node, nodes.Output) else [node]:
            match part:
                case nodes.TemplateData(data=data):
                    text += re.escape(data)
                case nodes.Name(name=name) if name != "answer_choices":
                    text += f"(?P={name})" if name in found else f"(?P<{name}>.*?)"
                    found.add(name)
                case nodes.Getitem(node=nodes.Name(name="answer_choices"), arg=nodes.Name(name=name)) if (
                    choices
                ):
                    text += f"(?P<choice_{name}>{'|'.join(map(re.escape, choices))})"
                case _:
                    return None
    blanks = re.compile(r"^(\\[\s])+|(\\[\s])+$")
    parts = [re.compile(blanks.sub("", part), re.DOTALL) for part in text.split(re.escape("|||"))]
    return (*parts, choices) if len(parts) == 2 else None


def read_back(template, rows):
    """The fields of the rows' examples, as far as the template shows them."""
    if (expressions := pattern(template)) is None:
        return
    source, target, choices = expressions
    for row in rows:
        matches = source.fullmatch(row["inputs"]), target.fullmatch(row["targets"])
        if all(matches):
            groups = {name: value for match in matches for name, value in match.groupdict().items()}
            yield {
                name.removeprefix("choice_"): choices.index(value) if name.startswith("choice_") else value
                for name, value in groups.items()
            }


def matching(templates, rows):
    """Count the rows that another template's examples give, by template; a row that differs is an error."""
    renderer, counts = Renderer(), collections.Counter()
    for origin in templates:
        for example in list(read_back(origin, rows[origin.name])):
            for template in templates:
                targets = collections.defaultdict(set)
                for row in rows[template.name]:
                    targets[row["inputs"]].add(row["targets"])
                try:
                    pair = renderer.render_pair(template, example, "0")
                except ValueError:
                    continue  # The template shows fields that the origin does not.
                if template is not origin and pair and pair[0] in targets:
                    assert pair[1] in targets[pair[0]], (origin.name, template.name)
                    counts[template.name] += 1
    return counts


def test_examples_that_are_read_back_give_the_rows_of_other_templates():
    templates = [
        Template("plain", "{{text}}\nWhich? ||| {{answer_choices[label]}}", "No ||| Yes", True),
        Template("chosen", "{% if label == 1 %}Say {{text}} ||| {{text}}{% endif %}", None, False),
    ]
    rows = {
        "plain": [
            {"inputs": "a b\nWhich?", "targets": "Yes"},
            {"inputs": "c\nWhich?", "targets": "No"},
        ],
        "chosen": [{"inputs": "Say a b", "targets": "a b"}],
    }
    assert list(read_back(templates[0], rows["plain"])) == [
        {"text": "a b", "label": 1},
        {"text": "c", "label": 0},
    ]
    assert matching(templates, rows) == {"chosen": 1}
    rows["chosen"][0]["targets"] = "a"
    with pytest.raises(AssertionError, match="chosen"):
        matching(templates, rows)


@pytest.mark.parametrize("name", READ_BACK)
def test_a_data_set_is_rendered_as_in_p3(shared_data, name):
    (data_set,) = [each for each in DATA_SETS if each.p3_name == name]
    folder = epath.Path(shared_data / "t0" / "promptsource_templates" / data_set.name / data_set.subset)
    templates = read_templates(folder / "templates.yaml")
    rows = {}
    for template in templates:
        file = shared_data / "t0" / "p3_rendered" / f"{p3_name(data_set, template.name)}.jsonl"
        # Some examples of a few are enough, since every template is compared with every other one.
        rows[template.name] = [json.loads(line) for line in file.read_text().splitlines()[:8]]
    counts = matching(templates, rows)
    # The templates of app_reviews write the stars as words, which no template inserts as they are.
    least = 1 if name == "app_reviews" else len(templates) - 1
    assert len(counts) >= least, sorted({each.name for each in templates} - set(counts))
