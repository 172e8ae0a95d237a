"""A row of a sweep's table: a run and the way in which it is adapted."""

import dataclasses

from etils import epath

from poly_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Method:
    """How a sweep adapts to each of its tasks.

    What is None is as the run's recipe has it for `poly-jax adapt`.

    Attributes:
      run: folder of the run that is adapted, or a step in it.
      variant: see `poly_jax.transfer.variants`; "zero-shot" and "lorahub" train nothing.
      name: as the table shows it; "" for the run's folder and the variant.
      steps: optimizer steps.
      batch_size: examples per step.
      learning_rate: of skills, or of the whole model where that is trained.
      router_learning_rate: of the router's row.
      init_router_from: tasks of the run whose rows' average a new row starts from.
    """

    run: str
    variant: str
    name: str = ""
    steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    router_learning_rate: float | None = None
    init_router_from: tuple[str, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "init_router_from", tuple(self.init_router_from))

    @property
    def label(self) -> str:
        """Its name in tables and results."""
        return self.name or f"{epath.Path(self.run).name} {self.variant}"

    @classmethod
    def parse(cls, text: str) -> "Method":
        """From `RUN:VARIANT` or `NAME=RUN:VARIANT`.

        Raises:
          UserError: the text has another form.
        """
        run, colon, variant = text.rpartition(":")
        name, equals, rest = run.partition("=")
        name, run = (name, rest) if equals else ("", run)
        if not (colon and run and variant):
            raise UserError(f"method {text!r} is not RUN:VARIANT or NAME=RUN:VARIANT, such as runs/mhr:mhr-z")
        return cls(run, variant, name)
