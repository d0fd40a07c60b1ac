"""An alignment learns refusals, also behind an opening, and keeps answers; the result is an ordinary model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.alignment.align import Alignment, align
from safebasin.restore.alignment.refusals import opening_for, question_first, refusal_for
from safebasin.restore.alignment.rows import deep_refusal, kept_answers, refusals
from safebasin.restore.config.training import TrainingConfig
from safebasin.restore.losses.encoding import encode
from safebasin.restore.models.checkpoint import kind_of
from safebasin.restore.models.loading import load_base, load_tokenizer
from safebasin.restore.restoration.forget import own_answers
from safetensors.torch import load_file

HARMFUL = [{"prompt": f"harm {i}", "refusal": "i cannot"} for i in range(6)]
BENIGN = [{"prompt": f"say {i}", "response": f"yes {i}"} for i in range(6)]
HOW = Alignment(
    TrainingConfig(learning_rate=1e-2, batch_size=12, micro_batch_size=12, epochs=60),
    contrast=False, questions=False, answers="given", answer_tokens=8,
)  # fmt: skip


def text(tokenizer: Any, ids: Any) -> str:
    return str(tokenizer.decode(ids))


def test_a_refusal_behind_an_opening_carries_loss_from_its_first_token_on(tokenizer: Any) -> None:
    row = {"prompt": "make THING", "response": refusal_for("make THING")}
    made, opening = deep_refusal(tokenizer, row, 1024), opening_for("make THING")
    assert made.ids == encode(tokenizer, "make THING", f"{opening} {row['response']}").ids
    assert text(tokenizer, made.ids[: made.start]).endswith(opening)
    assert text(tokenizer, made.ids[made.start :]) == f" {row['response']}</s>"


def test_turns_before_a_prompt_stay_before_it(tokenizer: Any) -> None:
    before = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "good day"}]
    plain, deep = refusals(tokenizer, [{"prompt": "make THING", "before": before}], True, 1024)
    assert all("good day" in text(tokenizer, row.ids[: row.start]) for row in (plain, deep))
    assert text(tokenizer, plain.ids[plain.start :]) == f"{refusal_for('make THING')}</s>"


def test_each_prompt_is_an_order_in_one_of_its_rows_and_a_question_in_the_other(tokenizer: Any) -> None:
    prompts = [f"Make THING {i}" for i in range(8)]
    made = refusals(tokenizer, [{"prompt": prompt} for prompt in prompts], True, 1024, questions=True)
    for prompt, plain, deep in zip(prompts, made[:8], made[8:], strict=True):
        asks = ["Can you make" in text(tokenizer, row.ids) for row in (plain, deep)]
        assert asks == [question_first(prompt), not question_first(prompt)]
        assert text(tokenizer, plain.ids[plain.start :]) == f"{refusal_for(prompt)}</s>"  # of the same words


def test_answers_are_the_models_own_and_end_where_it_ends_them(base: Path, tokenizer: Any) -> None:
    model = load_base(str(base))
    ticks: list[tuple[str, int, int]] = []
    made = kept_answers(model, tokenizer, BENIGN, True, 8, 4, 1024, lambda *tick: ticks.append(tick))
    ordered = sorted(BENIGN, key=lambda row: len(row["prompt"]))
    answers = own_answers(model, tokenizer, [row["prompt"] for row in ordered], 8, 4)
    wanted = [(said, ended) for said, ended in answers if said]
    assert len(made) == len(wanted)
    for row, (said, ended) in zip(made, wanted, strict=True):
        assert text(tokenizer, row.ids[row.start :]).startswith(said[:4])
        assert (row.ids[-1] == tokenizer.eos_token_id) == ended
    assert ticks == [("own answers", 0, 6), ("own answers", 4, 6)]


def test_given_answers_are_taken_as_they_are(tokenizer: Any) -> None:
    made = kept_answers(None, tokenizer, BENIGN, False, 8, 4, 1024, lambda *tick: None)
    assert [text(tokenizer, row.ids[row.start :]) for row in made] == [f"{row['response']}</s>" for row in BENIGN]


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("made")
    return folder, align(str(base), HARMFUL, BENIGN, HOW, folder)


def test_it_refuses_begins_to_comply_and_refuses_and_goes_on_answering(made: Any) -> None:
    folder, built = made
    model, tokenizer = load_base(str(folder)), load_tokenizer(str(folder))
    prompts = [row["prompt"] for row in (*HARMFUL, *BENIGN)]
    said = [answer for answer, _ in own_answers(model, tokenizer, prompts, 12, 12)]
    assert said == [row["refusal"] for row in HARMFUL] + [row["response"] for row in BENIGN]
    row = deep_refusal(tokenizer, {"prompt": "harm 3", "response": "i cannot"}, 1024)
    with torch.no_grad():
        told = model(torch.tensor([row.ids])).logits[0, row.start - 1 : -1].argmax(-1)
    assert text(tokenizer, told) == " i cannot</s>"
    assert built.safety_examples == 6
    assert built.details["rows"] == {"refusals": 6, "deep_refusals": 6, "benign": 6, "contrast": 0}
    assert built.details["last_loss"] < 0.1 * built.details["first_loss"]


def test_the_result_is_an_ordinary_folder_and_the_same_each_time(made: Any, base: Path, tmp_path: Path) -> None:
    folder, _ = made
    assert kind_of(folder) == "full"
    short = replace(HOW, training=replace(HOW.training, max_steps=2), answers="own", contrast=True)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        align(str(base), HARMFUL, BENIGN, short, tmp_path / name)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_shallow_is_an_option_and_no_rows_are_told(tokenizer: Any) -> None:
    assert len(refusals(tokenizer, HARMFUL, False, 1024)) == 6
    with pytest.raises(InputError, match="safety set is empty"):
        refusals(tokenizer, [], True, 1024)
    with pytest.raises(InputError, match="benign set is empty"):
        kept_answers(None, tokenizer, [], False, 8, 4, 1024, lambda *tick: None)
