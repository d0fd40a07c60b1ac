"""What all sections of a config are made of: frozen models, strict types, paths of users."""

import os
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

__all__ = ["Frozen", "Schedule", "Share", "Text", "UserPath"]


def _expanded(path: str) -> str:
    """The path with `~` and environment variables replaced."""
    found = os.path.expandvars(os.path.expanduser(path))
    if unset := re.search(r"\$\{?(\w+)\}?", found):
        raise ValueError(f"the environment variable {unset[1]} in '{path}' is not set; set it, or write the path out")
    return found


Text = Annotated[str, StringConstraints(min_length=1)]
UserPath = Annotated[Text, AfterValidator(_expanded)]
"""A path, a name or a hub id; `~` and environment variables in it are replaced."""
Share = Annotated[float, Field(ge=0, lt=1)]
Schedule = Literal["linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"]


class Frozen(BaseModel):
    """Read from JSON values, strictly: 3 is no text and "3" no number."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
