"""Jinja templates of users, in a sandbox: no code runs, and nothing runs long."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

_TOO_DEEP = "too deep a nesting or recursion; simplify the template"


def has_template(text: str) -> bool:
    """Return True if a text has an expression or a statement of Jinja."""
    return "{{" in text or "{%" in text


def is_malformed(text: str) -> bool:
    """Return True if a text with the signs of a template cannot be one."""
    from jinja2 import TemplateSyntaxError

    from siftline.config.sandbox import BoundedEnvironment

    try:
        BoundedEnvironment().parse(text)
    except TemplateSyntaxError:
        return True
    return False


def render(template: str, known: Mapping[str, object]) -> str:
    """Render a template; raise ValueError if it is malformed, fails, or does too much."""
    return renderer(known)(template)


def renderer(known: Mapping[str, object]) -> Callable[[str], str]:
    """Return a function that renders templates as `render` does, all together within its bounds."""
    from jinja2 import TemplateError

    from siftline.config.sandbox import MOST_TEXT, BoundedEnvironment  # slow to import, and rarely needed

    environment = BoundedEnvironment()

    def rendered(template: str) -> str:
        text = ""
        try:
            for piece in environment.from_string(template).generate(known):
                text += piece
                if len(text) > MOST_TEXT:
                    raise ValueError(f"the text is longer than {MOST_TEXT >> 10} KiB")
        except (RecursionError, MemoryError, SyntaxError):  # of the compiled template
            raise ValueError(_TOO_DEEP) from None
        except (TemplateError, TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
            raise ValueError(str(error)) from error
        return text

    return rendered


def check_template(template: str, known: Collection[str]) -> None:
    """Raise ValueError if a template is malformed, or uses a variable that is not `known`."""
    from jinja2 import TemplateSyntaxError, meta

    from siftline.config.sandbox import BoundedEnvironment

    environment = BoundedEnvironment()
    try:
        environment.from_string(template)
        asked = meta.find_undeclared_variables(environment.parse(template))
    except TemplateSyntaxError as error:
        raise ValueError(f"malformed in line {error.lineno}: {error.message}") from None
    except (RecursionError, MemoryError, SyntaxError):
        raise ValueError(_TOO_DEEP) from None
    unknown = sorted(asked - set(known) - environment.globals.keys())
    if unknown:
        raise ValueError(f"unknown variable {unknown[0]!r}; allowed: {', '.join(known)}")
