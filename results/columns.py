"""The columns of leaderboard.csv, in order: a contract that other tools read."""

from collections.abc import Sequence

__all__ = [
    *("AFTER_UTILITY", "BEFORE_UTILITY", "CORRECTED", "COUNT_COLUMNS", "GRADED", "RELAPSE", "TEXT_COLUMNS"),
    "UNFINISHED",
    "column_types",
    "utility_columns",
]

BEFORE_UTILITY = (
    *("model", "method", "stage", "seed", "status", "n", "hrr", "hrr_low", "hrr_high"),
    *("refusal_rate", "incoherent_rate", "unparsed_rate", "prefill_asr", "prefill_asr_low", "prefill_asr_high"),
    *("visage", "visage_low", "visage_high", "over_refusal", "eval_loss"),
)
AFTER_UTILITY = (
    *("safety_examples", "minutes", "peak_gb", "p_vs_lora", "p_holm"),
    *("prefill_refusal_rate", "prefill_incoherent_rate"),
    *("over_refusal_low", "over_refusal_high", "over_refusal_incoherent_rate"),
    *("under_refusal", "under_refusal_low", "under_refusal_high"),
    *("visage_mean", "visage_half_width", "visage_judged", "visage_refused"),
    "model_digest",
)
GRADED = ("grade", "grade_low", "grade_high", "grade_max", "grade_max_low", "grade_max_high", "ungraded_rate")
"""After all others, and only where a judge graded."""
UNFINISHED = ("unfinished_rate", "prefill_unfinished_rate", "over_refusal_unfinished_rate")
"""After these, and only where some answer is a block of thinking that did not end."""
CORRECTED = ("hrr_corrected", "hrr_corrected_low", "hrr_corrected_high")
"""After these, and only where somebody labelled responses."""
RELAPSE = "relapse_"
"""How columns begin that stand behind UNFINISHED, one for each fine-tuning of finished checkpoints: text."""
TEXT_COLUMNS = ("model", "method", "stage", "status")
COUNT_COLUMNS = ("seed", "n", "safety_examples")


def utility_columns(names: Sequence[str]) -> list[str]:
    """The utility metrics among a leaderboard's columns: those between ``eval_loss`` and ``safety_examples``."""
    return list(names[names.index("eval_loss") + 1 : names.index("safety_examples")])


def column_types(names: Sequence[str]) -> dict[str, str]:
    """The pandas type of each column: text, a count that may be empty, or a number in percent or its own unit."""
    kinds = {"model_digest": "string"}  # may be empty, which "str" is not in pandas 2
    kinds |= dict.fromkeys(TEXT_COLUMNS, "str") | dict.fromkeys(COUNT_COLUMNS, "Int64")
    kinds |= {name: "string" for name in names if name.startswith(RELAPSE)}
    return {name: kinds.get(name, "float64") for name in names}
