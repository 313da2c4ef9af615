"""What people write without Siftline. Each does the same job: fit on a sample, score every row, write the
rows' ids, scores and labels, with exactly ``ceil(contamination x rows)`` anomalies (and their ties).

Nothing in here knows Siftline, and every module imports only what its peer needs: some of them run in an
environment of their own.
"""
