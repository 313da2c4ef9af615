"""Configuration of a batch, checked field by field.

The descriptions of the fields are in the JSON schema: editors, Prefect's UI and the reference show them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PositiveInt,
    StringConstraints,
    field_validator,
    model_validator,
)

from siftline.config.clusters import Cluster, LocalCluster, default_kind
from siftline.config.detectors import DetectorConfig
from siftline.config.fields import (
    BlockName,
    Duration,
    Event,
    LocalPath,
    MemorySize,
    MessageTemplate,
    Name,
    Names,
    Seconds,
    Section,
    TimePart,
)
from siftline.config.resources import ResourcesConfig
from siftline.config.secrets import secrets_in

Character = Annotated[str, StringConstraints(min_length=1, max_length=1, pattern=r"^[^\r\n\x00]$")]
ColumnType = Literal["text", "integer", "number", "boolean", "timestamp", "date"]


class CsvConfig(Section):
    """Form of CSV files. What is not set is detected where that is safe."""

    delimiter: Character | None = Field(default=None, examples=[";", "\t"])
    """Character between fields: comma, semicolon, tab and vertical bar are detected."""
    decimal: Literal[".", ","] | None = None
    """Decimal mark of numbers. A comma is detected where it cannot separate thousands."""
    thousands: Character | None = Field(default=None, examples=[",", ".", " "])
    """Separator of thousands in numbers."""
    encoding: str | None = Field(default=None, min_length=1, examples=["cp1252", "utf-16"])
    """Encoding of the text. UTF-8, and UTF-16 with a byte order mark, are detected."""
    header: bool = True
    """True if the first row has the names. Otherwise columns are `column_1`, `column_2` and so on."""
    null_values: Annotated[tuple[str, ...], Field(examples=[["?", "-999"]])] | None = None
    """Spellings of a missing number. Default: empty, `NA`, `N/A`, `NaN`, `null` and the like."""
    quote: Character | Literal[""] = '"'
    """Character around fields with delimiters or line breaks; empty if there is none."""
    comment: Character | None = Field(default=None, examples=["#"])
    """First character of lines to leave out."""
    skip_rows: Annotated[int, Field(ge=0)] = 0
    """Lines to skip before the header."""

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                b"".decode(name)
            except (LookupError, ValueError):
                raise ValueError(f"{name!r} is no encoding that Python knows; try utf-8 or cp1252") from None
        return name

    @model_validator(mode="after")
    def _marks_differ(self) -> CsvConfig:
        marks = [self.delimiter, self.quote or None, self.comment]
        given = [mark for mark in marks if mark is not None]
        if len(set(given)) < len(given):
            raise ValueError("delimiter, quote and comment must differ")
        if self.thousands is not None and self.thousands == self.decimal:
            raise ValueError("thousands and decimal must differ")
        return self


class SourceConfig(Section):
    """The input rows."""

    path: LocalPath = Field(examples=["data/flights.parquet", "data/{{ date }}/*.parquet"])
    """File, directory or glob of the input. Files are read in path order."""
    format: Literal["auto", "parquet", "csv"] = "auto"
    """Format of the files; `auto` decides by file name. CSV may be compressed (.gz, .zst)."""
    key: Names = ()
    """Columns that identify a row in the results. Default: `row`, its position in the source."""
    types: dict[str, ColumnType] = Field(default={}, examples=[{"store": "text"}])
    """Types of columns of CSV files. By default features are numbers, and all others are text."""
    csv: CsvConfig = CsvConfig()
    """Form of CSV files. What is not set is detected where that is safe."""
    features: Names | None = None
    """Columns to score. Default: all numeric columns except key, label and timestamp."""
    timestamp: str | None = None
    """Timestamp column; `preprocess.time_parts` are derived from it."""
    verify: Literal["stat", "content"] = "stat"
    """How changed files are detected: by size, time and footer (`stat`), or also by bytes (`content`)."""
    label: str | None = None
    """Column with known labels, if any. It is never used as a feature."""


class PreprocessConfig(Section):
    """Preprocessing of the features, fitted on the sample."""

    missing: Literal["keep", "mean", "median", "most_frequent"] = "keep"
    """Replacement for missing numbers. `keep` leaves them to the detector."""
    scale: Literal["none", "standard", "robust", "minmax"] = "none"
    """Scaling of numeric features. Forests do not need it; distance-based detectors do."""
    categorical: Literal["refuse", "onehot", "ordinal"] = "refuse"
    """Encoding of text features. `refuse` reports them as a mistake."""
    max_categories: PositiveInt = 100
    """Values of a `onehot` feature with a column each, the most frequent; all others share one column."""
    cyclic: dict[str, Seconds] = Field(default={}, examples=[{"hour": 24}])
    """Periodic features and their periods: each becomes a sine and a cosine."""
    time_parts: tuple[TimePart, ...] = Field(default=(), examples=[["hour", "day_of_week"]])
    """Parts of `source.timestamp` to add as cyclic features."""


class ThresholdConfig(Section):
    """Score at which a row counts as an anomaly. Set at most one; default: contamination 0.01."""

    contamination: Annotated[float, Field(gt=0, le=0.5)] | None = None
    """Share of the batch to flag, up to 0.5: the ceil(share x rows) highest scores and ties."""
    score: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Fixed score: rows with this score or more are anomalies."""
    quantile: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Quantile of the training sample's scores to use as threshold."""

    @model_validator(mode="after")
    def _one_rule(self) -> ThresholdConfig:
        if sum(value is not None for value in (self.contamination, self.score, self.quantile)) > 1:
            raise ValueError("set only one of contamination, score and quantile")
        return self

    @property
    def share(self) -> float:
        """Share of the batch to flag, unless score or quantile is set."""
        return 0.01 if self.contamination is None else self.contamination


