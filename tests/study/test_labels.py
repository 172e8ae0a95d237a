"""Each output line of several processes is labelled with its process."""

import sys

from poly_jax.study.labels import labelled


def test_lines_of_both_streams_are_labelled_only_inside_the_context(capsys):
    with labelled("MHR"):
        print("one", "two")
        print("three\nfour", file=sys.stderr)
        sys.stdout.write("fi")
        sys.stdout.write("ve\n")
    print("six")
    shown = capsys.readouterr()
    assert shown.out == "MHR: one two\nMHR: five\nsix\n"
    assert shown.err == "MHR: three\nMHR: four\n"
