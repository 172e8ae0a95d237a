"""Damages files and reads them, many in one process, and records how each reading ended.

Its arguments are a JSON file of cases and a file for the results. A reading that hangs, crashes or takes too
much memory ends the process: the cause is then the last case that was started.
"""

import contextlib
import faulthandler
import io
import json
import pathlib
import resource
import sys
import tempfile
import traceback

from poly_jax import cli
from poly_jax.errors import UserError

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from mutations import copy, mutate
from readers import READERS

_SECONDS = 120
_MEMORY = 4 << 30
_ERROR = "poly-jax: error: "


def read(reader: str, folder: pathlib.Path, file: str) -> tuple[int, str]:
    """Return the exit code and the text on standard error; a Python function ends as its command would."""
    words = READERS[reader](folder, file)
    if not callable(words):
        with contextlib.redirect_stderr(io.StringIO()) as errors, contextlib.redirect_stdout(io.StringIO()):
            code = cli.main(words)
        return code, errors.getvalue()
    try:
        words()
    except (UserError, OSError) as error:
        return 1, f"{_ERROR}{error}"
    return 0, ""


def fault(code: int, errors: str) -> str:
    """Describe what is wrong with how a reading ended; empty if it ended well."""
    lines = [line for line in errors.splitlines() if line.startswith(_ERROR)]
    if "Traceback" in errors or code not in (0, 1):
        return f"ended with {code} and {errors[-2000:]}"
    if code == 1 and (len(lines) != 1 or not errors.rstrip().endswith(lines[0])):
        return f"ended with 1 and, in place of one line, {errors[-2000:]}"
    if code == 1 and len(lines[0]) > 3000:
        return f"ended with a line of {len(lines[0])} letters"
    return ""


def main(cases_file: str, results_file: str) -> None:
    cases = json.loads(pathlib.Path(cases_file).read_text())
    folder = pathlib.Path(tempfile.mkdtemp())
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, used + _MEMORY))
    with pathlib.Path(results_file).open("a") as results:
        for number, case in cases:
            print(json.dumps({"begun": number}), file=results, flush=True)
            faulthandler.dump_traceback_later(_SECONDS, exit=True)
            copied = folder / "subject"
            copy(pathlib.Path(case["subject"]), copied)
            if case["kind"]:
                mutate(copied / case["file"], case["kind"], case["seed"])
            try:
                code, errors = read(case["reader"], copied, case["file"])
                found = fault(code, errors)
            except BaseException:
                code, errors, found = -1, "", traceback.format_exc()[-3000:]
            faulthandler.cancel_dump_traceback_later()
            result = {"ended": number, "code": code, "errors": errors[-3000:], "fault": found}
            print(json.dumps(result), file=results, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
