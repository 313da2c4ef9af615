"""Description of a group: its reasons in typical values, its worst row, and what its rows have in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from siftline.batch_plan import Feature
from siftline.jobs.findings import Group, GroupReason
from siftline.jobs.texts import value_of
from siftline.shown import shown
from siftline.stages.findings.census import DIRECTIONS, RowReasons
from siftline.stages.findings.columns import most_frequent
from siftline.stages.findings.lift import overrepresented
from siftline.stages.findings.sample import Sampled
from siftline.stages.findings.words import sentence
from siftline.types import Ints


@dataclass(frozen=True)
class Compared:
    """Columns of the anomalies, and the sample of the source that they are compared with."""

    features: tuple[Feature, ...]
    key: tuple[str, ...]
    carried: tuple[str, ...]
    sampled: Sampled

    @property
    def identity(self) -> tuple[str, ...]:
        """Columns that identify a row."""
        return tuple(dict.fromkeys([*self.key, *self.carried]))

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns of the anomalies."""
        used = (feature.column for feature in self.features)
        return tuple(dict.fromkeys([*self.identity, *used, "score", "rank", "reasons"]))


def describe(
    rows: pa.Table, reasons: RowReasons, worst: int, count: int, share: float, compared: Compared
) -> Group:
    """Describe a group by rows of it; `count` are all of them, `worst` the place of the highest score."""
    places = _places(reasons)
    features = [compared.features[code // len(DIRECTIONS)] for code in places]
    example = {name: value_of(rows[name][worst]) for name in compared.identity}
    for feature, own in zip(features, places.values(), strict=True):
        example[feature.name] = value_of(reasons.flat.field("value")[int(own[worst])])
    explained = {feature.column for feature in features}
    carried = [name for name in compared.carried if name not in explained]
    group = Group(
        reasons=tuple(_reason(reasons.flat.take(pa.array(own))) for own in places.values()),
        rows=count,
        share=share,
        score=rows["score"][worst].as_py(),
        rank=rows["rank"][worst].as_py(),
        worst={shown(name): shown(value) for name, value in example.items()},
        overrepresented=overrepresented(rows, carried, compared.sampled),
        sentence="",
    )
    return group.model_copy(update={"sentence": sentence(group)})


def _places(reasons: RowReasons) -> dict[int, Ints]:
    """Return the places of each shared reason; the one that is the strongest in most rows comes first."""
    first, second = reasons.strongest.T
    codes, counts = np.unique(reasons.codes[first], return_counts=True)
    strongest = dict(zip(codes.tolist(), counts.tolist(), strict=True))
    shared = {int(reasons.codes[place]) for place in reasons.strongest[0]}
    ordered = sorted(shared, key=lambda code: (-strongest.get(code, 0), code))
    return {code: np.where(reasons.codes[first] == code, first, second) for code in ordered}


def _reason(found: pa.StructArray) -> GroupReason:
    """Describe a reason by its values in the rows of a group."""
    direction = found.field("direction")[0].as_py()
    if direction in ("high", "low"):
        value = f"{np.median(np.asarray(found.field('value').cast(pa.float64()))):.6g}"
    else:
        value = most_frequent(pa.chunked_array([found.field("value")]), 1)[0][0]
    distances = found.field("distance").drop_null()
    return GroupReason(
        feature=shown(value_of(found.field("feature")[0])),
        direction=direction,
        value=shown(value),
        typical=shown(value_of(found.field("typical")[0])),
        distance=float(np.median(np.asarray(distances))) if len(distances) else None,
    )
