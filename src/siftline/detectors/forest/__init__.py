"""Isolation forests, scored without walking down a tree.

scikit-learn sends every row down every tree, one unpredictable jump at a time. Here every node of a forest is
computed for every row: one vector instruction does that for 64 rows, and there is nothing to predict.

1. Comparisons need ranks only. Let a feature's distinct thresholds be ``t[0] < t[1] < …``, and the rank of
   a value ``x`` the number of thresholds below it. Then ``x <= t[k]`` if and only if ``rank(x) <= k``. So
   each value is ranked once (`ranks`), instead of compared at every node.
2. Ranks fit into bytes. Plane ``p`` of a feature has ``min(max(rank - 255 p, 0), 255)``. A node at
   threshold ``k = 255 p + j`` compares plane ``p`` with ``j``; clipping does not change the result. A missing
   value has rank 255 where it goes right, 0 where it goes left.
3. Leaves fit into bytes. The distinct leaf values of a tree are numbered; nodes whose leaves all have
   one value are left out. A tree then is a sequence of selections between bytes, children first; the
   last one gives the number of each row's leaf (`program`).
4. Leaf values are added in the order of the trees, in float64, as in scikit-learn. So sums, rounding
   and every bit of the score are the same.

Thresholds are float64 and values float32, so a threshold can be rounded down to float32 without changing any
comparison (`siftline.detectors.forest.program.floored`).

numba compiles the loops (`kernels`), if it is installed and as soon as that pays (`compilation`). A compiled
forest is compared with scikit-learn's own scores before it is used; if they differ, scikit-learn scores
(`scorer`).
"""

from siftline.detectors.forest.compilation import KERNELS
from siftline.detectors.forest.paths import features_on_paths
from siftline.detectors.forest.scorer import ForestScorer

make_scorer = ForestScorer
sensitive = features_on_paths
preload, prepare, lacking = KERNELS.preload, KERNELS.prepare, KERNELS.lacking

__all__ = ["lacking", "make_scorer", "preload", "prepare", "sensitive"]
