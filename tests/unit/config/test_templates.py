"""Templates: what people write works, and none does too much."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from siftline.config.loading import parse_config, resolve_config
from siftline.config.schedules import Interval
from siftline.config.template_variables import TopRow
from siftline.config.templates import check_template, render, renderer
from siftline.errors import ConfigError

NOW = datetime(2026, 3, 9, 4, tzinfo=UTC)
KNOWN: dict[str, Any] = {
    "date": date(2026, 3, 9),
    "datetime": NOW,
    "interval": Interval(start=NOW, end=datetime(2026, 3, 10, 4, tzinfo=UTC)),
    "rows": 1234567,
    "rate": 0.0123,
    "error": "first\nsecond " * 1000,
    "top": (TopRow(1, 0.9, {"id": "A"}, ("high x", "low y")),),
    "parameters": {"days": [1, 2], "region": "EU"},
    "nothing": None,
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ date.strftime('%Y/%m') }}", "2026/03"),
        ("{{ '%05d' % 7 }} {{ '-' * 3 }} {{ 2 ** 10 }}", "00007 --- 1024"),
        ("{{ '{:,}'.format(rows) }} {{ '%.2f' | format(100 * rate) }} %", "1,234,567 1.23 %"),
        ("{% for row in top %}{{ row.identity.id }}: {{ row.reasons | join(';') }}{% endfor %}",
         "A: high x;low y"),
        ("{% for i in range(3) %}{{ loop.index }}{{ ',' if not loop.last }}{% endfor %}", "1,2,3"),
        ("{% if error %}{{ error | truncate(8, true, '…', 0) }}{% endif %}", "first\ns…"),
        ("{{ parameters.days | map('string') | join('-') }} {{ parameters.region | lower }}", "1-2 eu"),
        ("{{ 'x' | center(3) }}|{{ 'x'.rjust(3, '0') }}|{{ 'a-b' | replace('-', '_') }}", " x |00x|a_b"),
        ("{% set a = namespace(n=0) %}{% for i in [1, 2] %}{% set a.n = a.n + i %}{% endfor %}{{ a.n }}",
         "3"),
        ("{{ interval.label }} {{ nothing or 'none' }} {{ top | map(attribute='score') | list }}",
         "2026-03-09 none [0.9]"),
        ("{{ parameters | tojson }} {{ parameters.get('x', 1) }}", '{"days": [1, 2], "region": "EU"} 1'),
    ],
)  # fmt: skip
def test_what_people_write_is_rendered(template: str, text: str) -> None:
    check_template(template, KNOWN)
    assert render(template, KNOWN) == text


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'x' * 10**9 }}",
        "{{ ['x'] * 10**9 }}",
        "{{ 10 ** (10 ** 8) }}",
        "{{ 'x' | center(1000000000) }}",
        "{{ 'x'.ljust(10**9) }}{{ 'x'.zfill(10**9) }}",
        "{{ '\t'.expandtabs(10**9) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '{:>1000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 10**9) }}",
        "{{ '%.1000000000f' | format(1.0) }}",
        "{{ '%s' * 9000 % ('x' * 60000) }}",
        "{{ ('x' * 60000) | replace('', 'y' * 60000) }}",
        "{{ ('x' * 60000).replace('x', 'y' * 60000) }}",
        "{{ range(9000) | join('x' * 60000) }}",
        "{{ ('x' * 60000).join(range(9000)) }}",
        "{{ ('\n' * 60000) | indent(60000) }}",
        "{{ ('\n' * 60000) | indent('x' * 60000) }}",
        "{{ [1] | batch(10**9, 'x') | list }}{{ [1] | slice(10**9) | list }}",
        "{{ [1] | tojson(indent=10**9) }}",
        "{{ 1.5 | round(10**9, 'ceil') }}",
        "{{ (1).to_bytes(10**10, 'big') }}",
        "{{ 'a'.translate({97: 'x' * 60000}) }}",
        "{{ interval.model_dump_json(indent=10**9) }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
        "{% set x = range(9000) | list %}{% for a in x %}{% for b in x %}{% endfor %}{% endfor %}",
        "{% for a in range(9000) %}" + "y" * 9000 + "{% endfor %}",
        "{% set x %}{% for a in range(9000) %}" + "y" * 9000 + "{% endfor %}{% endset %}",
        "{% macro f(n) %}{{ f(n - 1) }}{{ f(n - 1) }}{% endmacro %}{{ f(30) }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{{ loop([1]) }}{% endfor %}",
        "{% set a = [1] %}" + "{% set a = [a, a] %}" * 40 + "{{ a }}",
        "{% set n = namespace(a=[1]) %}{% for i in range(50) %}{% set n.a = [n.a, n.a] %}{% endfor %}",
        "{% set n = namespace(a='x') %}{% for i in range(50) %}{% set n.a = n.a ~ n.a %}{% endfor %}",
        "{% set n = namespace(a=3) %}{% for i in range(5000) %}{% set n.a = n.a * n.a %}{% endfor %}",
        "{% set n = namespace(a=1) %}{% for i in range(50) %}"
        "{% set n.a = namespace(b=n.a, c=n.a) %}{% endfor %}{{ n }}",
        "{% set x = range(9000) | list %}{{ [x, x] == [x, x] }}",
        "{{ lipsum(100000) }}",
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "{{ " + "+".join(["1"] * 4000) + " }}",
        "{% if 1 %}" * 500 + "{% endif %}" * 500,
        "{% for i in [1] %}" * 30 + "{% endfor %}" * 30,
        "{{ 1 }}" + "x" * 20_000,
        "{{ error }}" * 10,
    ],
)  # fmt: skip
def test_a_template_that_does_too_much_is_one_line(template: str) -> None:
    config = parse_config({"source": {"path": template}, "output": {"path": "r"}})
    with pytest.raises(ConfigError) as caught:
        resolve_config(config, NOW, parameters=KNOWN["parameters"], interval=KNOWN["interval"])
    assert str(caught.value).startswith("source.path: ")
    assert str(caught.value).isprintable()
    with pytest.raises(ValueError, match=r"."):
        render(template, KNOWN)


def test_the_templates_of_a_configuration_share_their_bounds() -> None:
    render_one = renderer(KNOWN)
    few = [render_one(f"{{% for i in range(1000) %}}{{% endfor %}}{number}") for number in range(10)]
    assert few == [str(number) for number in range(10)]
    with pytest.raises(ValueError, match="does too much"):
        list(map(render_one, ["{% for i in range(1000) %}{% endfor %}"] * 1000))


def test_a_statement_alone_is_rendered_too() -> None:
    path = "{% if date.month > 2 %}new{% else %}old{% endif %}"
    config = parse_config({"source": {"path": path}, "output": {"path": "r"}})
    assert resolve_config(config, NOW).source.path == "new"
