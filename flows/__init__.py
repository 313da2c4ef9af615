"""The pipelines, as Prefect flows: composition and nothing else."""
