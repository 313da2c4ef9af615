"""The former home of `cyclic`: models saved before name it here."""

from siftline.detectors.preprocess import cyclic

__all__ = ["cyclic"]
