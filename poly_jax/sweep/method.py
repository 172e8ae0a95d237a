"""A row of a sweep's table: a run and how it is adapted."""

import dataclasses

from etils import epath

from poly_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to adapt to each of a sweep's tasks.

    A setting that is None keeps the value that the run's recipe gives to `poly-jax adapt`.

    Attributes:
      run: folder of the run that is adapted, or of one of its steps.
      variant: name of the variant; see `poly_jax.transfer.variants`.
      name: name in the table; "" for the name of the run's folder and the variant.
      steps: optimizer steps.
      batch_size: examples per step.
      learning_rate: learning rate of the skills, or of the whole model where that is trained.
      router_learning_rate: learning rate of the router's row.
      init_router_from: tasks of the run whose rows are averaged to start a new row.
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
        """The method's name in tables and results."""
        return self.name or f"{epath.Path(self.run).name} {self.variant}"

    @property
    def said(self) -> str:
        """The method as a user writes it; see `parse`."""
        return f"{self.name}={self.run}:{self.variant}" if self.name else f"{self.run}:{self.variant}"

    @classmethod
    def parse(cls, text: str) -> "Method":
        """The method that a user writes as `RUN:VARIANT` or `NAME=RUN:VARIANT`.

        Raises:
          UserError: the text has another form.
        """
        run, colon, variant = text.rpartition(":")
        name, equals, rest = run.partition("=")
        name, run = (name, rest) if equals else ("", run)
        if not (colon and run and variant):
            raise UserError(f"method {text!r} is not RUN:VARIANT or NAME=RUN:VARIANT, such as runs/mhr:mhr-z")
        return cls(run, variant, name)
