"""Findings of a result: groups of anomalies, the curve of thresholds, features, known labels."""
