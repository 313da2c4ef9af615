"""Detectors: the kinds, preprocessing, fitted models, and the reasons for a score."""
