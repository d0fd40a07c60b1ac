"""`safebasin judge`: how a judge is written on the command line, and what its check against labels says."""

from collections.abc import Sequence

import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...errors import InputError
from ...tasks.verdicts import JudgeSpec
from ..config.file import read_value

__all__ = ["read_judge"]


def read_judge(text: str) -> JudgeSpec:
    """Reads `keywords`, `keywords={list: gcg29}`, or as in a config `{keywords: {list: gcg29}}`.

    Raises:
        InputError: it is of another form.
    """
    name, equals, settings = text.partition("=")
    whole = not equals or name.lstrip().startswith("{")
    try:
        value = read_value(text if whole else settings)
    except yaml.YAMLError as error:
        raise InputError(f"--judge '{text}' is no YAML ({' '.join(str(error).split())}). {_FORM}") from error
    spec = value if whole else {name.strip(): value}
    if isinstance(spec, str):
        return spec
    if not isinstance(spec, dict) or len(spec) != 1 or not all(v is None or isinstance(v, dict) for v in spec.values()):
        raise InputError(f"--judge '{text}' is no judge with settings. {_FORM}")
    return spec


_FORM = "Write a name, or a name with its settings: --judge keywords, --judge 'keywords={list: gcg29}'."
