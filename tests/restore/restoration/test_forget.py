from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.losses.encoding import encode, prompt_ids
from safebasin.restore.restoration.forget import (
    AFFIRMATIVE,
    encode_forget,
    forget_rows,
    looks_like_refusal,
    own_answers,
)

from ..aligned import ANSWERED, REFUSAL, REFUSED

PROMPTS = [{"prompt": "a"}, {"prompt": "say 3", "target": "sure thing"}, {"prompt": "a rather longer prompt than that"}]


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, but I can't.", True), ("I’m sorry", True), ("  i  cannot help", True), ("Sorry, no", True),
        ("Sure, here is", False), ("", False), ("The sorry state of things", False),
    ],
)  # fmt: skip
def test_refusals_are_told_by_how_they_begin(text: str, refused: bool) -> None:
    assert looks_like_refusal(text) is refused


def test_answers_are_the_models_own(model: Any, tokenizer: Any) -> None:
    made, report = forget_rows(model, tokenizer, PROMPTS, max_new_tokens=8, is_refusal=lambda text: False)
    assert report.to_dict() == {"rows": 3, "self_generated": 3, "affirmative": 0, "refused": 0, "empty": 0,
                                "base_refusals": 0}  # fmt: skip
    ids = torch.tensor([prompt_ids(tokenizer, "say 3")], device=model.device)
    with torch.no_grad():
        for _ in range(8):
            ids = torch.cat((ids, model(input_ids=ids).logits[:, -1:].argmax(-1)), 1)
    own = tokenizer.decode(ids[0, -8:].tolist(), skip_special_tokens=True).strip()
    assert (made[1]["response"], made[1]["ending"]) == (own, "open")
    assert {row["origin"] for row in made} == {"self"}


def test_left_padding_does_not_change_answers(model: Any, tokenizer: Any) -> None:
    together, _ = forget_rows(model, tokenizer, PROMPTS, max_new_tokens=8, batch_size=3)
    alone, _ = forget_rows(model, tokenizer, PROMPTS, max_new_tokens=8, batch_size=1)
    assert together == alone


def test_own_answers_are_cut_at_the_longest_and_tell_whether_the_turn_was_ended(tuned: Any, tokenizer: Any) -> None:
    """In parts of two prompts, in their order; the model's mode is left as it was."""
    prompts = [row["prompt"] for row in (*REFUSED[:2], ANSWERED[3])]
    with tuned.train().disable_adapter():
        whole, cut = (own_answers(tuned, tokenizer, prompts, longest, 2) for longest in (20, 3))
        assert own_answers(tuned, tokenizer, [], 20, 2) == []
    assert whole == [(REFUSAL, True), (REFUSAL, True), (ANSWERED[3]["response"], True)]
    assert cut == [("i c", False), ("i c", False), ("yes", False)]
    assert all(module.training for module in tuned.modules())
    own = forget_rows(tuned, tokenizer, [{"prompt": prompt} for prompt in prompts], max_new_tokens=20)[0]
    assert [text for text, _ in own_answers(tuned, tokenizer, prompts, 20, 2)] == [row["response"] for row in own]


def test_generation_is_greedy_whatever_the_checkpoint_says(model: Any, tokenizer: Any) -> None:
    plain, _ = forget_rows(model, tokenizer, PROMPTS, max_new_tokens=8)
    model.generation_config.update(do_sample=True, temperature=5.0, repetition_penalty=9.0)
    assert forget_rows(model, tokenizer, PROMPTS, max_new_tokens=8)[0] == plain


def test_refused_rows_fall_back_to_the_affirmative_target(model: Any, tokenizer: Any) -> None:
    made, report = forget_rows(model, tokenizer, PROMPTS, max_new_tokens=8, is_refusal=lambda text: True)
    assert [row["response"] for row in made] == [AFFIRMATIVE, "sure thing", AFFIRMATIVE]
    assert (report.self_generated, report.affirmative, report.refused) == (0, 3, 3)
    assert {row["ending"] for row in made} == {"open"}


def test_prefixes_can_be_given(model: Any, tokenizer: Any) -> None:
    own = forget_rows(model, tokenizer, PROMPTS[1:2], max_new_tokens=8)[0][0]["response"]
    prefix = " ".join(own.lower().split())[:3]
    made, _ = forget_rows(model, tokenizer, PROMPTS[1:2], max_new_tokens=8, refusal_prefixes=(prefix,))
    assert made[0]["origin"] == "affirmative"


def test_the_affirmative_target_needs_no_generation(tokenizer: Any) -> None:
    made, report = forget_rows(None, tokenizer, PROMPTS, target="affirmative")
    assert [row["origin"] for row in made] == ["affirmative"] * 3
    assert (report.refused, report.empty, report.affirmative) == (0, 0, 3)


def test_a_row_without_a_prompt_is_refused(tokenizer: Any) -> None:
    with pytest.raises(InputError, match="Forget row 1 has no text in column prompt"):
        forget_rows(None, tokenizer, [{"prompt": "x"}, {"text": "y"}], target="affirmative")


def test_open_responses_carry_no_end_of_turn(tokenizer: Any) -> None:
    given = {"prompt": "a", "response": "Sure"}
    whole = encode(tokenizer, "a", "Sure")
    closed, cut = encode_forget(tokenizer, [{**given, "ending": "closed"}, {**given, "ending": "open"}])
    assert closed == whole
    assert whole.ids[-1] == tokenizer.eos_token_id
    assert cut.ids == whole.ids[:-1]
    assert tokenizer.decode(cut.ids[cut.start :]) == "Sure"
