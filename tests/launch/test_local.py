"""Local processes: their variables, output, failures, restarts and signals. Trivial programs replace it."""

import io
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from poly_jax.launch.local import Supervisor


def run(code, processes=2, max_restarts=3, grace_seconds=20.0, env=()):
    """Run a program in each process; return the exit code and the sorted lines of output."""
    output = io.StringIO()
    command = [sys.executable, "-c", code]
    supervisor = Supervisor(command, processes, dict(env), max_restarts, grace_seconds, output)
    return supervisor.run(), sorted(output.getvalue().splitlines())


INDEX = "import os, sys, time, pathlib; index = os.environ.get('POLY_JAX_PROCESS_ID')\n"


def test_every_process_knows_its_number_and_the_others():
    code, lines = run(
        INDEX + "port = os.environ['POLY_JAX_COORDINATOR'].removeprefix('127.0.0.1:')\n"
        "print(index, os.environ['POLY_JAX_NUM_PROCESSES'], port.isdigit(), os.environ['COLOUR'])",
        processes=3,
        env={"COLOUR": "red"},
    )
    assert code == 0
    assert lines == ["[0] 0 3 True red", "[1] 1 3 True red", "[2] 2 3 True red"]


def test_one_process_has_no_number_and_no_prefix(monkeypatch):
    assert run("import os; print('POLY_JAX_PROCESS_ID' in os.environ)", processes=1) == (0, ["False"])


def test_a_process_that_fails_ends_the_others_and_its_exit_code_counts():
    code, lines = run(INDEX + "if index == '1': print('wrong'); sys.exit(1)\ntime.sleep(600)")
    assert (code, lines) == (1, ["[1] wrong"])


def test_exit_code_42_starts_all_processes_again(tmp_path):
    code, lines = run(
        INDEX + f"mark, other = (pathlib.Path({str(tmp_path)!r}, x) for x in (index, '0'))\n"
        "again = mark.exists(); print('again' if again else 'first', flush=True); mark.touch()\n"
        "while not other.exists(): time.sleep(0.01)\n"
        "sys.exit(42 if not again and index == '1' else 0)"
    )
    assert code == 0
    assert "poly-jax launch: restart 1 of at most 3 after exit code 42" in lines
    assert [line for line in lines if line[0] == "["] == ["[0] again", "[0] first", "[1] again", "[1] first"]


def test_a_killed_process_is_started_again(tmp_path):
    code, lines = run(
        INDEX + f"mark = pathlib.Path({str(tmp_path)!r}, index)\n"
        "if index == '0' and not mark.exists(): mark.touch(); os.kill(os.getpid(), 9)"
    )
    assert code == 0
    assert lines == ["poly-jax launch: restart 1 of at most 3 after exit code 137"]


@pytest.mark.parametrize("code", [1, 2])
def test_an_error_in_the_input_is_not_tried_again(code):
    assert run(f"import sys; sys.exit({code})") == (code, [])


def test_restarts_are_bounded():
    code, lines = run("import sys; sys.exit(42)", processes=1, max_restarts=2)
    assert code == 42
    assert lines[0] == "poly-jax launch: not started again after 2 restarts"
    assert len(lines) == 3


def test_an_error_counts_more_than_a_preemption_that_it_caused():
    wait = "import signal; signal.signal(15, lambda *_: sys.exit(42)); time.sleep(600)"
    code, _ = run(INDEX + f"if index == '1': time.sleep(0.5); sys.exit(1)\n{wait}")
    assert code == 1


def test_a_process_that_does_not_stop_is_killed():
    ignore = "import signal; signal.signal(15, signal.SIG_IGN)\n"
    code, _ = run(
        INDEX + ignore + "if index == '1': time.sleep(0.5); sys.exit(1)\ntime.sleep(600)", grace_seconds=0.2
    )
    assert code == 1


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 42), (signal.SIGINT, 130)])
def test_signals_are_passed_on_and_nothing_is_started_again(tmp_path, number, expected):
    program = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(15, lambda *_: sys.exit(42)); signal.signal(2, lambda *_: sys.exit(130))\n"
        "print('ready', flush=True); time.sleep(600)\n"
    )
    supervise = (
        "import sys; from poly_jax.launch.local import Supervisor\n"
        f"sys.exit(Supervisor([sys.executable, '-c', {program!r}], 2, {{}}, 3).run())"
    )
    process = subprocess.Popen([sys.executable, "-c", supervise], stdout=subprocess.PIPE, text=True)
    guard = threading.Timer(60, process.kill)
    guard.start()
    ready = [process.stdout.readline(), process.stdout.readline()]
    process.send_signal(number)
    rest = process.stdout.read()
    guard.cancel()
    assert sorted(ready) == ["[0] ready\n", "[1] ready\n"]
    assert (process.wait(), rest) == (expected, "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends processes with their parent")
def test_no_process_outlives_a_supervisor_that_is_killed():
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    supervise = (
        "import sys; from poly_jax.launch.local import Supervisor\n"
        f"sys.exit(Supervisor([sys.executable, '-c', {program!r}], 2, {{}}, 3).run())"
    )
    with subprocess.Popen([sys.executable, "-c", supervise], stdout=subprocess.PIPE, text=True) as process:
        running = [int(process.stdout.readline().split()[1]) for _ in range(2)]
        assert all(map(_is_alive, running))
        process.kill()
    end = time.monotonic() + 30
    while any(map(_is_alive, running)) and time.monotonic() < end:
        time.sleep(0.05)
    left = [number for number in running if _is_alive(number)]
    for number in left:
        os.kill(number, signal.SIGKILL)
    assert left == []


def _is_alive(number):
    """Whether a process has not ended; one that nobody has waited for has."""
    try:
        return pathlib.Path(f"/proc/{number}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def test_no_process_is_left_behind(tmp_path):
    write = f"pathlib.Path({str(tmp_path)!r}, index).write_text(str(os.getpid()))\n"
    run(INDEX + write + "if index == '1': time.sleep(0.5); sys.exit(1)\ntime.sleep(600)")
    for path in tmp_path.iterdir():
        assert not pathlib.Path("/proc", path.read_text()).exists() or os.name != "posix"
