"""The eleven held-out tasks of T0, and which of promptsource's templates evaluate them."""

import dataclasses

from poly_jax.tasks.t0_few_shot.templates import Template


@dataclasses.dataclass(frozen=True)
class HeldOutTask:
    """One of T0's held-out tasks (Sanh et al., arXiv 2110.08207).

    Attributes:
      name: name of T-Few's folder.
      templates: folder of its `templates.yaml`: the data set, and the subset if it has subsets.
      n_templates: number of templates that are used, the first ones by name; None for all.
    """

    name: str
    templates: str
    n_templates: int | None = None

    def choose(self, templates: list[Template]) -> list[Template]:
        """Choose the templates that the papers use: those for the data set's own task, ordered by name."""
        own = sorted((template for template in templates if template.original_task), key=lambda t: t.name)
        return own[: self.n_templates]


HELD_OUT_TASKS = (
    HeldOutTask("anli-r1", "anli"),
    HeldOutTask("anli-r2", "anli"),
    HeldOutTask("anli-r3", "anli"),
    HeldOutTask("cb", "super_glue/cb"),
    # Each of the last four templates applies to only one kind of question.
    HeldOutTask("copa", "super_glue/copa", n_templates=8),
    HeldOutTask("h-swag", "hellaswag"),
    HeldOutTask("rte", "super_glue/rte"),
    HeldOutTask("storycloze", "story_cloze/2016"),
    HeldOutTask("wic", "super_glue/wic"),
    HeldOutTask("winogrande", "winogrande/winogrande_xl"),
    HeldOutTask("wsc", "super_glue/wsc.fixed"),
)
