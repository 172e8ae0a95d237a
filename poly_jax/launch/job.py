"""The description of a job: what to run, on which slice, in which image, and where its files go."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from poly_jax.errors import UserError
from poly_jax.files.text_file import decode
from poly_jax.launch.slices import Slice, parse_slice
from poly_jax.suggestion import close_names, did_you_mean

# Cluster Toolkit allows 28 characters, so that the names of a JobSet's pods stay below 63.
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,26}[a-z0-9])?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://[^/]")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_WORDS = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|PRIVATE", re.IGNORECASE)
_WRITES_A_FOLDER = ("adapt", "sweep", "train")
_OUTPUT = "--output_dir"


@dataclasses.dataclass(frozen=True)
class Job:
    """A job, independent of the place where it runs.

    Attributes:
      name: name of the job, of at most 28 lower-case letters, digits and hyphens.
      command: words of the poly-jax command line, from `train` on; empty where a started job is asked about.
      slice: the accelerators; None where the target needs none.
      slices: number of slices; above 1 they are connected by the data centre's network (multislice).
      image: container image with poly-jax in it.
      bucket: folder in object storage, such as `gs://my-bucket/runs`; the job's folder is `BUCKET/NAME`.
      project: Google Cloud project.
      location: zone or region.
      cluster: name of the GKE cluster.
      queue: name of Kueue's local queue, or of Slurm's partition.
      service_account: identity of the job: a Kubernetes service account on GKE, an e-mail address on TPU VMs.
      spot: whether to rent capacity that may be taken back at any time.
      env: environment variables, by name.
      secrets: for each environment variable, where its value is found; never the value itself.
      max_restarts: number of restarts after which the job is given up.
    """

    name: str
    command: tuple[str, ...] = ()
    slice: Slice | None = None
    slices: int = 1
    image: str | None = None
    bucket: str | None = None
    project: str | None = None
    location: str | None = None
    cluster: str | None = None
    queue: str | None = None
    service_account: str | None = None
    spot: bool = False
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secrets: Mapping[str, str] = dataclasses.field(default_factory=dict)
    max_restarts: int = 10

    def __post_init__(self):
        if not _NAME.fullmatch(self.name):
            raise UserError(
                f"name {self.name!r} cannot name a job; use 1 to 28 lower-case letters, digits and"
                " hyphens, from a letter on and without a hyphen at the end"
            )
        for field, least in (("slices", 1), ("max_restarts", 0)):
            if getattr(self, field) < least:
                raise UserError(f"{field} is {getattr(self, field)}; it must be at least {least}")
        if self.bucket is not None and not _SCHEME.match(self.bucket):
            name = self.bucket.rpartition("://")[2].strip("/") or "my-bucket"
            lacks = "name" if "://" in self.bucket else "scheme"
            raise UserError(f"bucket {self.bucket!r} has no {lacks}; write gs://{name}")
        self._check_variables()

    def _check_variables(self) -> None:
        for name in (*self.env, *self.secrets):
            if not _VARIABLE.fullmatch(name):
                raise UserError(
                    f"{name!r} cannot name an environment variable; use letters, digits and underscores"
                )
        for name in self.env:
            if _SECRET_WORDS.search(name):
                raise UserError(
                    f"the environment variable {name} looks like a secret, and --env would show its value;"
                    f" give --secret={name}=REFERENCE instead"
                )

    @property
    def hosts(self) -> int:
        """Number of machines of all slices."""
        return self.slices * (self.slice.hosts if self.slice else 1)

    @property
    def words(self) -> tuple[str, ...]:
        """The command that every process of the job runs, from `poly-jax` on.

        Raises:
          UserError: there is no command, or it writes a folder and nothing says where.
        """
        if not self.command:
            raise UserError(
                "the job has no command; end the line with, for example, `-- train --gin_file=my.gin`"
            )
        if self.command[0] not in _WRITES_A_FOLDER or self.output_dir is not None:
            return ("poly-jax", *self.command)
        if self.bucket is None:
            raise UserError(
                f"nothing says where `{self.command[0]}` writes; give --bucket=gs://..., or {_OUTPUT}"
            )
        return ("poly-jax", *self.command, f"{_OUTPUT}={self.bucket.rstrip('/')}/{self.name}")

    @property
    def output_dir(self) -> str | None:
        """The value of `--output_dir` in the command; None where the command does not have it."""
        for word, following in zip(self.command, (*self.command[1:], None), strict=True):
            if word == _OUTPUT:
                return following
            if word.startswith(f"{_OUTPUT}="):
                return word.partition("=")[2]
        return None

    def check_remote_output(self) -> None:
        """Raise a UserError if the job would write to the disk of a machine that is only rented."""
        if self.output_dir is not None and not _SCHEME.match(self.output_dir):
            raise UserError(
                f"{_OUTPUT} {self.output_dir!r} is on the rented machine, whose disk is lost when the job is"
                f" restarted; write to a bucket, such as gs://my-bucket/{self.name}"
            )


FIELDS = tuple(field.name for field in dataclasses.fields(Job))


def read_job(path: str | None, given: Mapping[str, Any]) -> Job:
    """Make a job of a YAML file and of flags.

    Args:
      path: a YAML file with fields of `Job` by name, where `slice` is text such as `v5e:4x4`, `command` a
        list of words, and `env` and `secrets` are mappings; None for none.
      given: fields that the flags set. They win over the file, except that `env` and `secrets` are merged.

    Raises:
      UserError: the file cannot be read, or a field is unknown, missing or has an invalid value.
    """
    fields: dict[str, Any] = {} if path is None else _from_file(path)
    for name, value in given.items():
        fields[name] = {**fields.get(name, {}), **value} if isinstance(value, Mapping) else value
    if not fields.get("name"):
        raise UserError("the job has no name; give --name, or `name` in the job's file")
    if isinstance(fields.get("slice"), str):
        fields["slice"] = parse_slice(fields["slice"])
    return Job(**fields)


def _from_file(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = yaml.safe_load(decode(file.read(), path, "save the file as UTF-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} does not describe a job; write lines such as `slice: v5e:4x4`")
    return {name: _field(path, name, value) for name, value in content.items()}


def _field(path: str, name: Any, value: Any) -> Any:
    """Check one field of a job's file, and return it as `Job` has it."""
    if name not in FIELDS:
        question = did_you_mean(close_names(str(name), FIELDS))
        raise UserError(
            f"{path}: there is no field {name!r}; {question or 'use one of ' + ', '.join(FIELDS)}"
        )
    if name == "command":
        if isinstance(value, str) or not _all_text(value):
            raise UserError(f"{path}: command must be a list of words, such as [train, --gin_file=my.gin]")
        return tuple(value)
    if name in ("env", "secrets"):
        if not isinstance(value, dict) or not _all_text((*value, *value.values())):
            raise UserError(f"{path}: {name} must map names to texts; put numbers in quotes")
        return value
    kind = {"slices": int, "max_restarts": int, "spot": bool}.get(name, str)
    if type(value) is not kind:
        raise UserError(f"{path}: {name} is {value!r}; it must be of type {kind.__name__}")
    return value


def _all_text(values: Any) -> bool:
    return isinstance(values, Sequence) and all(isinstance(value, str) for value in values)
