"""The eleven held-out tasks of T0, and which of promptsource's templates evaluate them."""

import dataclasses

from poly_jax.tasks.t0_few_shot.templates import Template


@dataclasses.dataclass(frozen=True)
class HeldOutTask:
    """One of T0's held-out tasks (Sanh et al., arXiv 2110.08207).

    Attributes:
      name: as T-Few's folders are called.
      templates: folder of its `templates.yaml`: data set, and subset where it has some.
      n_templates: only the first so many by name are used; None for all.
    """

    name: str
    templates: str
    n_templates: int | None = None

    def choose(self, templates: list[Template]) -> list[Template]:
        """Those that the papers use: made for the data set's own task, in order of their names."""
        own = sorted((template for template in templates if template.original_task), key=lambda t: t.name)
        return own[: self.n_templates]


HELD_OUT_TASKS = (
    HeldOutTask("anli-r1", "anli"),
    HeldOutTask("anli-r2", "anli"),
    HeldOutTask("anli-r3", "anli"),
    HeldOutTask("cb", "super_glue/cb"),
    # The last four apply to one kind of its questions only.
    HeldOutTask("copa", "super_glue/copa", n_templates=8),
    HeldOutTask("h-swag", "hellaswag"),
    HeldOutTask("rte", "super_glue/rte"),
    HeldOutTask("storycloze", "story_cloze/2016"),
    HeldOutTask("wic", "super_glue/wic"),
    HeldOutTask("winogrande", "winogrande/winogrande_xl"),
    HeldOutTask("wsc", "super_glue/wsc.fixed"),
)