class ChunkingConfig(Section):
    """Size of the chunks. It affects memory and parallelism, never the result."""

    rows: PositiveInt | Literal["auto"] = "auto"
    """Rows per chunk; `auto` chooses by number and memory of the workers."""
    bytes: MemorySize | None = None
    """In place of rows: memory for the features of a chunk, such as 64MiB."""
    timeout_seconds: Seconds | None = 600
    """Time limit for a chunk; after it the worker is restarted and the chunk retried."""

    @model_validator(mode="after")
    def _one_measure(self) -> ChunkingConfig:
        if self.rows != "auto" and self.bytes is not None:
            raise ValueError("set rows or bytes, not both")
        return self


class RetriesConfig(Section):
    """Retries after transient faults: I/O errors, lost workers, timeouts."""

    attempts: PositiveInt = 3
    """Attempts per chunk, including the first."""
    delay_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1
    """Delay before the second attempt. Other chunks continue meanwhile."""
    backoff: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2
    """Factor by which the delay grows with each attempt."""
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share by which each delay varies at random."""
    max_delay_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60
    """Longest delay."""


Tolerance = (
    Annotated[int, Field(ge=0)] | Annotated[str, StringConstraints(pattern=r"^\d{1,2}(\.\d+)?%$|^100%$")]
)


class TolerateConfig(Section):
    """Tolerated failures, as a number or a share such as `0.1%`; with more, the job fails."""

    rows: Tolerance = Field(default=0, examples=["0.1%"])
    """Rows that the preprocessing or the detector cannot handle; they are set aside."""
    chunks: Tolerance = Field(default=0, examples=["5%"])
    """Chunks that fail after all attempts."""


class CheckpointConfig(Section):
    """Storage of finished work, from which an interrupted job resumes."""

    path: LocalPath = ".siftline"
    """Directory for the jobs' work; the workers must be able to reach it."""
    block: BlockName | None = Field(default=None, examples=["s3-bucket/checkpoints"])
    """Prefect storage block for the receipts. Default: the job's directory."""
    every: PositiveInt = 1
    """Chunks per commit."""


class RateConfig(Section):
    """Bounds of the share of flagged rows."""

    min: Annotated[float, Field(ge=0, le=1)] = 0
    """Smallest acceptable share."""
    max: Annotated[float, Field(ge=0, le=1)] = 1
    """Largest acceptable share."""
    within: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(default=None, examples=[0.5])
    """Largest acceptable distance from the usual share, as a share of it: `0.5` allows 50 % more or less."""
    last: Annotated[int, Field(ge=3, le=30)] = 10
    """Number of the pipeline's last publications whose median share is the usual one."""

    @model_validator(mode="after")
    def _ordered(self) -> RateConfig:
        if self.min > self.max:
            raise ValueError(f"min {self.min:g} is more than max {self.max:g}")
        return self


