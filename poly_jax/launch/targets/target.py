"""The interface of a target."""

import abc
import re
import shlex
from typing import ClassVar

from poly_jax.errors import UserError
from poly_jax.launch.job import Job
from poly_jax.launch.steps import Steps

GRACE_SECONDS = 30
"""Time between the request to stop and the kill, in which poly-jax saves its state."""


class Target(abc.ABC):
    """Renders a job for one kind of place.

    Attributes:
      name: the value of `--target`.
      needs: fields of a job that every action needs.
      submit_needs: fields that only starting the job needs.
      keeps_disk: whether the machines' own disks outlive a restart, so that a run may be written to them.
      secret: what a secret's reference looks like here, as a regular expression; None where the place's tools
        can only take the value itself, which poly-jax never passes on.
      secret_form: the same for a reader.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    submit_needs: ClassVar[tuple[str, ...]] = ()
    keeps_disk: ClassVar[bool] = False
    secret: ClassVar[str | None] = None
    secret_form: ClassVar[str] = ""

    @abc.abstractmethod
    def submit(self, job: Job) -> Steps:
        """Return the steps that start a job.

        Raises:
          UserError: the place does not have the job's slice.
        """

    @abc.abstractmethod
    def status(self, job: Job) -> Steps:
        """Return the steps that show how far a job is."""

    @abc.abstractmethod
    def logs(self, job: Job) -> Steps:
        """Return the steps that follow a job's output."""

    @abc.abstractmethod
    def stop(self, job: Job) -> Steps:
        """Return the steps that end a job and free what it holds."""

    def check(self, job: Job, action: str) -> None:
        """Raise a UserError if the job lacks a field that the action needs, or has a malformed one."""
        for field in (*self.needs, *(self.submit_needs if action == "submit" else ())):
            if not getattr(job, field):
                raise UserError(f"target {self.name} needs --{field}{_EXAMPLES[field]}")
        if action == "submit":
            if not self.keeps_disk:
                job.check_remote_output()
            self._check_secrets(job)

    def _check_secrets(self, job: Job) -> None:
        for name, reference in job.secrets.items():
            if self.secret is None:
                raise UserError(
                    f"target {self.name} cannot pass the secret {name} by reference, only its value, which"
                    " everybody could read; use --target=jobset, or let the job's service account read it"
                )
            if not re.fullmatch(self.secret, reference):
                raise UserError(
                    f"secret {name} is {reference!r}; target {self.name} wants {self.secret_form}"
                )


_EXAMPLES = {
    "slice": ", such as --slice=v5e:4x4",
    "image": ", a container image such as us-docker.pkg.dev/PROJECT/REPOSITORY/poly-jax:TAG",
    "project": ", a Google Cloud project",
    "location": ", a zone such as us-central1-a, or a region",
    "cluster": ", the name of the GKE cluster",
}


def shell_command(job: Job) -> str:
    """Return the job's command for tools that hand one text to a shell, which the program then replaces."""
    variables = [f"{name}={value}" for name, value in job.env.items()]
    return shlex.join(["exec", *(["env", *variables] if variables else []), *job.words])
