"""Groups in words: sizes, sides, values and what is common, as a colleague would say it."""

from __future__ import annotations

import pytest

from siftline.jobs.findings import Group, GroupReason, Overrepresented
from siftline.stages.findings.words import sentence


def reason(name: str, direction: str, value: str, typical: str, distance: float | None = None) -> GroupReason:
    return GroupReason(feature=name, direction=direction, value=value, typical=typical, distance=distance)


TIME = reason("air_time", "high", "691", "129", 6.0)
DISTANCE = reason("distance", "high", "4963", "872", 6.0)
UA = Overrepresented(column="carrier", value="UA", share=0.83, lift=4.12)
HNL = Overrepresented(column="dest", value="HNL", share=0.5, lift=606.1)


@pytest.mark.parametrize(
    ("reasons", "common", "expected"),
    [
        (
            (TIME, DISTANCE),
            (UA,),
            "air_time and distance far above normal (median 691 against 129; 4,963 against 872); "
            "83 % are carrier=UA, 4.1 × their share",
        ),
        (
            (TIME,),
            (UA, HNL),
            "air_time far above normal (median 691 against 129); 83 % are carrier=UA, 4.1 × their share, "
            "and 50 % are dest=HNL, 606 × their share",
        ),
        (
            (reason("x", "low", "-0.0123456", "1.83768", 2.0), reason("y", "missing", "missing", "7")),
            (),
            "x below normal (median -0.0123 against 1.84) and y missing",
        ),
        (
            (reason("color", "other", "blue", "red"), reason("hour", "other", "23", "13")),
            (),
            "color and hour unusual (mostly blue, usually red; 23, usually 13)",
        ),
        ((reason("x", "high", "2e+12", "1"),), (), "x above normal (median 2e+12 against 1)"),
    ],
)
def test_a_group_is_one_sentence(
    reasons: tuple[GroupReason, ...], common: tuple[Overrepresented, ...], expected: str
) -> None:
    group = Group(
        reasons=reasons,
        rows=1_400,
        share=0.42,
        score=0.7,
        rank=1,
        worst={},
        overrepresented=common,
        sentence="",
    )
    assert sentence(group) == f"1,400 anomalies (42 %): {expected}."


def test_one_anomaly_has_values_instead_of_medians() -> None:
    group = Group(reasons=(TIME,), rows=1, share=0.004, score=0.7, rank=1, worst={}, sentence="")
    assert sentence(group) == "1 anomaly (0.4 %): air_time far above normal (691 against 129)."
