"""The pipelines, as Prefect flows: composition and nothing else."""

import os

from siftline.system.imports import put_working_directory_last

if "PREFECT__FLOW_RUN_ID" in os.environ:
    # A process that Prefect started for a run: it puts the working directory first.
    put_working_directory_last()
