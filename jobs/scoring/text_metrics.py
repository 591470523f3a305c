"""How near a text is to a reference.

    exact match        equal, letter by letter, white space at the ends aside
    normalised match   equal after SQuAD's normalisation: lower case, no punctuation, no articles, single blanks
    token F1           of the words of both, as multisets, normalised likewise (Rajpurkar et al. 2016, EMNLP, SQuAD)
    ROUGE-L            F of the longest common subsequence of words, beta 1 (Lin 2004, ROUGE, ACL workshop)
    ANLS               1 - Levenshtein distance / longer length, 0 where that is below 0.5 (Biten et al. 2019, ICCV,
                       Scene Text Visual Question Answering; threshold 0.5)

Of several references the best counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable

ANLS_THRESHOLD = 0.5

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def best(metric: Callable[[str, str], float], text: str, references: Iterable[str]) -> float:
    """Return the largest value of a metric over the references; 0 without any."""
    return max((metric(text, reference) for reference in references), default=0.0)


def exact_match(text: str, reference: str) -> float:
    """Return 1 where the texts are equal, else 0."""
    return float(text.strip() == reference.strip())


def normalised_match(text: str, reference: str) -> float:
    """Return 1 where the texts are equal after normalisation, else 0."""
    return float(normalised(text) == normalised(reference))


def token_f1(text: str, reference: str) -> float:
    """Return the harmonic mean of the shares of words in common."""
    mine, theirs = normalised(text).split(), normalised(reference).split()
    if not mine or not theirs:
        return float(mine == theirs)
    common = sum((Counter(mine) & Counter(theirs)).values())
    return 2 * common / (len(mine) + len(theirs))


def rouge_l(text: str, reference: str) -> float:
    """Return the F of the longest common subsequence of words in lower case (letters and digits)."""
    mine, theirs = (re.findall(r"[^\W_]+", each.lower()) for each in (text, reference))
    if not mine or not theirs:
        return float(mine == theirs)
    return 2 * _longest_common(mine, theirs) / (len(mine) + len(theirs))


def anls(text: str, reference: str) -> float:
    """Return the normalised Levenshtein similarity of the texts in lower case; 0 below the threshold."""
    one, other = (" ".join(each.lower().split()) for each in (text, reference))
    longest = max(len(one), len(other))
    similarity = 1 - _levenshtein(one, other) / longest if longest else 1.0
    return similarity if similarity >= ANLS_THRESHOLD else 0.0


def normalised(text: str) -> str:
    """Return a text in SQuAD's normal form."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _longest_common(one: list[str], other: list[str]) -> int:
    row = [0] * (len(other) + 1)
    for word in one:
        diagonal = 0
        for place, theirs in enumerate(other, start=1):
            above = row[place]
            row[place] = diagonal + 1 if word == theirs else max(above, row[place - 1])
            diagonal = above
    return row[-1]


def _levenshtein(one: str, other: str) -> int:
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, start=1):
        diagonal, row[0] = row[0], number
        for place, theirs in enumerate(other, start=1):
            above = row[place]
            row[place] = min(above + 1, row[place - 1] + 1, diagonal + (letter != theirs))
            diagonal = above
    return row[-1]