class ValidationConfig(Section):
    """Checks that a result must pass before it is published."""

    anomaly_rate: RateConfig = RateConfig()
    """Bounds of the share of flagged rows."""
    ties: Literal["fail", "warn"] = "fail"
    """Equal scores that flag more than twice the rows asked for, and ten more: `warn` publishes them."""


class OutputConfig(Section):
    """Location of the result."""

    path: LocalPath = Field(examples=["results/flights"])
    """Directory of the published result."""
    columns: Names = ()
    """Source columns to copy into the anomalies table."""


class NotifyConfig(Section):
    """Notifications to send."""

    block: BlockName = Field(examples=["slack-webhook/ops"])
    """Prefect notification block, as type/name."""
    on: tuple[Event, ...] = Field(
        default=("completed", "rejected", "recovering", "recovered", "failed"),
        description="Events to notify about: `completed`; `rejected`: completed, but rows could not be "
        "scored; `recovering`: failed, being recovered; `recovered`: completed after a failure; `failed`.",
    )
    min_anomalies: Annotated[int, Field(ge=0)] = 0
    """Skip results with fewer anomalies than this. Failures are always sent."""
    at_most_every: Duration | None = Field(default=None, examples=["1h"])
    """Rate limit per pipeline and event: one message in this time. The next counts those held back."""
    subject: MessageTemplate | None = Field(default=None, examples=["{{ name }}: {{ event }}"])
    """Jinja template of the subject; its variables are those of `template`."""
    template: MessageTemplate | None = Field(
        default=None, examples=["{{ anomalies }} anomalies in {{ output }}"]
    )
    """Jinja template of the text, rendered when the message is sent."""

    @model_validator(mode="before")
    @classmethod
    def _on_is_a_word(cls, values: Any) -> Any:
        # YAML 1.1, as in PyYAML and prefect.yaml, reads the key `on` as true.
        if not isinstance(values, dict):
            return values
        return {"on" if key in (True, "true", "True") else key: value for key, value in values.items()}


class BatchConfig(Section):
    """A batch: input rows, detector and location of the result."""

    name: Name = "batch"
    """Name of the pipeline; an output directory belongs to one name."""
    source: SourceConfig
    """The input rows."""
    preprocess: PreprocessConfig = PreprocessConfig()
    """Preprocessing of the features."""
    detector: DetectorConfig = DetectorConfig()
    """The detector of anomalies."""
    threshold: ThresholdConfig = ThresholdConfig()
    """Score at which a row counts as an anomaly. Set at most one; default: contamination 0.01."""
    chunking: ChunkingConfig = ChunkingConfig()
    """Size of the chunks."""
    cluster: Annotated[Cluster, BeforeValidator(default_kind)] = LocalCluster()
    """Where chunks are scored: `kind` is `local`, `address`, `factory` or `serial`."""
    resources: ResourcesConfig = ResourcesConfig()
    """Resources that the job asks for. What is not set follows from the input and the machine."""
    retries: RetriesConfig = RetriesConfig()
    """Retries after transient faults."""
    tolerate: TolerateConfig = TolerateConfig()
    """Tolerated failures."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Storage of finished work."""
    validation: ValidationConfig = ValidationConfig()
    """Checks that a result must pass before it is published."""
    output: OutputConfig
    """Location of the result."""
    notify: tuple[NotifyConfig, ...] = ()
    """Notifications to send."""

    @model_validator(mode="after")
    def _columns_have_one_role(self) -> BatchConfig:
        source = self.source
        features = set(source.features or ())
        roles = {"key": source.key, "label": (source.label,), "timestamp": (source.timestamp,)}
        for role, names in roles.items():
            for name in names:
                if name in features:
                    raise ValueError(f"column {name!r} is both a feature and the {role}")
        if self.preprocess.time_parts and source.timestamp is None:
            raise ValueError("preprocess.time_parts needs source.timestamp")
        return self

    def stated(self) -> dict[str, Any]:
        """Return the configuration without its secrets."""
        return self.model_dump(mode="json", exclude=secrets_in(self))
