"""Isolation forests, scored without traversing a tree."""

from siftline.forest.compilation import prepare
from siftline.forest.scorer import ForestScorer

__all__ = ["ForestScorer", "prepare"]
