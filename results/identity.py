"""Which model a row is of: the same name stands for other weights on another machine, and such rows are never mixed."""

from collections.abc import Iterable

from ..errors import InputError

__all__ = ["check_distinct_models", "check_one_model_per_name"]

_SHOWN = 12
"""Characters of a digest in a message."""


def check_one_model_per_name(models: Iterable[tuple[str, str]]) -> None:
    """Refuses rows that share a model's name but not its weights.

    Args:
        models: (name, digest of the weights) of every row; one without a digest ("") is not checked.

    Raises:
        InputError: one name has several digests.
    """
    digests = _digests(models)
    for name, found in digests.items():
        if len(found) > 1:
            raise InputError(
                f"The rows of '{name}' are of {len(found)} different models (digests {_joined(found)}), so they are no "
                "replicas of one and are not put into one table: the sandbox trained on another kind of CPU, or from "
                "other source, is another world. Report what each machine made by itself, or run again to the end on "
                "one machine; for a table over worlds list them as models of one run, e.g. "
                "models=[sandbox:100, sandbox:101]."
            )


def check_distinct_models(models: Iterable[tuple[str, str]]) -> None:
    """Refuses replicas that are one and the same: counted twice they would pass for two.

    Raises:
        InputError: several names have one digest.
    """
    names: dict[str, list[str]] = {}
    for name, digests in _digests(models).items():
        for digest in digests:
            names.setdefault(digest, []).append(name)
    for digest, same in names.items():
        if len(same) > 1:
            raise InputError(
                f"{' and '.join(same)} are the same model (digest {digest[:_SHOWN]}), which counts once in a mean over "
                "worlds. List each world once in `models`."
            )


def _digests(models: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Name -> its different digests, in the order of the rows."""
    found: dict[str, list[str]] = {}
    for name, digest in models:
        own = found.setdefault(name, [])
        if digest and digest not in own:
            own.append(digest)
    return found


def _joined(digests: Iterable[str]) -> str:
    return ", ".join(digest[:_SHOWN] for digest in digests)
