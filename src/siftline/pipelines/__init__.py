"""Pipelines: the files that become deployments, their steps, and a run's assignment."""
