"""Names of columns that say what they are: indexes, identifiers, codes, labels, times."""

from __future__ import annotations

import re

from siftline.cli.starter.profile import Column
from siftline.shown import shown

_INDEX = re.compile(r"|__index_level_\d+__|Unnamed: \d+(?:_level_\d+)?")
_IDENTIFIERS = {"id", "ids", "uid", "uuid", "guid", "key", "pk", "oid", "identifier", "hash"}
_JOINED = re.compile(
    r"(?:account|case|client|cust|customer|device|event|item|machine|member|object|order|patient|product|"
    r"record|row|sensor|session|store|trans|transaction|unit|user)id"
)
_NUMBERED = {"no", "nr", "num", "number", "nummer", "numero"}
_CODES = {
    *("zip", "zipcode", "postcode", "postalcode", "plz", "postal", "code", "codes", "sku", "ean", "gtin"),
    *("upc", "isbn", "iban", "bic", "barcode", "ssn", "fips", "naics", "sic"),
    *("phone", "telephone", "tel", "mobile", "fax", "phonenumber"),
}
_TIMES = {"time", "timestamp", "ts", "epoch", "unixtime", "datetime", "date"}
_LABELS = {
    *("label", "labels", "target", "class", "y", "truth", "anomaly", "anomalous", "outlier", "fraud"),
    *("isanomaly", "isoutlier", "isfraud", "abnormal"),
}
_TRUTH = (("is", "anomaly"), ("is", "outlier"), ("is", "anomalous"), ("is", "fraud"), ("ground", "truth"))


def name_shown(name: str) -> str:
    """Return a name for a comment or a message, with escapes if not plainly visible."""
    plain = name != "" and name.isprintable() and name == name.strip()
    return shown(name if plain else repr(name))


def is_index(name: str) -> bool:
    """Return True for the names that pandas gives to an index."""
    return _INDEX.fullmatch(name) is not None


def is_identifier(column: Column) -> bool:
    """Return True for identifiers by their names, if the values can be any."""
    if not column.words or not (column.kind == "text" or column.integral):
        return False
    *others, last = column.words
    if last in _NUMBERED and others:  # the number of a telephone is none
        return others[-1] not in _CODES and 10 * column.distinct >= 9 * column.rows
    return last in _IDENTIFIERS or _JOINED.fullmatch(last) is not None


def is_code(column: Column) -> bool:
    """Return True for whole numbers named like postal codes, telephone numbers and so on."""
    words = column.words[:-1] if column.words[-1:] and column.words[-1] in _NUMBERED else column.words
    return bool(words) and words[-1] in _CODES and column.integral


def is_time(column: Column) -> bool:
    """Return True for numbers named like times: rising, or counted from 1970."""
    if not column.words or column.words[-1] not in _TIMES or column.kind != "number" or not column.known:
        return False
    low, high = column.numbers.min(), column.numbers.max()
    return column.rising or any(1e8 * unit < low and high < 5e9 * unit for unit in (1, 1e3, 1e6, 1e9))


def is_label(words: tuple[str, ...]) -> bool:
    """Return True for names of known labels."""
    return (len(words) == 1 and words[0] in _LABELS) or words in _TRUTH


def is_cyclic_hour(column: Column) -> bool:
    """Return True for the hour of a day."""
    if column.words not in (("hour",), ("hr",)) or column.kind != "number" or not column.known:
        return False
    return bool(column.numbers.min() >= 0 and column.numbers.max() < 24)
