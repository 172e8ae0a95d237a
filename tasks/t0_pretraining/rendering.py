"""Renders a data set with promptsource's templates, into the JSONL files that `register` reads.

    python -m poly_jax.tasks.t0_pretraining.rendering --data_set=glue_mrpc --tfds=glue/mrpc \
      --templates=promptsource_templates --output=rows

P3 was made in the same way. Some templates make random choices, so that P3's rows are one draw of them; here
a draw depends only on the seed, the template and the example's place.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from poly_jax.errors import UserError
from poly_jax.tasks.t0_few_shot.templates import Renderer, Template, read_templates
from poly_jax.tasks.t0_pretraining.data_sets import DATA_SETS, DataSet, p3_name, training_data_set
from poly_jax.tasks.t0_pretraining.raw_examples import json_examples, tfds_examples


def render_data_set(
    data_set: DataSet,
    examples: Iterable[Mapping[str, Any]],
    templates: epath.PathLike,
    output: epath.PathLike,
    *,
    limit: int | None = None,
    seed: int = 0,
) -> dict[str, int]:
    """Write `<output>/<template>.jsonl` for each of a data set's templates.

    An example has no row where a template leaves it out, that is, where its input or target is empty.

    Args:
      data_set: the data set, which gives the names.
      examples: its examples, which are read once.
      templates: folder of promptsource's templates, with `<data set>/<subset>/templates.yaml`.
      output: folder of the files; made where it is absent. Files of the same names are replaced.
      limit: the largest number of rows for each template; None for all.
      seed: seed of the random choices in templates.

    Returns:
      The number of rows of each template, by P3's name.

    Raises:
      UserError: a template cannot be read or does not fit an example, has no row at all, or a file cannot be
        written. Then no file of the data set is replaced.
    """
    file = epath.Path(templates) / data_set.name / data_set.subset / "templates.yaml"
    chosen = {p3_name(data_set, template.name): template for template in read_templates(file)}
    chosen = {name: template for name, template in chosen.items() if training_data_set(name) == data_set}
    folder = epath.Path(output)
    partial = {name: folder / f"{name}.jsonl.partial" for name in chosen}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            writers = {name: stack.enter_context(path.open("w")) for name, path in partial.items()}
            counts = _write(data_set, examples, chosen, writers, limit, seed)
        if empty := [name for name, count in counts.items() if not count]:
            raise UserError(
                f"no example of {data_set.p3_name} gives template {empty[0]!r} an input and a target; check "
                "that the examples have the labels and fields that promptsource's templates use"
            )
        for name, path in partial.items():
            path.replace(folder / f"{name}.jsonl")
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror or error})") from error
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
    return counts


def _write(
    data_set: DataSet,
    examples: Iterable[Mapping[str, Any]],
    templates: Mapping[str, Template],
    writers: Mapping[str, Any],
    limit: int | None,
    seed: int,
) -> dict[str, int]:
    renderer, counts = Renderer(), dict.fromkeys(templates, 0)
    for place, example in enumerate(examples):
        wanted = [name for name, count in counts.items() if limit is None or count < limit]
        if not wanted:
            break
        for name in wanted:
            try:
                pair = renderer.render_pair(templates[name], example, f"{seed} {name} {place}")
            except ValueError as error:
                raise UserError(
                    f"example {place + 1} of {data_set.p3_name} cannot be shown by template "
                    f"{templates[name].name!r}: {error}"
                ) from error
            if pair is not None:
                row = dict(zip(("inputs", "targets"), pair, strict=True))
                writers[name].write(json.dumps(row, ensure_ascii=False) + "\n")
                counts[name] += 1
    return counts


def main(arguments: Sequence[str] | None = None) -> int:
    """Render one data set; returns the exit status."""
    by_name = {data_set.p3_name: data_set for data_set in DATA_SETS}
    parser = argparse.ArgumentParser(
        prog="python -m poly_jax.tasks.t0_pretraining.rendering", description="Renders a data set of T0."
    )
    parser.add_argument(
        "--data_set", required=True, choices=by_name, metavar="NAME", help="such as glue_mrpc"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--tfds", help="TFDS's name of the data set, such as glue/mrpc")
    source.add_argument("--jsonl", help="a file with one example in each line")
    parser.add_argument("--data_dir", help="TFDS's folder")
    parser.add_argument("--templates", required=True, help="promptsource's folder of templates")
    parser.add_argument("--output", required=True, help="folder of the JSONL files")
    parser.add_argument(
        "--all_rows", action="store_true", help="more rows than T-Few trains on, for 't_zero'"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random choices in templates")
    given = parser.parse_args(arguments)
    data_set = by_name[given.data_set]
    examples = (
        json_examples(given.jsonl) if given.jsonl else tfds_examples(given.tfds, data_dir=given.data_dir)
    )
    limit = None if given.all_rows else data_set.rows_per_template
    try:
        counts = render_data_set(
            data_set, examples, given.templates, given.output, limit=limit, seed=given.seed
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    for name, count in counts.items():
        print(f"{count:>9,} rows  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
