"""Who is compared with Siftline, and where each of them runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """A peer: its function, and whether it needs the environment of benchmarks/peers-requirements.txt."""

    label: str
    module: str
    function: str = "main"
    apart: bool = False
    exact: bool = True


PEERS = {
    "pandas": Peer("(a) pandas, n_jobs=-1", "one_process", "with_pandas"),
    # Threads add up the trees in any order, so the last bits of the scores differ.
    "threads": Peer("(a') (a) in joblib threads", "one_process", "with_threads", exact=False),
    "stream": Peer("(b) streamed, one process", "one_process", "with_stream"),
    "dask": Peer("(c) dask.dataframe", "dask_dataframe", apart=True),
    "tasks": Peer("(d) DaskTaskRunner tasks", "task_runner"),
    "ray": Peer("(e) Ray Data", "ray_data", apart=True),
    "spark": Peer("(f) Spark mapInPandas", "spark", apart=True),
}
