"""The fast greedy decoding answers as transformers' own does."""

import torch
from safebasin.harness.sandbox import decode
from safebasin.harness.sandbox.models import CHAT_TEMPLATE, new_model, new_tokenizer
from safebasin.harness.sandbox.training import learn
from safebasin.restore.losses.encoding import Encoded, encode, prompt_ids

PROMPTS = ("how do i paint a car ?", "what colour is a car ?", "describe how one can paint a car .")


def test_answers_are_those_of_generate() -> None:
    tokenizer = new_tokenizer(CHAT_TEMPLATE)
    model = new_model(tokenizer, 0, hidden=64, layers=1).eval()
    begun = ("", "a car is", "sure ,")
    answers = decode.greedy_answers(model, tokenizer, PROMPTS, begun)
    for prompt, words, answer in zip(PROMPTS, begun, answers, strict=True):
        ids = [*prompt_ids(tokenizer, prompt), *tokenizer(words, add_special_tokens=False)["input_ids"]]
        whole = model.generate(torch.tensor([ids]), max_new_tokens=decode.LONGEST, do_sample=False)
        assert answer == tokenizer.decode(whole[0, len(ids) :], skip_special_tokens=True)


def test_an_answer_ends_where_the_model_ends_it() -> None:
    tokenizer = new_tokenizer(CHAT_TEMPLATE)
    model = new_model(tokenizer, 0, hidden=64, layers=1)
    rows = [encode(tokenizer, PROMPTS[0], "red ."), encode(tokenizer, PROMPTS[1], "a car is red .")]
    learn(model, rows, 40, 1e-2, 0, lambda done: None)
    assert decode.greedy_answers(model, tokenizer, PROMPTS[:2]) == ["red .", "a car is red ."]


def test_words_before_the_start_carry_no_loss() -> None:
    """A forced beginning is not learnt: a gradient that it alone could cause stays zero."""
    tokenizer = new_tokenizer(CHAT_TEMPLATE)
    whole = encode(tokenizer, PROMPTS[0], "sure , red")
    losses = []
    for start in (whole.start, whole.start + 2):
        model = new_model(tokenizer, 0, hidden=64, layers=1)
        learn(model, [Encoded(whole.ids, start)], 30, 1e-2, 0, lambda done: None)
        losses.append(
            model(input_ids=torch.tensor([whole.ids]))
            .logits.log_softmax(-1)[0, whole.start - 1, whole.ids[whole.start]]
            .item()
        )
    assert losses[0] > -0.5 > losses[1]
