"""ROUGE-L as the Python package `rouge` 1.0 computes it, which is not the ROUGE-L of other benchmarks.

Sentences end at full stops, words end at blanks, and case counts. The score compares distinct words: those of
the longest common subsequence of every sentence of the reference with every sentence of the prediction. The
package itself is not a dependency, because it recurses once for every word of a sentence and so fails on
sentences of about a thousand words.
"""

from collections.abc import Sequence

# In the package's denominator, so that no overlap is 0 and not an error; a perfect score is 1 - 5e-9.
_EPSILON = 1e-8


def rouge_l_f(prediction: str, reference: str) -> float:
    """Return the F-measure of a prediction against one reference, from 0 to 1.

    It is 0 where a text is empty or has only full stops. The package raises an error there.
    """
    predicted, wanted = _sentences(prediction), _sentences(reference)
    if not predicted or not wanted:
        return 0.0
    common: set[str] = set()
    for sentence in wanted:
        for other in predicted:
            common.update(_common_subsequence(sentence, other))
    precision = len(common) / len({word for sentence in predicted for word in sentence})
    recall = len(common) / len({word for sentence in wanted for word in sentence})
    return 2.0 * precision * recall / (precision + recall + _EPSILON)


def _sentences(text: str) -> list[list[str]]:
    # A sentence of blanks has one word, the empty one, in the package.
    return [sentence.split() or [""] for sentence in text.split(".") if sentence]


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Return the words of one longest common subsequence, last word first.

    There may be several, with different words. The package goes back from the ends, and drops a word of the
    second sequence unless only dropping one of the first keeps the length; the same one is found here.
    """
    lengths = [[0] * (len(second) + 1)]
    for word in first:
        above, row = lengths[-1], [0]
        for place, other in enumerate(second):
            row.append(above[place] + 1 if word == other else max(above[place + 1], row[place]))
        lengths.append(row)
    i, j, found = len(first), len(second), []
    while i and j:
        if first[i - 1] == second[j - 1]:
            found.append(first[i - 1])
            i, j = i - 1, j - 1
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found
