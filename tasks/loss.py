"""Evaluation loss: response-only, token-mean cross-entropy in nats per token, over all tokens of all responses.

lm-eval moves white space at the end of the context (in most chat templates, the line breaks before the answer) into
what it scores (`TemplateLM._encode_pair`), so its log-likelihood includes tokens of the template. Where these are
tokens of their own, a second request scores them alone and they are taken off; where the tokenizer merges them with
the response's first token they belong to the response. The end-of-turn token is not part of the response.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from transformers import PreTrainedTokenizerBase

from ..restore.models.thinking import thinking_of
from .checked import CheckedTask
from .prefill import load_tokenizer

__all__ = ["ResponseLoss", "process_loss", "scored_tokens", "token_mean"]


class ResponseLoss(CheckedTask):
    """A `loglikelihood` task over documents with `prompt` and `response`, for a YAML's `class: !function`."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config=config)
        self._tokenizer = load_tokenizer(self.config.metadata or {})
        self._tokens: dict[tuple[str, str], int] = {}

    def construct_requests(self, doc: Mapping[str, Any], ctx: str, **kwargs: Any) -> list[Instance]:
        """The response after its context and, where needed, the context's white space after the rest of it.

        Where the context begins a block of thinking, the response comes after an empty one, as rows are trained on.
        """
        if (thinking := thinking_of(self._tokenizer)) is not None:
            ctx = thinking.closed(ctx)
        kwargs.pop("apply_chat_template", None)
        kwargs.pop("chat_template", None)
        tokens, separate = scored_tokens(self._tokenizer, ctx, doc["response"])
        self._tokens[doc["prompt"], doc["response"]] = tokens
        continuations = [doc["response"], ""] if separate else [doc["response"]]
        return [
            Instance(request_type=self.OUTPUT_TYPE, doc=doc, arguments=(ctx, text), idx=index, **kwargs)
            for index, text in enumerate(continuations)
        ]

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """Hands `process_loss` the number of tokens counted when the requests were made."""
        doc["tokens"] = self._tokens[doc["prompt"], doc["response"]]
        return dict(super().process_results(doc, results))


def scored_tokens(tokenizer: PreTrainedTokenizerBase, context: str, response: str) -> tuple[int, bool]:
    """Counts the tokens of the response as they stand behind the context.

    Returns:
        Their number, and whether white space at the context's end makes tokens of its own, not counted in it.
    """

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    whole, given, bare = encode(context + response), encode(context), encode(context.rstrip())
    if whole[: len(given)] == given:
        return len(whole) - len(given), len(given) > len(bare)
    return len(whole) - len(bare), False


def process_loss(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, tuple[float, int]]:
    """The pair (log-likelihood of the response, its number of tokens) as `eval_loss`."""
    total, *template = (loglikelihood for loglikelihood, _ in results)
    return {"eval_loss": (total - sum(template), doc["tokens"])}


def token_mean(items: Sequence[tuple[float, int]]) -> float:
    """−Σ log p / Σ tokens over (log-likelihood, tokens) pairs.

    Raises:
        ValueError: there is no token to take the mean over.
    """
    tokens = sum(count for _, count in items)
    if tokens == 0:
        raise ValueError("the evaluation loss of no tokens is undefined")
    return -sum(loglikelihood for loglikelihood, _ in items) / tokens
