"""Imports for the workers of a cluster, beside those that every worker needs: Dask and the kernels.

They are made first, so that `worker_imports` freezes them, too.
"""

from __future__ import annotations

import gc

from siftline.system.owner import end_with_owner

end_with_owner()
gc.disable()
try:
    from siftline.detectors import kinds
    from siftline.engine import workers

    workers.preload_dask()
    kinds.preload()
finally:
    gc.enable()
