"""Layout on disk of a checkpoint and of an output, and the format versions of their records.

::

    <checkpoint.path>/
        jobs/<job id>/                JobFiles
            plan.json                 snapshot, features, chunks, configuration
            assignment.json           the other parameters of its run
            detector.json             the fitted detector, by digest
            job.json                  how its runs ended
            live.json                 progress, workers and alerts of its present or last run
            lease-<epoch>.json        the run that works on it
            audit.jsonl               runs that lost the lease
            model/                    the fitted model
            receipts/<token>/         receipts, one file per group of chunks
            parts-<token>/            scores and candidates, one file per chunk
            failed-<token>/           rejected rows, one file per chunk; chunks.json
        intervals/<name>/<key>/       entry.json, lease-<epoch>.json, audit.jsonl
        history/<name>.json           the last publications
        notified/<name>.json          the last notifications
        backfills/<deployment>.json   a backfill that may be continued
        staged/<digests>.parquet      CSV input, converted, and data frames
        starting/<name>-<pid>.json    a process that is about to run a batch
    <output.path>/
        manifest.json                 links through .current, like the next five
        scores                        every row, in one file or more
        anomalies.parquet
        failed.parquet                only if there are any
        findings.json                 groups, the curve of thresholds, features
        report.html                   the result as a page
        .current                      a link to the current publication
        .publications/<publication>/  the files of a result
        .staged/<publication>/        a result before it is published
        .publishing                   locked while a run publishes
"""

from __future__ import annotations

from pathlib import Path

from siftline.storage.owned import refuse_links

# In the directory of an interval; of a job or an interval.
ENTRY = "entry.json"
AUDIT = "audit.jsonl"


class Version:
    """Format versions of records; readers refuse any other."""

    ASSIGNMENT = 1
    BACKFILL = 1
    DETECTOR = 1
    FAILED_CHUNKS = 1
    FINDINGS = 1
    HISTORY = 1
    INTERVAL = 1
    JOB = 1
    KEPT_SERVER = 1
    LEASE = 2
    LIVE = 1
    MANIFEST = 2
    MODEL = 1
    NOTIFIED = 1
    PLAN = 2
    RECEIPTS = 2
    STACK = 1
    STARTING = 1


class CheckpointFiles:
    """The files of a checkpoint, by the directory ``checkpoint.path``."""

    # All names in it.
    OWN = ("jobs", "intervals", "history", "notified", "backfills", "staged", "starting")

    def __init__(self, root: Path) -> None:
        self.root = root
        self.staged = root / "staged"
        self.starting = root / "starting"

    @classmethod
    def at(cls, path: Path | str) -> CheckpointFiles:
        """Return the files of the checkpoint at a path, made absolute; `StorageError` if one is a link."""
        files = cls(Path(path).absolute())
        refuse_links(files.root / name for name in cls.OWN)
        return files

    def job(self, job_id: str) -> JobFiles:
        """Return the files of a job."""
        return JobFiles(self.root / "jobs" / job_id)

    def jobs(self) -> list[JobFiles]:
        """Return the files of all jobs that have a plan, in no order."""
        return [JobFiles(plan.parent) for plan in self.root.glob("jobs/*/plan.json")]

    def intervals(self, name: str) -> Path:
        """Return the directory of a pipeline's intervals."""
        return self.root / "intervals" / name

    def history(self, name: str) -> Path:
        """Return the record of a pipeline's last publications."""
        return self.root / "history" / f"{name}.json"

    def notified(self, name: str) -> Path:
        """Return the record of a pipeline's last notifications."""
        return self.root / "notified" / f"{name}.json"

    def backfill(self, deployment: str) -> Path:
        """Return the record of a deployment's last backfill."""
        return self.root / "backfills" / f"{deployment}.json"


class JobFiles:
    """The files of a job, by its directory; those with a token belong to one start of the job."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.plan = directory / "plan.json"
        self.assignment = directory / "assignment.json"
        self.detector = directory / "detector.json"
        self.job = directory / "job.json"
        self.live = directory / "live.json"
        self.model = directory / "model"
        self.receipts = directory / "receipts"
        self.checkpoint = CheckpointFiles(directory.parent.parent)

    def work(self) -> list[Path]:
        """Return the directories of its work that are there."""
        return [*self.directory.glob("*-*"), self.receipts, self.model]

    def parts(self, token: str) -> Path:
        """Return the directory of scores and candidates."""
        return self.directory / f"parts-{token}"

    def failed(self, token: str) -> Path:
        """Return the directory of rejected rows and failed chunks."""
        return self.directory / f"failed-{token}"

    def failed_chunks(self, token: str) -> Path:
        """Return the record of the failed chunks."""
        return self.failed(token) / "chunks.json"


class OutputFiles:
    """The files of a result, by the directory ``output.path``."""

    SCORES = "scores"
    ANOMALIES = "anomalies.parquet"
    FAILED = "failed.parquet"
    MANIFEST = "manifest.json"
    FINDINGS = "findings.json"
    REPORT = "report.html"
    PUBLICATIONS = ".publications"
    SHOWN = (SCORES, ANOMALIES, FAILED, FINDINGS, REPORT, MANIFEST)
    # Names in it that are not shown.
    OWN = (".current", ".publications", ".publishing", ".staged")
    # Directories of publications in the former layout.
    FORMER = ("scores", "anomalies", "failed")

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifest = root / self.MANIFEST
        self.report = root / self.REPORT
        self.current = root / ".current"
        self.publications = root / self.PUBLICATIONS
        self.staged = root / ".staged"
        self.publishing = root / ".publishing"


def lease_path(directory: Path, epoch: int) -> Path:
    """Return the lease of an epoch, in the directory of a job or an interval."""
    return directory / f"lease-{epoch:06d}.json"
