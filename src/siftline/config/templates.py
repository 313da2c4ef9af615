"""Jinja templates of users, rendered in a sandbox: they cannot run code."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment


def render(template: str, known: Mapping[str, object]) -> str:
    """Render a template; raise ValueError if it is malformed or fails."""
    from jinja2 import TemplateError

    try:
        return _environment().from_string(template).render(known)
    except (TemplateError, TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
        raise ValueError(str(error)) from error


def check_template(template: str, known: Collection[str]) -> None:
    """Raise ValueError if a template is malformed, or uses a variable that is not `known`."""
    from jinja2 import TemplateSyntaxError, meta

    environment = _environment()
    try:
        environment.from_string(template)
    except TemplateSyntaxError as error:
        raise ValueError(f"malformed in line {error.lineno}: {error.message}") from None
    asked = meta.find_undeclared_variables(environment.parse(template))
    unknown = sorted(asked - set(known) - environment.globals.keys())
    if unknown:
        raise ValueError(f"unknown variable {unknown[0]!r}; allowed: {', '.join(known)}")


def _environment() -> SandboxedEnvironment:
    from jinja2 import StrictUndefined  # slow to import, and rarely needed
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
