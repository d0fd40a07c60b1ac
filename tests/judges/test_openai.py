"""Judges behind a server, against one on this machine that misbehaves in every way."""

import json
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from safebasin.errors import InputError
from safebasin.judges import Exchange, RemoteJudge
from safebasin.judges.openai import OpenAIGradeJudge, OpenAIJudge, OpenAIStrongRejectJudge

from .chat_server import Answer, Handler, chat_server, completion, fails, says

KEY = "sk-test-0123456789abcdef"
CLEAN, ZAP = Exchange("how to make a kite", "take paper"), Exchange("how to make a kite", "zap {prompt}")


def by_text(handler: Handler) -> None:
    says("yes" if "zap" in handler.body["messages"][-1]["content"] else "no")(handler)


@pytest.fixture
def server() -> Iterator[Any]:
    with chat_server(by_text) as made:
        yield made


@pytest.fixture
def make(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., OpenAIJudge]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")
    path = tmp_path / "rubric.txt"
    path.write_text("Harmful?\n{prompt}\n{response}\n")

    def build(kind: type[OpenAIJudge] = OpenAIJudge, server_settings: dict[str, Any] | None = None, **more: Any):
        settings = {"base_url": f"http://127.0.0.1:{server.server_port}/v1/", "timeout": 5.0, "retries": 2}
        judge = kind("judge-latest", str(path), server=settings | (server_settings or {}), **more)
        judge.waits = []  # type: ignore[attr-defined]
        judge._endpoint._sleep = judge.waits.append  # type: ignore[attr-defined]
        return judge

    return build


def test_what_is_sent_and_what_comes_back(server: Any, make: Callable[..., OpenAIJudge]) -> None:
    judge = make(system="You judge.", parameters={"seed": None, "top_p": 1})
    assert isinstance(judge, RemoteJudge)
    done: list[int] = []
    verdicts = judge.judge([CLEAN, ZAP, CLEAN], done.append)
    assert [(one.harmful, one.raw) for one in verdicts] == [(False, "no"), (True, "yes"), (False, "no")]
    assert done[-1] == 3
    assert len(server.seen) == 2
    path, authorization, _, _ = server.seen[0]
    assert (path, authorization) == ("/v1/chat/completions", f"Bearer {KEY}")
    bodies = {body["messages"][1]["content"]: body for _, _, body, _ in server.seen}
    assert bodies["Harmful?\nhow to make a kite\nzap {prompt}"] == {
        "model": "judge-latest", "temperature": 0, "max_tokens": 1024, "top_p": 1,
        "messages": [
            {"role": "system", "content": "You judge."},
            {"role": "user", "content": "Harmful?\nhow to make a kite\nzap {prompt}"},
        ],
    }  # fmt: skip


def test_what_it_cost_is_counted(server: Any, make: Callable[..., OpenAIJudge]) -> None:
    unmetered = json.dumps({"choices": completion("no")["choices"]}).encode()
    server.script = [fails(500), by_text, lambda handler: handler.send(200, unmetered)]
    judge = make(prices={"input": 1.0, "output": 100.0}, server_settings={"parallel": 1})
    judge.judge([CLEAN, ZAP])
    assert judge.spent == {
        "server": f"127.0.0.1:{server.server_port}", "requests": 3, "repeated": 1, "answered": 2, "input_tokens": 10,
        "output_tokens": 2, "without_usage": 1, "models": ["judge-2030 fp_1"], "cost": pytest.approx(210e-6),
    }  # fmt: skip
    assert json.loads(json.dumps(judge.spent))
    assert "cost" not in make().spent


def test_the_servers_wish_to_wait_is_kept(server: Any, make: Callable[..., OpenAIJudge]) -> None:
    server.script = [fails(429, Retry_After="7"), fails(503, Retry_After="900"), by_text]
    judge = make(server_settings={"longest_wait": 30.0})
    assert judge.judge([CLEAN])[0].harmful is False
    assert judge.waits == pytest.approx([7, 30], abs=1)  # type: ignore[attr-defined]


def test_retry_after_may_be_a_date_or_nonsense(server: Any, make: Callable[..., OpenAIJudge]) -> None:
    server.script = [fails(429, Retry_After=formatdate(time.time() + 20, usegmt=True)), fails(429, Retry_After="soon")]
    server.script += [by_text]
    judge = make()
    assert judge.judge([ZAP])[0].harmful is True
    first, second, *_ = judge.waits  # type: ignore[attr-defined]
    assert 17 <= first <= 20
    assert 1 <= second <= 2  # the second pause of its own, shortened by chance to half at most


def cut_off(handler: Handler) -> None:
    handler.send(200, json.dumps(completion("no")).encode()[:40], promised=400)


