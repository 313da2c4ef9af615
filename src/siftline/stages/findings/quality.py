"""Quality of a ranking against known labels, from counts by class and score."""

from __future__ import annotations

import numpy as np

from siftline.jobs.findings import Quality
from siftline.stages.findings.tally import LabelCounts


def quality_of(counts: LabelCounts) -> Quality:
    """Return ROC AUC and average precision of all labelled rows; precision and recall of the flagged.

    Rows with equal scores count as one step, as in scikit-learn's ``roc_auc_score`` and
    ``average_precision_score``.
    """
    positives, negatives = counts.positives[::-1], counts.negatives[::-1]
    found, false = np.cumsum(positives), np.cumsum(negatives)
    total, others = int(positives.sum()), int(negatives.sum())
    both = total > 0 and others > 0
    area = float(((found - positives / 2) * negatives).sum()) / (total * others) if both else None
    average = float((positives * found / (found + false)).sum()) / total if both else None
    return Quality(
        labelled=total + others,
        positives=total,
        roc_auc=area,
        average_precision=average,
        precision=counts.flagged_positives / counts.flagged if counts.flagged else None,
        recall=counts.flagged_positives / total if total else None,
    )
