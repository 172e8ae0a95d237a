"""Lines of several processes say whose they are."""

import sys

from poly_jax.study.labels import labelled


def test_every_line_of_either_stream_is_labelled_and_only_within(capsys):
    with labelled("MHR"):
        print("one", "two")
        print("three\nfour", file=sys.stderr)
        sys.stdout.write("fi")
        sys.stdout.write("ve\n")
    print("six")
    shown = capsys.readouterr()
    assert shown.out == "MHR: one two\nMHR: five\nsix\n"
    assert shown.err == "MHR: three\nMHR: four\n"
