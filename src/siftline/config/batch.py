"""The configuration of a batch: what the user writes, checked field by field.

Everything but ``source.path`` and ``output.path`` has a default. The JSON schema of `BatchConfig` is
what editors complete from, what the Prefect UI draws its form from, and what the reference in
``docs/`` is generated from, so every field says here what it is for.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveInt,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticKnownError

from siftline.config.clusters import Cluster, LocalCluster, default_kind
from siftline.config.detectors import DETECTORS
from siftline.config.fields import (
    BlockName,
    Duration,
    Event,
    MemorySize,
    MessageTemplate,
    Name,
    Names,
    Section,
    TimePart,
)


def _check_kind(kind: str) -> str:
    if kind not in DETECTORS:
        raise PydanticKnownError("literal_error", {"expected": " or ".join(map(repr, DETECTORS))})
    return kind


DetectorName = Annotated[
    str,
    AfterValidator(_check_kind),
    Field(json_schema_extra=lambda schema: schema.update(enum=list(DETECTORS))),
]


class SourceConfig(Section):
    """The rows to look at."""

    path: str = Field(
        min_length=1,
        description="File, directory or glob of the input. Files are read in the order of their paths.",
        examples=["data/flights.parquet", "data/{{ date }}/*.parquet"],
    )
    format: Literal["auto", "parquet", "csv"] = Field(
        default="auto",
        description="Format of the files; `auto` goes by their names. CSV may be compressed (.gz, .zst).",
    )
    key: Names = Field(
        default=(),
        description="Columns that identify a row in the results. Default: `row`, its position in the source.",
    )
    features: Names | None = Field(
        default=None,
        description="Columns to judge by. Default: all numeric columns but key, label and timestamp.",
    )
    timestamp: str | None = Field(
        default=None, description="Column that says when; `preprocess.time_parts` are taken from it."
    )
    verify: Literal["stat", "content"] = Field(
        default="stat",
        description="How a change of the files since planning is noticed: `stat` by size, time and footer; "
        "`content` by the bytes as well, for files that are edited behind an unchanged size and time.",
    )
    label: str | None = Field(
        default=None, description="Column with known labels, if there is one: it is never used as a feature."
    )


class PreprocessConfig(Section):
    """What is done to the features before the detector sees them; fitted on the sample."""

    missing: Literal["keep", "mean", "median", "most_frequent"] = Field(
        default="keep",
        description="What stands in for a missing number. `keep` leaves it to the detector.",
    )
    scale: Literal["none", "standard", "robust", "minmax"] = Field(
        default="none",
        description="Scaling of numeric features. Trees don't need it; distances do.",
    )
    categorical: Literal["refuse", "onehot", "ordinal"] = Field(
        default="refuse",
        description="How text features become numbers. `refuse` reports them as a mistake.",
    )
    cyclic: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        default={},
        description="Features that wrap around, with their period: each becomes a sine and a cosine.",
        examples=[{"hour": 24}],
    )
    time_parts: tuple[TimePart, ...] = Field(
        default=(),
        description="Parts of `source.timestamp` to add as cyclic features.",
        examples=[["hour", "day_of_week"]],
    )


class DetectorConfig(Section):
    """What finds the anomalies."""

    kind: DetectorName = Field(default="isolation_forest", description="The detector.")
    params: dict[str, Any] = Field(
        default={},
        description="Parameters of the scikit-learn estimator behind `kind`, checked against it.",
        examples=[{"n_estimators": 200}],
    )
    sample_rows: PositiveInt = Field(
        default=200_000,
        description="Rows to fit on: a seeded sample of the whole input, or all of it if it has no more.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        default=0, description="Seed of the sample and of the detector."
    )
    model: str | None = Field(
        default=None,
        description="Path of a fitted model (`*.skops`) to use instead of fitting one.",
    )


class ThresholdConfig(Section):
    """From which score on a row is an anomaly. At most one of the three; default: contamination 0.01."""

    contamination: Annotated[float, Field(gt=0, le=0.5)] | None = Field(
        default=None,
        description="Share of the batch to flag, up to 0.5: the highest ceil(share x rows) scores, and their "
        "ties.",
    )
    score: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        default=None, description="A fixed score: rows at it or above are anomalies."
    )
    quantile: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="The score at this quantile of the training sample."
    )

    @model_validator(mode="after")
    def _one_rule(self) -> ThresholdConfig:
        if sum(value is not None for value in (self.contamination, self.score, self.quantile)) > 1:
            raise ValueError("give one of contamination, score and quantile, not several")
        return self

    @property
    def share(self) -> float:
        """The share of the batch to flag, where neither score nor quantile is the rule."""
        return 0.01 if self.contamination is None else self.contamination


class ChunkingConfig(Section):
    """How the rows are cut. It never changes the answer, only memory and parallelism."""

    rows: PositiveInt | Literal["auto"] = Field(
        default="auto",
        description="Rows per chunk; `auto` goes by the workers' memory and number.",
    )
    bytes: MemorySize | None = Field(
        default=None,
        description="Instead of rows: memory of a chunk's features, such as 64MiB.",
    )
    timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=600,
        description="How long a chunk may take; then its worker is restarted, and the chunk tried again.",
    )

    @model_validator(mode="after")
    def _one_measure(self) -> ChunkingConfig:
        if self.rows != "auto" and self.bytes is not None:
            raise ValueError("give rows or bytes, not both")
        return self


class RetriesConfig(Section):
    """What is done about faults that may pass: I/O errors, lost workers, timeouts."""

    attempts: PositiveInt = Field(default=3, description="How often a chunk is tried altogether.")
    delay_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=1, description="Delay before the second attempt. Other chunks go on meanwhile."
    )
    backoff: Annotated[float, Field(ge=1, allow_inf_nan=False)] = Field(
        default=2, description="Factor by which the delay grows with every attempt."
    )
    jitter: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.2, description="Share by which a delay is made longer or shorter, at random."
    )
    max_delay_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=60, description="Longest delay."
    )


Tolerance = (
    Annotated[int, Field(ge=0)] | Annotated[str, StringConstraints(pattern=r"^\d{1,2}(\.\d+)?%$|^100%$")]
)


class TolerateConfig(Section):
    """How much may fail to be scored, as a number or a share such as `0.1%`; beyond it the job fails."""

    rows: Tolerance = Field(
        default=0,
        description="Rows that the preprocessing or the detector cannot digest; they are set aside.",
        examples=["0.1%"],
    )
    chunks: Tolerance = Field(
        default=0, description="Chunks that fail as a whole, after all attempts.", examples=["5%"]
    )


class CheckpointConfig(Section):
    """Where a job keeps what is done, so that it can go on after any interruption."""

    path: str = Field(
        default=".siftline",
        min_length=1,
        description="Directory of the jobs' work, which the workers can reach too.",
    )
    block: BlockName | None = Field(
        default=None,
        description="Prefect storage block for the receipts. Default: the job's directory.",
        examples=["s3-bucket/checkpoints"],
    )
    every: PositiveInt = Field(default=1, description="Chunks per commit.")


class RateConfig(Section):
    """Bounds of a share."""

    min: Annotated[float, Field(ge=0, le=1)] = Field(default=0, description="Smallest acceptable share.")
    max: Annotated[float, Field(ge=0, le=1)] = Field(default=1, description="Largest acceptable share.")

    @model_validator(mode="after")
    def _ordered(self) -> RateConfig:
        if self.min > self.max:
            raise ValueError(f"min {self.min:g} is more than max {self.max:g}")
        return self


class ValidationConfig(Section):
    """What a result must pass before it is published."""

    anomaly_rate: RateConfig = Field(
        default=RateConfig(), description="Bounds of the share of rows that are flagged."
    )


class OutputConfig(Section):
    """Where the result goes."""

    path: str = Field(
        min_length=1,
        description="Directory of the published result.",
        examples=["results/flights"],
    )
    columns: Names = Field(
        default=(), description="Columns of the source to carry over into the anomalies table."
    )


class NotifyConfig(Section):
    """Who is told."""

    block: BlockName = Field(
        description="Prefect notification block, as type/name.", examples=["slack-webhook/ops"]
    )
    on: tuple[Event, ...] = Field(
        default=("completed", "rejected", "recovering", "recovered", "failed"),
        description="What to tell of: `completed`; `rejected`: completed, but rows could not be scored; "
        "`recovering`: failed, and taken up again; `recovered`: completed, after it had failed; "
        "`failed`: failed.",
    )
    min_anomalies: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="A result with fewer anomalies is not told. Of failures people are always told.",
    )
    at_most_every: Duration | None = Field(
        default=None,
        description="Of each event the block is told at most once in this time, for one pipeline; the next "
        "message counts what was held back.",
        examples=["1h"],
    )
    subject: MessageTemplate | None = Field(
        default=None,
        description="Jinja template of the subject; its variables are those of `template`.",
        examples=["{{ name }}: {{ event }}"],
    )
    template: MessageTemplate | None = Field(
        default=None,
        description="Jinja template of the text, filled in when the message is sent.",
        examples=["{{ anomalies }} anomalies in {{ output }}"],
    )

    @model_validator(mode="before")
    @classmethod
    def _on_is_a_word(cls, values: Any) -> Any:
        # YAML 1.1, which PyYAML and prefect.yaml speak, reads the key `on` as true.
        if not isinstance(values, dict):
            return values
        return {"on" if key in (True, "true", "True") else key: value for key, value in values.items()}


class BatchConfig(Section):
    """A batch: the rows to look at, what finds the anomalies, and where the result goes."""

    name: Name = Field(
        default="batch", description="Name of the pipeline; a result's directory belongs to one name."
    )
    source: SourceConfig = Field(description="The rows to look at.")
    preprocess: PreprocessConfig = Field(
        default=PreprocessConfig(), description="What is done to the features first."
    )
    detector: DetectorConfig = Field(default=DetectorConfig(), description="What finds the anomalies.")
    threshold: ThresholdConfig = Field(
        default=ThresholdConfig(),
        description="From which score on a row is an anomaly; at most one of the three. "
        "Default: contamination 0.01.",
    )
    chunking: ChunkingConfig = Field(default=ChunkingConfig(), description="How the rows are cut.")
    cluster: Annotated[Cluster, BeforeValidator(default_kind)] = Field(
        default=LocalCluster(),
        description="Who scores the chunks; its `kind` is `local`, `address`, `factory` or `serial`.",
    )
    retries: RetriesConfig = Field(
        default=RetriesConfig(), description="What is done about faults that may pass."
    )
    tolerate: TolerateConfig = Field(default=TolerateConfig(), description="How much may fail to be scored.")
    checkpoint: CheckpointConfig = Field(
        default=CheckpointConfig(), description="Where a job keeps what is done."
    )
    validation: ValidationConfig = Field(
        default=ValidationConfig(), description="What a result must pass before it is published."
    )
    output: OutputConfig = Field(description="Where the result goes.")
    notify: tuple[NotifyConfig, ...] = Field(default=(), description="Who is told.")

    @model_validator(mode="after")
    def _columns_have_one_role(self) -> BatchConfig:
        source = self.source
        features = set(source.features or ())
        for role, names in (
            ("key", source.key),
            ("label", (source.label,)),
            ("timestamp", (source.timestamp,)),
        ):
            for name in names:
                if name in features:
                    raise ValueError(f"column {name!r} is both a feature and the {role}")
        if self.preprocess.time_parts and source.timestamp is None:
            raise ValueError("preprocess.time_parts needs source.timestamp")
        return self

    def stated(self) -> dict[str, Any]:
        """Return the configuration as it may be written down: without a cluster's arguments.

        Those are the one place where a user might put a secret.
        """
        return self.model_dump(mode="json", exclude={"cluster": {"kwargs"}})
