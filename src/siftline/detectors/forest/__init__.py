"""Isolation forests, scored without walking down a tree.

scikit-learn sends every row down every tree, a jump at a time that the processor cannot foresee. Here every
node of a forest is computed for every row, whether a row comes by or not: for a block of rows that is one
vector instruction for 64 of them, and there is nothing to foresee.

1. Comparisons need ranks only. Let a feature's distinct thresholds be ``t[0] < t[1] < …``, and the rank of
   a value ``x`` how many of them are below it. Then ``x <= t[k]`` if and only if ``rank(x) <= k``. So each
   value is ranked once, in `ranks`, and not once a node.
2. Ranks fit into bytes. Plane ``p`` of a feature has ``min(max(rank - 255 p, 0), 255)``. A node at
   threshold ``k = 255 p + j`` compares plane ``p`` with ``j``, for which it makes no difference that the
   ends are cut off. A missing value is a rank of 255 where it goes right, of 0 where it goes left.
3. Leaves fit into bytes. The distinct values of a tree's leaves are numbered; nodes below which all leaves
   have one value are left out. A tree then is a sequence of selections between bytes, children first, whose
   last one gives the number of each row's leaf (`program`).
4. The leaf values are added in the order of the trees, in float64, as scikit-learn adds them. Sums and
   rounding are the same, and so is every bit of the score.

Thresholds are float64 and values float32, so a threshold can be rounded down to float32: the same values
are at most that (`siftline.detectors.forest.program.floored`).

The loops are compiled by numba (`kernels`), if it is installed and once that pays (`compilation`). What is
built is compared with scikit-learn's own scores before it is used, and otherwise scikit-learn scores
(`scorer`).
"""

from siftline.detectors.forest.compilation import lacking, preload, prepare
from siftline.detectors.forest.scorer import ForestScorer

__all__ = ["ForestScorer", "lacking", "preload", "prepare"]
