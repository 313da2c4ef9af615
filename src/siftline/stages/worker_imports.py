"""What workers have behind them when they are forked: imported by the process that they are forked from.

Importing them costs seconds of CPU. Looking for garbage meanwhile, where there is none, would take a fifth
more; and what is frozen then is not looked at by the workers either, so that its memory stays shared.
"""

from __future__ import annotations

import gc

gc.disable()
try:
    from siftline.detectors import forest
    from siftline.engine import workers

    workers.preload()
    forest.preload()
finally:
    gc.freeze()
    gc.enable()
