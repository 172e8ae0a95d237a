"""`poly-jax launch`: what it prints and does, and the one line that a mistake gets."""

import os
import pathlib
import subprocess
import sys

import pytest

from poly_jax import cli

pytestmark = pytest.mark.usefixtures("own_folder")

RECIPE = "recipes/skillbench/mhr.gin"
TRAIN = ["--", "train", f"--gin_file={RECIPE}", "--gin.Data.batch_size=32"]
PLACE = ["--project=acme", "--location=us-west4-a", "--cluster=pods"]
JOB = ["--name=mhr", "--slice=v5e:4x4", "--image=acme/poly-jax:1", "--bucket=gs://acme/runs"]
EVAL = ["--", "eval", "--run=gs://acme/runs/mhr"]


def launch(*words):
    return cli.main(["launch", *words])


def refusal(capsys, *words):
    code = launch(*words)
    out, err = capsys.readouterr()
    assert (code, out) == (1, ""), err
    assert err.count("\n") == 1
    return err


def without(flag, words=(*JOB, *PLACE)):
    return [word for word in words if not word.startswith(f"--{flag}=")]


MISTAKES = {
    "an unknown topology": (["--slice=v5e:4x5"], "slice 'v5e:4x5' does not exist"),
    "more chips than a slice": (["--slice=v5e:32x16"], "512 chips, and the largest v5e slice has 256"),
    "a kind without its topology": (["--slice=v5e"], "has no topology; write v5e:4x4 or the like"),
    "a bucket without name": (["--bucket=gs://"], "bucket 'gs://' has no name; write gs://my-bucket"),
    "a bucket that is a folder": (["--bucket=/mnt/x"], "bucket '/mnt/x' has no scheme; write gs://mnt/x"),
    "an empty image": (["--image="], "target jobset needs --image, a container image such as"),
    "a bucket without scheme": (
        ["--bucket=acme/runs"],
        "bucket 'acme/runs' has no scheme; write gs://acme/runs",
    ),
    "a name with capitals": (["--name=MHR"], "name 'MHR' cannot name a job"),
    "a long name": (["--name=" + "m" * 29], "1 to 28 lower-case letters"),
    "a secret as a plain variable": (["--env=HF_TOKEN=hf_value"], "HF_TOKEN looks like a secret"),
    "a secret's value": (["--secret=HF_TOKEN"], "a --secret has no `=`"),
    "a malformed reference": (["--secret=HF_TOKEN=hub"], "target jobset wants SECRET/KEY"),
    "a malformed variable": (["--env=A-B=1"], "'A-B' cannot name an environment variable"),
    "negative restarts": (["--max_restarts=-1"], "max_restarts is -1; it must be at least 0"),
    "GPUs": (["--slice=h100:2x8"], "slice h100:2x8 has GPUs, and this target has TPUs"),
    "processes": (["--processes=2"], "--processes is for --target=local"),
    "gin before the command": ([f"--gin_file={RECIPE}"], "write them after `--`"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line(capsys, mistake):
    words, told = MISTAKES[mistake]
    shown = refusal(capsys, "--target=jobset", *JOB, *words, "--dry_run", *EVAL)
    assert told in shown
    assert "hf_value" not in shown


NEEDED = {
    "cluster_toolkit": ("name", "slice", "image", "project", "location", "cluster"),
    "jobset": ("name", "slice", "image"),
    "xpk": ("name", "slice", "image", "project", "location", "cluster"),
    "tpu_vm": ("name", "slice", "image", "project", "location"),
    "skypilot": ("name", "slice", "image"),
    # Without an image, the job uses the environment in which it is submitted.
    "slurm": ("name", "slice"),
}


@pytest.mark.parametrize(("target", "flag"), [(name, flag) for name in NEEDED for flag in NEEDED[name]])
def test_a_missing_field_is_named(capsys, target, flag):
    assert f"--{flag}" in refusal(capsys, f"--target={target}", *without(flag), "--dry_run", *EVAL)


@pytest.mark.parametrize(
    ("target", "flags", "told"),
    [
        ("cluster_toolkit", ["--slice=h100:2x8"], "slice h100:2x8 has GPUs, and this target has TPUs"),
        ("xpk", ["--slice=h100:2x8"], "slice h100:2x8 has GPUs, and this target has TPUs"),
        ("tpu_vm", ["--slice=h100:2x8"], "slice h100:2x8 has GPUs, and this target has TPUs"),
        ("slurm", ["--slice=v5e:4x4"], "slice v5e:4x4 has TPUs, and target slurm has GPUs; choose"),
        ("slurm", ["--slice=h100:2x8", "--slices=2"], "slurm has no slices; write the number of hosts"),
        ("skypilot", ["--slices=2"], "target skypilot has no multislice; use one slice"),
        ("skypilot", ["--queue=q"], "neither a queue nor a service account of a job; leave them out"),
        ("skypilot", ["--slice=v7x:2x2x1"], "the Cloud TPU API does not offer v7x; use --target=jobset"),
        ("tpu_vm", ["--slice=v7x:2x2x1"], "the Cloud TPU API does not offer v7x; use --target=jobset"),
        ("tpu_vm", ["--slice=v5p:4x4x16"], "slice v5p:4x4x16 has no accelerator type"),
        ("tpu_vm", ["--queue=q"], "target tpu_vm has no queue of its own; leave --queue out"),
        ("xpk", ["--slice=v5e:2x2"], "xpk does not have slice v5e:2x2; choose v5e:2x4 or larger"),
        ("xpk", ["--service_account=a"], "takes the queue and the service account from its cluster"),
    ],
)
def test_what_a_target_does_not_have_gets_one_line(capsys, target, flags, told):
    assert told in refusal(capsys, f"--target={target}", *JOB, *PLACE, *flags, "--dry_run", *EVAL)


@pytest.mark.parametrize(
    ("binding", "told"),
    [
        (
            "Partitioning.fsdp=3",
            "Partitioning.fsdp 3 x Partitioning.model 1 does not divide the 16 devices of v5e:4x4",
        ),
        ("Data.batch_size=24", "Data.batch_size 24 cannot be divided over the 16 devices of v5e:4x4"),
        (
            "train.microbatches=4",
            "Data.batch_size 32 in 4 microbatches cannot be divided over the 16 devices",
        ),
        ("Data.batch_size=0", "Data.batch_size is 0; it must be at least 1"),
        ("train.microbatches=0", "train.microbatches is 0; it must be at least 1"),
        ("Data.batchsize=24", "batchsize"),
    ],
)
def test_a_run_that_the_slice_would_refuse_is_refused_here(capsys, binding, told):
    assert told in refusal(capsys, "--target=jobset", *JOB, "--dry_run", *TRAIN, f"--gin.{binding}")


def test_two_negative_sides_of_a_mesh_are_refused_though_their_product_divides_the_devices(capsys):
    sides = ["--gin.Partitioning.fsdp=-4", "--gin.Partitioning.model=-4"]
    told = refusal(capsys, "--target=jobset", *JOB, "--dry_run", *TRAIN, *sides)
    assert "Partitioning.fsdp -4 x Partitioning.model -4 does not divide the 16 devices of v5e:4x4" in told


def test_a_mesh_that_fits_on_all_slices_together_but_not_on_one_is_refused(capsys):
    words = ["--target=jobset", *JOB, "--slices=2", "--dry_run", *TRAIN, "--gin.Partitioning.fsdp=32"]
    told = refusal(capsys, *words)
    assert "Partitioning.fsdp 32 x Partitioning.model 1 does not divide the 16 devices of v5e:4x4" in told


def test_several_slices_share_a_batch(capsys):
    told = refusal(capsys, "--target=jobset", *JOB, "--slices=4", "--dry_run", *TRAIN)
    assert "over the 64 devices of 4 slices v5e:4x4" in told


def test_a_run_is_not_written_to_a_rented_disk(capsys):
    words = [*without("bucket"), "--dry_run", *TRAIN, "--output_dir=runs/mhr"]
    assert "--output_dir 'runs/mhr' is on the rented machine" in refusal(
        capsys, "--target=tpu_vm", *without("cluster", words)
    )


def test_nothing_to_write_to(capsys):
    told = refusal(capsys, "--target=jobset", *without("bucket"), "--dry_run", *TRAIN)
    assert "nothing says where `train` writes" in told


@pytest.mark.parametrize(
    "words", [[], ["--"], ["--", "trian"], ["--", "train", "--gin_flie=x"], ["--", "launch"]]
)
def test_a_command_that_poly_jax_does_not_have_is_refused(capsys, words):
    try:
        code = launch("--target=jobset", *JOB, "--dry_run", *words)
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code in (1, 2)
    assert out == ""
    assert "Traceback" not in err


@pytest.mark.parametrize("target", ["xpk", "cluster_toolkit"])
def test_a_tool_that_takes_only_values_gets_no_secret(capsys, monkeypatch, target):
    monkeypatch.setenv("HF_TOKEN", "hf_value")
    told = refusal(
        capsys, f"--target={target}", *JOB, *PLACE, "--secret=HF_TOKEN=hub/token", "--dry_run", *EVAL
    )
    assert f"target {target} cannot pass the secret HF_TOKEN by reference" in told


@pytest.mark.parametrize(("target", "reference"), [("slurm", "env"), ("skypilot", "env"), ("tpu_vm", "hub")])
def test_a_secret_is_never_shown(capsys, monkeypatch, target, reference):
    monkeypatch.setenv("HF_TOKEN", "hf_value")
    slice_ = "--slice=h100:2x8" if target == "slurm" else "--slice=v5e:4x4"
    place = ["--project=acme", "--location=us-west4-a"] if target == "tpu_vm" else []
    words = [f"--target={target}", *JOB, slice_, *place, f"--secret=HF_TOKEN={reference}", "--dry_run", *EVAL]
    assert launch(*words) == 0
    shown = "".join(capsys.readouterr())
    assert "HF_TOKEN" in shown
    assert "hf_value" not in shown


def test_a_dry_run_prints_a_script_that_does_the_same_and_does_nothing(capsys, tmp_path):
    pathlib.Path("kubectl").write_text('#!/bin/sh\necho "$@" >> calls\n')
    pathlib.Path("kubectl").chmod(0o755)
    words = ["--target=jobset", *JOB, *EVAL]
    assert launch("--dry_run", *words) == 0
    script = capsys.readouterr().out
    assert sorted(os.listdir()) == ["kubectl"]

    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    code = f"import sys; from poly_jax import cli; sys.exit(cli.main({['launch', *words]!r}))"
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    carried_out = {name: pathlib.Path(name).read_text() for name in ("calls", "mhr.jobset.yaml")}
    for name in carried_out:
        pathlib.Path(name).unlink()
    subprocess.run(["bash", "-c", script], env=env, check=True)
    assert {name: pathlib.Path(name).read_text() for name in carried_out} == carried_out
    assert carried_out["calls"] == "apply --filename=mhr.jobset.yaml\n"


def test_a_tool_that_is_missing_or_fails_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no program 'kubectl'" in refusal(capsys, "--target=jobset", *JOB, *EVAL)
    assert os.listdir() == []
    pathlib.Path("kubectl").write_text("#!/bin/sh\nexit 3\n")
    pathlib.Path("kubectl").chmod(0o755)
    assert "failed with exit code 3" in refusal(capsys, "--target=jobset", *JOB, *EVAL)


@pytest.mark.parametrize("target", ["cluster_toolkit", "jobset", "xpk", "tpu_vm", "skypilot", "slurm"])
@pytest.mark.parametrize("action", ["status", "logs", "stop"])
def test_asking_about_a_job_needs_its_name_and_place_only(capsys, target, action):
    assert launch(f"--target={target}", f"--action={action}", "--name=mhr", *PLACE, "--dry_run") == 0
    shown = capsys.readouterr().out
    assert "mhr" in shown or shown == "sky jobs queue --refresh\n"


def test_a_file_describes_a_job_and_flags_win(capsys):
    pathlib.Path("job.yaml").write_text(
        "name: mhr\nslice: v5e:4x4\nimage: acme/poly-jax:1\nbucket: gs://acme/runs\nenv: {A: '1', B: '2'}\n"
        "command: [eval, --run=gs://acme/runs/mhr]\n"
    )
    assert launch("--target=jobset", "--job=job.yaml", "--slice=v6e:2x2", "--env=B=3", "--dry_run") == 0
    shown = capsys.readouterr().out
    assert "gke-tpu-topology: 2x2" in shown
    assert (
        shown.index("name: A")
        < shown.index("value: '1'")
        < shown.index("name: B")
        < shown.index("value: '3'")
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("slcie: v5e:4x4", "there is no field 'slcie'; did you mean 'slice'"),
        ("name: [a", "is not YAML"),
        ("just text", "does not describe a job"),
        ("name: 3", "name is 3; it must be of type str"),
        ("slices: two", "slices is 'two'; it must be of type int"),
        ("spot: 'yes'", "spot is 'yes'; it must be of type bool"),
        ("command: eval --run=x", "command must be a list of words"),
        ("env: {A: 1}", "env must map names to texts"),
        ("secrets: [A]", "secrets must map names to texts"),
    ],
)
def test_a_mistake_in_the_jobs_file_gets_one_line(capsys, text, told):
    pathlib.Path("job.yaml").write_text(text)
    shown = refusal(capsys, "--target=jobset", "--job=job.yaml", "--dry_run", *EVAL)
    assert told in shown
    assert "job.yaml" in shown


def test_a_jobs_file_in_utf16_is_named_with_the_command_that_converts_it(capsys):
    pathlib.Path("job.yaml").write_text("slice: v5e:4x4", encoding="utf-16")
    shown = refusal(capsys, "--target=jobset", "--job=job.yaml", "--dry_run", *EVAL)
    assert "job.yaml is UTF-16 text" in shown
    assert "iconv -f UTF-16 -t UTF-8" in shown


def test_a_jobs_file_that_is_absent_is_named(capsys):
    assert "nowhere.yaml cannot be read" in refusal(capsys, "--target=jobset", "--job=nowhere.yaml", *EVAL)


def test_local_processes_end_with_the_exit_code_of_the_job(capfd):
    with pytest.raises(SystemExit) as stop:
        launch("--target=local", "--name=mhr", "--processes=2", "--", "eval", "--run=nowhere")
    assert stop.value.code == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines
    assert all(line.startswith(("[0] ", "[1] ")) for line in lines)
    assert any("nowhere" in line for line in lines)
