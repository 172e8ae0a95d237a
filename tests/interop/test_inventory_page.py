"""The commands of docs/inventory.md work as they are typed, on adapters that are trained for two steps."""

import json
import pathlib
import re
import shlex

import pytest

from poly_jax import cli

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "inventory.md"

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_folder")]


def commands():
    """The words of every command of the page after the export of the adapters, as a shell passes them on."""
    text = PAGE.read_text().replace("\\\n", " ")
    text = text[text.index("## One run") :]
    for line in re.findall(r"^    poly-jax (.*)$", text, re.MULTILINE):
        words = shlex.split(line)
        yield [
            name
            for word in words
            for name in (sorted(map(str, pathlib.Path().glob(word))) if "*" in word else [word])
        ]


def test_the_commands_of_the_page_work_one_after_another(train_shortly, capsys):
    private = train_shortly("private")
    for task in ("rvz", "tkn", "zpl"):
        name = f"skillbench_{task}"
        words = ["export", f"--run={private}", f"--task={name}", "--format=peft_lora"]
        assert cli.main([*words, f"--output=loras/{name}"]) == 0
    pathlib.Path("inputs.txt").write_text("kvp fbdaj\nkvp hgci\n")
    done = []
    for words in commands():
        # The sweep's adaptations are those of other tests, and take a minute.
        if words[0] != "sweep":
            short = ["--gin.adapt.steps=2"] if words[0] == "adapt" else []
            assert cli.main([*words, *short]) == 0, words
        done.append(words[0])
    assert done == ["import", "eval", "adapt", "eval", "infer", "routing", "sweep", "adapt", "infer"]
    shown = capsys.readouterr().out
    assert "runs/inventory: a run of 3 skills, skillbench_rvz, skillbench_tkn, skillbench_zpl" in shown
    found = json.loads(pathlib.Path("routing/routing.json").read_text())
    assert found["skill_names"] == ["skillbench_rvz", "skillbench_tkn", "skillbench_zpl"]
    assert "skillbench_zpl" in pathlib.Path("routing/routing.html").read_text()
