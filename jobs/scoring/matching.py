"""One-to-one matching of picks and onsets."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Points:
    """Instants of one phase at stations.

    Attributes:
        group: The instrument of each.
        time_ns: Its time.
    """

    group: Integers
    time_ns: Integers

    def __len__(self) -> int:
        return len(self.time_ns)

    def only(self, chosen: NDArray[np.bool_] | Integers) -> Points:
        """Return those that are chosen, by a mask or by their numbers."""
        return Points(group=self.group[chosen], time_ns=self.time_ns[chosen])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matches:
    """Pairs of a pick and an onset.

    Attributes:
        pick: Index of each pair's pick.
        onset: Index of its onset.
    """

    pick: Integers
    onset: Integers

    def __len__(self) -> int:
        return len(self.pick)


def match(picks: Points, onsets: Points, tolerance_ns: int) -> Matches:
    """Pair picks with onsets of the same group, at most `tolerance_ns` apart (inclusive), each used at most once.

    As many pairs as possible are made; among these solutions, the sum of distances is the smallest. Number and sum do
    not depend on the order of the points, nor on which of the two sets comes first.

    Cost: sorting, and for each cluster of p picks and t onsets that reach one another a dense assignment of p times t.
    """
    pairs = [np.empty((2, 0), np.int64)]
    # In order of group and time; what is farther apart than the tolerance has nothing to do with each other.
    pick_order = np.lexsort((picks.time_ns, picks.group))
    onset_order = np.lexsort((onsets.time_ns, onsets.group))
    pick_order = pick_order[_reaches(picks.only(pick_order), onsets.only(onset_order), tolerance_ns)]
    onset_order = onset_order[_reaches(onsets.only(onset_order), picks.only(pick_order), tolerance_ns)]
    group = np.concatenate([picks.group[pick_order], onsets.group[onset_order]])
    time_ns = np.concatenate([picks.time_ns[pick_order], onsets.time_ns[onset_order]])
    index = np.concatenate([pick_order, onset_order])
    is_pick = np.repeat([True, False], [len(pick_order), len(onset_order)])
    order = np.lexsort((time_ns, group))
    group, time_ns, index, is_pick = group[order], time_ns[order], index[order], is_pick[order]
    breaks = np.flatnonzero((np.diff(group) != 0) | (np.diff(time_ns) > tolerance_ns)) + 1
    edges = np.array([0, *breaks, len(index)])
    # Nearly every cluster is one pick and one onset, which are a pair as they stand.
    plain = edges[:-1][np.diff(edges) == 2]
    plain = plain[is_pick[plain] != is_pick[plain + 1]]
    pick_at = np.where(is_pick[plain], plain, plain + 1)
    pairs.append(np.stack([index[pick_at], index[2 * plain + 1 - pick_at]]))
    done = set(plain.tolist())
    for first, last in pairwise(edges.tolist()):
        if first in done:
            continue
        inside = is_pick[first:last]
        mine, theirs = index[first:last][inside], index[first:last][~inside]
        if len(mine) and len(theirs):
            pairs.append(_assign(mine, theirs, picks.time_ns[mine], onsets.time_ns[theirs], tolerance_ns))
    pick, onset = np.concatenate(pairs, axis=1)
    return Matches(pick=pick, onset=onset)


def _assign(mine: Integers, theirs: Integers, mine_ns: Integers, theirs_ns: Integers, tolerance_ns: int) -> Integers:
    """Match one cluster; return pick and onset indices of the pairs, shape (2, n)."""
    from scipy.optimize import linear_sum_assignment

    distance = np.abs(mine_ns[:, None] - theirs_ns[None, :]).astype(np.float64)
    too_far = distance > tolerance_ns
    # Dearer than any number of allowed pairs, so that no allowed pair is given up for a smaller sum.
    distance[too_far] = (tolerance_ns + 1.0) * (min(distance.shape) + 1)
    rows, columns = linear_sum_assignment(distance)
    allowed = ~too_far[rows, columns]
    return np.stack([mine[rows[allowed]], theirs[columns[allowed]]])


def _reaches(points: Points, others: Points, tolerance_ns: int) -> NDArray[np.bool_]:
    """Return which points have one of the others within the tolerance; both are sorted by group and time."""
    reaches = np.zeros(len(points), bool)
    if len(points) == 0:
        return reaches
    groups, starts = np.unique(points.group, return_index=True)
    stops = [*starts[1:].tolist(), len(points)]
    lows, highs = (np.searchsorted(others.group, groups, side=side) for side in ("left", "right"))
    for start, stop, low, high in zip(starts.tolist(), stops, lows.tolist(), highs.tolist(), strict=True):
        theirs = others.time_ns[low:high]
        mine = points.time_ns[start:stop]
        first = np.searchsorted(theirs, mine - tolerance_ns, side="left")
        behind = np.searchsorted(theirs, mine + tolerance_ns, side="right")
        reaches[start:stop] = first < behind
    return reaches