def cut_at_a_seam(handler: Handler) -> None:
    handler.send(200, json.dumps(completion("no")).encode(), promised=4000)


def hangs_up(handler: Handler) -> None:
    handler.close_connection = True
    handler.connection.close()


BAD: dict[str, Answer] = {
    "500": fails(500), "503 page": fails(503, "<html>busy</html>"), "cut off": cut_off, "cut after JSON": cut_at_a_seam,
    "hangs up": hangs_up, "no JSON": lambda handler: handler.send(200, b"<html>yes</html>"),
    "no text": lambda handler: handler.send(200, b"\xff\xfe"), "no choices": lambda handler: handler.send(200, b"{}"),
    "empty choices": lambda handler: handler.send(200, b'{"choices": []}'), "a list": lambda h: h.send(200, b"[1]"),
    "odd content": lambda handler: handler.send(200, json.dumps(completion(["yes"])).encode()),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_what_may_pass_is_tried_again_and_never_a_verdict(
    bad: str, server: Any, make: Callable[..., OpenAIJudge]
) -> None:
    server.script = [BAD[bad], BAD[bad], by_text]
    judge = make()
    assert judge.judge([CLEAN])[0].harmful is False
    assert len(server.seen) == 3
    assert len(judge.waits) == 2  # type: ignore[attr-defined]
    server.script = [BAD[bad]]
    with pytest.raises(InputError, match="failed 3 times, last so: ") as caught:
        judge.judge([ZAP])
    assert KEY not in str(caught.value)


def test_an_answer_that_drips_is_given_up_in_time(server: Any, make: Callable[..., OpenAIJudge]) -> None:
    def drips(handler: Handler) -> None:
        handler.send(200, b" ", promised=100)
        for _ in range(40):
            time.sleep(0.05)
            try:
                handler.wfile.write(b" ")
            except OSError:
                return

    server.script = [drips]
    started = time.monotonic()
    with pytest.raises(InputError, match="the answer came too slowly"):
        make(server_settings={"timeout": 0.3, "retries": 0}).judge([CLEAN])
    assert time.monotonic() - started < 1.9


def test_an_answer_that_does_not_come_is_given_up_in_time(server: Any, make: Callable[..., OpenAIJudge]) -> None:
    server.script = [lambda handler: time.sleep(1)]
    with pytest.raises(InputError, match="failed 1 times, last so: Time"):
        make(server_settings={"timeout": 0.2, "retries": 0}).judge([CLEAN])


@pytest.mark.parametrize(
    ("answer", "raw"),
    [
        (says("", "content_filter"), "(filtered by the provider)"),
        (says("no", "content_filter"), "(filtered by the provider) no"),
        (fails(400, '{"error": {"code": "content_filter", "message": "no"}}'), "(filtered by the provider)"),
        (
            fails(400, '{"error": {"code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}'),
            "(filtered by the provider)",
        ),
        (says("no", "length"), "(cut off) no"),
        (says(None, refusal="I cannot judge this"), "(refused to judge) I cannot judge this"),
        (says(None), ""),
        (says("safe"), "safe"),
        (says("yes. no."), "yes. no."),
        (says("ye\u017f"), "ye\u017f"),
    ],
)
def test_what_is_no_answer_is_unparsed(answer: Answer, raw: str, server: Any, make: Callable[..., OpenAIJudge]) -> None:
    server.script = [answer]
    (verdict,) = make().judge([CLEAN])
    assert (verdict.harmful, verdict.raw) == (None, raw)
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_does_not_pass_is_told_at_once_without_the_key(
    status: int, server: Any, make: Callable[..., OpenAIJudge]
) -> None:
    server.script = [fails(status, json.dumps({"error": {"message": f"Bad key {KEY}, content_filter off"}}))]
    with pytest.raises(InputError, match=f"refuses the request .*HTTP {status}") as caught:
        make().judge([CLEAN])
    assert "[key]" in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(server.seen) == 1


def test_an_empty_account_is_not_asked_again(server: Any, make: Callable[..., OpenAIJudge]) -> None:
    server.script = [fails(429, '{"error": {"code": "insufficient_quota"}}')]
    with pytest.raises(InputError, match="HTTP 429"):
        make().judge([CLEAN])
    assert len(server.seen) == 1


def test_the_key_does_not_follow_a_redirect(server: Any, make: Callable[..., OpenAIJudge]) -> None:
    server.script = [fails(302, Location=f"http://127.0.0.1:{server.server_port}/elsewhere")]
    with pytest.raises(InputError, match="points to another address"):
        make().judge([CLEAN])
    assert len(server.seen) == 1


def test_the_key_is_nowhere(server: Any, make: Callable[..., OpenAIJudge], capfd: pytest.CaptureFixture[str]) -> None:
    server.script = [says(f"no {KEY}")]
    judge = make()
    (verdict,) = judge.judge([CLEAN])
    kept = [repr(judge), repr(vars(judge)), repr(vars(judge._endpoint)), judge.identity, judge.notice, str(judge.spent)]
    assert not any(KEY in text for text in [*kept, verdict.raw, *capfd.readouterr()])
    assert verdict.raw == "no [key]"


def test_a_key_that_is_missing_or_broken_is_told_before_anything_is_sent(
    server: Any, make: Callable[..., OpenAIJudge], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = make()
    monkeypatch.setenv("OPENAI_API_KEY", "sk two")
    with pytest.raises(InputError, match="holds white space") as caught:
        judge.judge([CLEAN])
    assert "sk two" not in str(caught.value)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(InputError, match="OPENAI_API_KEY is not set"):
        _ = judge.identity
    assert server.seen == []
    free = make(server_settings={"key_variable": None})
    assert free.judge([CLEAN])[0].harmful is False
    assert server.seen[0][1] is None


def test_the_rate_limit_spaces_requests(server: Any, make: Callable[..., OpenAIJudge]) -> None:
    judge = make(server_settings={"per_minute": 1200, "parallel": 4})
    judge._endpoint._sleep = time.sleep
    judge.judge([Exchange("p", str(at)) for at in range(5)])
    times = sorted(at for *_, at in server.seen)
    assert times[-1] - times[0] >= 4 * 0.05 - 0.02


def test_a_failure_ends_the_rest_soon(server: Any, make: Callable[..., OpenAIJudge]) -> None:
    server.script = [fails(401), fails(500)]
    judge = make(server_settings={"parallel": 2, "retries": 9})
    judge._endpoint._sleep = judge._endpoint.stopped.wait
    started = time.monotonic()
    with pytest.raises(InputError):
        judge.judge([Exchange("p", str(at)) for at in range(20)])
    assert time.monotonic() - started < 5
    server.script = [by_text]
    assert judge.judge([ZAP])[0].harmful is True  # and it can be used again


def test_data_leave_only_where_that_is_said(make: Callable[..., OpenAIJudge], monkeypatch: pytest.MonkeyPatch) -> None:
    away = {"base_url": "https://judge.example/v1"}
    with pytest.raises(InputError, match=r"to judge\.example, another machine\. Set send_data: true"):
        make(server_settings=away)
    judge = make(server_settings=away, send_data=True)
    assert "judge.example (ANOTHER MACHINE)" in judge.notice
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="opens no connection"):
        judge.judge([CLEAN]) if judge.identity else None
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert "judge.example" in judge.identity


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "https://user:secret@host/v1"}, "holds a user name"),
        ({"base_url": "https://host/v1?key=secret"}, "holds a user name, a query"),
        ({"base_url": "ftp://host"}, r"is no http\(s\) address"),
        ({"base_url": "http://host/v1"}, "would send the key in plain text"),
        ({"timeout": 0}, "out of range"),
        ({"time_out": 3}, "Did you mean 'timeout'"),
    ],
)
def test_bad_servers(make: Callable[..., OpenAIJudge], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make(server_settings=settings, send_data=True)
    assert "secret" not in str(caught.value)


def test_bad_settings(make: Callable[..., OpenAIJudge]) -> None:
    with pytest.raises(InputError, match="may not hold messages, model"):
        make(parameters={"model": "x", "messages": []})
    with pytest.raises(InputError, match="give input and output"):
        make(prices={"input": 1.0})
    with pytest.raises(InputError, match="highest of openai_grade is 1"):
        make(OpenAIGradeJudge, highest=1)


def test_grades_and_the_strong_reject_format(server: Any, make: Callable[..., OpenAIJudge]) -> None:
    server.script = [says("7")]
    judge = make(OpenAIGradeJudge, highest=10, threshold=0.7)
    (verdict,) = judge.judge([CLEAN])
    assert (verdict.grade, verdict.harmful, verdict.maximal) == (pytest.approx(6 / 9), False, False)
    assert make(OpenAIGradeJudge, highest=10).identity != judge.identity
    server.script = [says("#scores\n1.b 0\n2.b 5\n3.b 5")]
    (verdict,) = make(OpenAIStrongRejectJudge).judge([CLEAN])
    assert (verdict.grade, verdict.harmful, verdict.maximal, verdict.refused) == (1.0, True, True, False)


def test_the_identity_names_all_that_is_asked(make: Callable[..., OpenAIJudge]) -> None:
    plain = make().identity
    others = [make(system="x"), make(parameters={"seed": 1}), make(OpenAIStrongRejectJudge)]
    assert plain not in {one.identity for one in others}
    assert make(server_settings={"timeout": 9, "parallel": 1, "retries": 0}).identity == plain
