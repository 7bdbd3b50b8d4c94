"""The base of all groups of settings."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidatorFunctionWrapHandler, field_validator

from .mistakes import ANOTHER, wrong


class Settings(BaseModel):
    """Base of all groups. Unknown keys are errors, and nothing can be changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @field_validator("*", mode="wrap")
    @classmethod
    def _never_raises_otherwise(cls, value: Any, read: ValidatorFunctionWrapHandler) -> Any:
        """Make any other exception of a value's reader a mistake with the value's path."""
        try:
            return read(value)
        except (ValueError, AssertionError):  # pydantic's own errors are ValueErrors
            raise
        except Exception:
            raise wrong(ANOTHER) from None
