"""The eleven held-out tasks of T0, and the templates of promptsource that they are evaluated with."""

import dataclasses

from poly_jax.tasks.t0_few_shot.templates import Template


@dataclasses.dataclass(frozen=True)
class HeldOutTask:
    """One of T0's held-out tasks (Sanh et al., arXiv 2110.08207).

    Attributes:
      name: name of the task's folders in T-Few.
      templates: folder of its `templates.yaml`: the data set, and the subset if it has any.
      n_templates: number of templates to use, the first by name; None for all.
    """

    name: str
    templates: str
    n_templates: int | None = None

    def choose(self, templates: list[Template]) -> list[Template]:
        """The templates that the papers use: those for the data set's original task, in order of names."""
        own = sorted((template for template in templates if template.original_task), key=lambda t: t.name)
        return own[: self.n_templates]


HELD_OUT_TASKS = (
    HeldOutTask("anli-r1", "anli"),
    HeldOutTask("anli-r2", "anli"),
    HeldOutTask("anli-r3", "anli"),
    HeldOutTask("cb", "super_glue/cb"),
    # The last four templates apply to only one kind of question.
    HeldOutTask("copa", "super_glue/copa", n_templates=8),
    HeldOutTask("h-swag", "hellaswag"),
    HeldOutTask("rte", "super_glue/rte"),
    HeldOutTask("storycloze", "story_cloze/2016"),
    HeldOutTask("wic", "super_glue/wic"),
    HeldOutTask("winogrande", "winogrande/winogrande_xl"),
    HeldOutTask("wsc", "super_glue/wsc.fixed"),
)
