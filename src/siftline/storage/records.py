"""Records: small JSON files with a format version and a digest, checked against a model when read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from siftline.errors import IntegrityError, storage_error
from siftline.storage.files import read_record, write_record
from siftline.storage.locks import locked
from siftline.storage.owned import InnerName, PlainName

T = TypeVar("T", bound=BaseModel)
D = TypeVar("D")


class Record(BaseModel):
    """Base of what is persisted as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _moment(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("is in no time zone")
    return text


Moment = Annotated[str, AfterValidator(_moment)]


class StoredFile(Record):
    """A data file: its name, size and digest."""

    name: PlainName
    size: int
    digest: str


class PublishedFile(StoredFile):
    """A data file of a result, by its name within the output."""

    name: InnerName
    rows: int


@dataclass(frozen=True)
class RecordFile(Generic[T]):
    """A record on disk: its file, its model, and the one format version that is accepted."""

    path: Path
    model: type[T]
    version: int

    def read(self) -> T:
        """Read the record.

        Raises
        ------
        FileNotFoundError, IntegrityError, StorageError
            When it is missing, damaged or of another version, or unreadable.
        """
        try:
            return self.model.model_validate(read_record(self.path, self.version))
        except NotADirectoryError as error:
            raise FileNotFoundError(*error.args) from error
        except FileNotFoundError:
            raise
        except OSError as error:
            raise storage_error(error, self.path) from error
        except ValidationError as error:
            problem = f"{self.path}: not a valid {self.model.__name__} record"
            raise IntegrityError(problem, "delete it and run again: it is recreated") from error

    def read_or(self, default: D) -> T | D:
        """Read the record; return a default if it is missing, damaged or of another version."""
        try:
            return self.read()
        except (FileNotFoundError, IntegrityError):
            return default

    def write(self, value: T, durable: bool = True) -> None:
        """Replace the record; a durable one survives a power cut."""
        write_record(self.path, value.model_dump(mode="json"), self.version, durable)

    @contextmanager
    def updating(self, seconds: float = 5.0) -> Iterator[T]:
        """Yield the record, or an empty one; write it if it was changed.

        After `seconds` a lost update is better than waiting on for another process, which may be frozen.
        """
        with locked(self.path.with_suffix(".lock"), seconds):
            value = self.read_or(self.model())
            before = value.model_copy(deep=True)
            yield value
            if value != before:
                self.write(value)
