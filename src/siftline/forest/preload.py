"""Imported by the process that workers are forked from, so that they have the kernels behind them."""

from siftline.forest.compilation import preload

preload()
