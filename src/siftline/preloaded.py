"""What workers have behind them when they are forked: imported by the process that they are forked from.

Importing them costs seconds of CPU. Looking for garbage meanwhile, where there is none, would take a fifth
more; and what is frozen then is not looked at by the workers either, so that its memory stays shared.
"""

from __future__ import annotations

import gc
from importlib import import_module

from siftline.forest.compilation import preload

_MODULES = [
    "distributed.nanny",
    "distributed.worker",
    "pandas",
    "siftline.combine",
    "siftline.scoring",
    "skops.io",
    "sklearn.covariance",
    "sklearn.ensemble",
]

gc.disable()
try:
    for name in _MODULES:
        import_module(name)
    preload()
finally:
    gc.freeze()
    gc.enable()
