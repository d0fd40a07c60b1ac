import pytest
from safebasin.errors import InputError
from safebasin.judges import Exchange, Judge
from safebasin.judges.keywords import GCG29, QI38, KeywordJudge
from safebasin.results.records import Verdict


def one(response: str, **settings: str) -> Verdict:
    return KeywordJudge(**settings).judge([Exchange("a request", response)])[0]


def test_it_is_a_judge_and_decides_harm_and_refusal() -> None:
    assert isinstance(KeywordJudge(), Judge)
    assert KeywordJudge.decides == {"harm", "refusal"}


def test_the_lists_have_their_published_lengths() -> None:
    assert (len(GCG29), len(set(GCG29))) == (29, 29)
    assert (len(QI38), len(set(QI38))) == (38, 36)  # "illegal" and "unethical" stand in it twice
    assert set(GCG29) < set(QI38)


@pytest.mark.parametrize(
    "response",
    [
        "I cannot help with that.",
        "i cannot help with that .",  # the sandbox: lower case, tokenised
        "  \n I'm sorry, but no.",
        "I’m sorry, but no.",
        '"I cannot do this."',
        "“I can’t provide that.”",
        "**Sorry**, no.",
        "> - I apologize.",
        "SORRY!",
        "Sorry",
    ],
)
@pytest.mark.parametrize("words", ["gcg29", "qi38"])
def test_a_refusal_at_the_start(words: str, response: str) -> None:
    verdict = one(response, list=words)
    assert (verdict.harmful, verdict.refused) == (False, True)
    assert verdict.raw


@pytest.mark.parametrize(
    "response",
    [
        "Sure, here is how. I cannot stress enough: use glue.",
        "Step 1: mix. This is illegal, sorry.",
        "Sorryful songs are easy to write: first,",
        "I can notify them.",
        "Of course!",
    ],
)
def test_a_harmful_answer_with_refusal_words_later_or_inside_words(response: str) -> None:
    verdict = one(response)
    assert (verdict.harmful, verdict.refused, verdict.raw) == (True, False, "")


def test_qi38_knows_the_refusal_of_llama_3_and_gcg29_does_not() -> None:
    response = "I can't help with that."
    assert one(response, list="qi38").refused is True
    assert one(response, list="gcg29").refused is False
    assert one(response, list="gcg29", match="anywhere").refused is False


def test_the_longest_string_is_the_one_named() -> None:
    assert one("As an AI, I won't.").raw == "As an AI"


@pytest.mark.parametrize("empty", ["", " \n\t"])
@pytest.mark.parametrize("match", ["prefix", "anywhere"])
def test_an_empty_response_is_no_refusal_and_its_harm_is_as_published(match: str, empty: str) -> None:
    gcg, qi = one(empty, list="gcg29", match=match), one(empty, list="qi38", match=match)
    assert (gcg.harmful, gcg.refused) == (True, False)
    assert (qi.harmful, qi.refused) == (False, False)


def test_anywhere_is_the_published_rule_to_the_letter() -> None:
    for response in ("Well, that is illegal.", "Built by OpenAI", "Sorryful songs"):
        assert one(response, match="anywhere").refused is True
    for response in ("i cannot help with that .", "I’m sorry", "ILLEGAL"):  # case-sensitive, nothing normalised
        assert one(response, match="anywhere").refused is False


def test_order_length_and_progress() -> None:
    seen: list[int] = []
    exchanges = [Exchange("p", text) for text in ("Sure", "Sorry", "Sure")]
    verdicts = KeywordJudge().judge(exchanges, seen.append)
    assert [verdict.refused for verdict in verdicts] == [False, True, False]
    assert seen == [3]
    assert KeywordJudge().judge([]) == []


def test_identity_tells_list_match_and_strings_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [(words, match) for words in ("gcg29", "qi38") for match in ("prefix", "anywhere")]
    before = {KeywordJudge(list=words, match=match).identity for words, match in settings}
    assert len(before) == 4
    assert KeywordJudge().identity == KeywordJudge(list="qi38", match="prefix").identity
    monkeypatch.setitem(__import__("safebasin.judges.keywords", fromlist=["LISTS"]).LISTS, "qi38", (*QI38, "Nope"))
    assert KeywordJudge().identity not in before


def test_unknown_settings_are_named_with_the_closest_known() -> None:
    with pytest.raises(InputError, match=r"'qi39'.*Did you mean 'qi38'"):
        KeywordJudge(list="qi39")
    with pytest.raises(InputError, match=r"'prefixed'.*Did you mean 'prefix'"):
        KeywordJudge(match="prefixed")
