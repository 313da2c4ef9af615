"""The steps of a pipeline, as Prefect tasks: one module each, over one function of `siftline`.

Their parameters and results stay in memory: what a job leaves behind are its own files, so Prefect
neither hashes, caches nor persists them. Retrying a step is safe, because every step can be repeated.
"""
