"""Prints the fault matrix: runs every case, or those whose name contains a word of the command line.

python tests/faults/matrix.py [WORD ...]
"""

import logging
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from cases import CASES, Place


def main(words: list[str]) -> int:
    # Orbax warns of metadata that only a whole run has.
    logging.getLogger("absl").setLevel(logging.ERROR)
    chosen = [case for case in CASES if not words or any(word in str(case) for word in words)]
    kept = 0
    print("| fault | program | phase | promise | kept | seconds |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        place = Place(pathlib.Path(folder))
        for case in chosen:
            began, why = time.perf_counter(), ""
            try:
                case.check(place)
                kept += 1
            except Exception as error:
                why = " ".join(f"{type(error).__name__}: {error}".split())
            seconds = time.perf_counter() - began
            print(
                f"| {case.fault} | {case.program} | {case.phase} | {case.promise} |"
                f" {'no' if why else 'yes'} | {seconds:.0f} |",
                flush=True,
            )
            if why:
                print(why[-1500:], file=sys.stderr, flush=True)
    print(f"{kept} of {len(chosen)} promises kept")
    return kept != len(chosen)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
