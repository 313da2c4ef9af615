"""(f): Spark on two cores, `mapInPandas`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pandas as pd
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812  everybody calls them so

from benchmarks.peers.common import BATCH_ROWS, KEY, WORKERS, Floats, Job, fit, matrix, score


def main(job: Job) -> None:
    os.environ["PYSPARK_PYTHON"] = sys.executable  # the workers' too
    spark = (
        SparkSession.builder.master(f"local[{WORKERS}]")
        .config("spark.driver.memory", "4g")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.log.level", "ERROR")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", BATCH_ROWS)
        .config("spark.sql.execution.arrow.maxBytesPerBatch", 1 << 28)
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
        .getOrCreate()
    )
    try:
        _detect(spark, job)
    finally:
        spark.stop()


def _detect(spark: SparkSession, job: Job) -> None:
    rows = spark.read.parquet(str(job.data))
    model = spark.sparkContext.broadcast(fit(_sample(job, rows)))
    features = job.features

    def scored(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            yield pd.DataFrame({KEY: batch[KEY], "score": score(model.value, matrix(batch, features))})

    scores = rows.mapInPandas(scored, f"{KEY} long, score double").persist(StorageLevel.MEMORY_AND_DISK)
    highest = scores.select("score").orderBy(F.desc("score")).limit(job.anomalies)
    threshold = highest.agg(F.min("score")).collect()[0][0]
    labels = (F.col("score") >= threshold).cast("tinyint")
    scores.withColumn("label", labels).write.parquet(str(job.output))


def _sample(job: Job, rows: DataFrame) -> Floats:
    given = job.given_sample()
    if given is not None:
        return given
    return matrix(rows.select(job.features).sample(job.share, seed=0).toPandas(), job.features)
