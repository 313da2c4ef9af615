"""Values that may be secret: never shown, and left out of records."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, GetCoreSchemaHandler, ValidationError, ValidatorFunctionWrapHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

T = TypeVar("T")
UNSHOWN = "unshown"  # of errors


class Secret(Generic[T]):
    """A value without a text; only `reveal` and JSON for Prefect's parameters have it."""

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        """Return the value."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and bool(self._value == other._value)

    __hash__ = None  # type: ignore[assignment]  # as of the values

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        inner = handler.generate_schema((*get_args(source), Any)[0])
        return core_schema.no_info_wrap_validator_function(
            cls._validated,
            inner,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda secret, info: secret.reveal() if info.mode_is_json() else secret, info_arg=True
            ),
        )

    @classmethod
    def _validated(cls, value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        if isinstance(value, cls):
            return value
        try:
            return cls(validate(value))
        except ValidationError as error:  # which shows the value
            message = error.errors(include_input=False)[0]["msg"]
        raise PydanticCustomError(UNSHOWN, "{message}", {"message": message})


def secrets_in(section: BaseModel) -> dict[str, Any]:
    """Return the fields of a section that are secret, as Pydantic's `exclude`."""
    found: dict[str, Any] = {}
    for name, value in section:
        if isinstance(value, Secret):
            found[name] = True
        elif isinstance(value, BaseModel) and (inner := secrets_in(value)):
            found[name] = inner
    return found
