"""Turns one model into another: fine-tuning methods, and the restoration of a fine-tuned model's safety.

Names are imported when they are first used, so that importing this package stays cheap (no torch). The package can
itself be called: `safebasin.restore(model, tokenizer, ...)` is `safebasin.restore.restore(...)`, whose name it shares.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import RestoreResult, restore, restore_folder
    from .config.settings import RestoreConfig

__all__ = ["RestoreConfig", "RestoreResult", "restore", "restore_folder"]

_HOMES = {"RestoreConfig": ".config.settings", "RestoreResult": ".api", "restore": ".api", "restore_folder": ".api"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


class _CallablePackage(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls `restore`."""
        return __getattr__("restore")(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
