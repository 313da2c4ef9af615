"""Imports that workers need, made once in the process from which they are forked.

They cost seconds of CPU. Garbage collection would add a fifth; frozen objects are never collected, so
their memory stays shared with the workers.
"""

from __future__ import annotations

import gc

from siftline.system.owner import end_with_owner

end_with_owner()
gc.disable()
try:
    import sklearn.utils

    # skops would import all of scikit-learn, Dask's arrays and pytest, to trust every estimator there is.
    _all_estimators, sklearn.utils.all_estimators = sklearn.utils.all_estimators, list
    try:
        import skops.io  # noqa: F401  with most of scikit-learn, and pandas
    finally:
        sklearn.utils.all_estimators = _all_estimators

    from siftline.stages import labelling, scoring, training  # noqa: F401
finally:
    gc.freeze()
    gc.enable()
