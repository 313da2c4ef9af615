"""Results of flows as JSON, which any process of the same storage reads: records and errors of Siftline."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

from prefect.serializers import JSONSerializer

from siftline import errors
from siftline.errors import SiftlineError
from siftline.storage.records import Record

# Nothing else is imported for the name that a file contains.
_RECORDS = {
    "BackfillReport": "siftline.flows.control.backfilling:BackfillReport",
    "BatchResult": "siftline.types:BatchResult",
}


def encode(value: object) -> dict[str, Any]:
    """Return the JSON of a record or an error; raise TypeError for anything else."""
    name = type(value).__name__
    # Not under a key `data` or `result`: Prefect takes such JSON for its own.
    if isinstance(value, Record) and name in _RECORDS:
        return {"record": name, "fields": value.model_dump(mode="json")}
    if isinstance(value, SiftlineError):
        return {"error": name, "problem": value.problem, "remedy": value.remedy}
    if isinstance(value, BaseException):
        return {"error": name, "problem": str(value), "remedy": ""}
    raise TypeError(f"{name} is no result of a flow")


def decode(value: dict[str, Any]) -> Any:
    """Return the record or the error in JSON, and other JSON as it is."""
    if value.keys() == {"record", "fields"} and value["record"] in _RECORDS:
        return resolve_name(_RECORDS[value["record"]]).model_validate(value["fields"])
    if value.keys() == {"error", "problem", "remedy"}:
        kind = getattr(errors, value["error"], None)
        if isinstance(kind, type) and issubclass(kind, SiftlineError):
            return kind(value["problem"], value["remedy"])
        return RuntimeError(f"{value['error']}: {value['problem']}")
    return value


RESULT_JSON = JSONSerializer(object_encoder=f"{__name__}.encode", object_decoder=f"{__name__}.decode")
