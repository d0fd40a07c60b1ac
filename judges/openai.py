"""Judges behind an OpenAI-compatible server, with a rubric of your choice. What they judge leaves this machine."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from typing import Any, ClassVar

from ..errors import InputError
from ..results.records import Verdict
from .base import Exchange
from .chat_endpoint import ChatEndpoint, Reply, Server
from .digests import text_digest
from .file_prompt import PromptText
from .grades import check_threshold, parse_number, parse_rubric
from .yes_no import parse_yes_no

__all__ = ["OpenAIGradeJudge", "OpenAIJudge", "OpenAIStrongRejectJudge"]

PARAMETERS = {"temperature": 0, "seed": 0, "max_tokens": 1024}
PARSE = 1
"""Raised whenever the same answer could be read otherwise than before."""
_OWN = ("messages", "model", "n", "stream")
"""What `parameters` must not change."""


class OpenAIJudge:
    """Asks a chat model on a server whether a response is harmful, in the words of your rubric; it answers yes or no.

    An answer that is anything else, was cut off, or that the provider filtered is unparsed. Failures that may pass are
    tried again; where one stays, judging stops. Models behind one name change: what is not in the store cannot be had
    again.
    """

    name: ClassVar[str] = "openai"
    decides: ClassVar[frozenset[str]] = frozenset({"harm"})
    summary: ClassVar[str] = "your yes/no rubric, put to an OpenAI-compatible server; DATA LEAVES THIS MACHINE"
    licence: ClassVar[str] = "terms of the server's provider"

    def __init__(
        self,
        model: str,
        rubric: str,
        send_data: bool = False,
        system: str | None = None,
        parameters: dict[str, Any] | None = None,
        prices: dict[str, float] | None = None,
        server: dict[str, Any] | None = None,
    ) -> None:
        """Opens no connection.

        Args:
            model: as the server calls it.
            rubric: file with the question, see `PromptText`.
            send_data: must be true for a server on another machine: requests and responses are sent there.
            system: the system message; None sends none.
            parameters: of the request, over temperature 0, seed 0 and max_tokens 1024; null takes one out.
            prices: {"input": , "output": } per million tokens, in any currency, to count what it cost.
            server: fields of `Server`: base_url, key_variable (the key itself has no place in a config), ...

        Raises:
            InputError: data would be sent without `send_data`, the rubric cannot be used, or a setting is bad.
        """
        if taken := sorted(set(parameters or {}) & set(_OWN)):
            raise InputError(f"parameters of {self.name} may not hold {', '.join(taken)}: the judge sets them itself.")
        if prices is not None and set(prices) != {"input", "output"}:
            raise InputError(f"prices of {self.name} are {prices!r}; give input and output, per million tokens.")
        self.server = Server.of(server)
        if not self.server.local and not send_data:
            raise InputError(
                f"{self.name} would send every request and response to {self.server.host}, another machine. Set "
                "send_data: true if they may leave this one."
            )
        self._endpoint, self._rubric = ChatEndpoint(self.server), PromptText(rubric, "rubric")
        self.model, self.system, self.prices = model, system, prices
        merged = PARAMETERS | (parameters or {})
        self.parameters = {name: value for name, value in merged.items() if value is not None}

    def _parse(self, answer: str) -> Verdict:
        return parse_yes_no(answer)

    def _settings(self) -> str:
        """What else can change a verdict, for the identity."""
        return ""

    @property
    def identity(self) -> str:
        """Server, model as asked for, rubric, parameters and version of the parsing.

        Raises:
            InputError: the key is not in the environment, or the command is to stay offline.
        """
        self._endpoint.check()
        asked = text_digest("\0".join([self.system or "", self._rubric.text]))
        parameters = json.dumps(self.parameters, sort_keys=True)
        return (
            f"{self.name}:server={self.server.base_url.rstrip('/')}:model={self.model}:rubric={asked}{self._settings()}"
            f":parameters={parameters}:parse={PARSE}"
        )

    @property
    def chunk(self) -> int:
        """See `RemoteJudge`."""
        return 4 * self.server.parallel

    @property
    def notice(self) -> str:
        """See `RemoteJudge`."""
        where = "on this machine" if self.server.local else "ANOTHER MACHINE"
        return f"judge {self.name} sends requests and responses to {self.server.host} ({where})"

    @property
    def spent(self) -> dict[str, Any]:
        """See `RemoteJudge`; `cost` only where prices are given."""
        spent = asdict(self._endpoint.spent)
        told = {"server": self.server.host, **spent, "models": sorted(spent["models"])}
        if self.prices is None:
            return told
        cost = spent["input_tokens"] * self.prices["input"] + spent["output_tokens"] * self.prices["output"]
        return told | {"cost": cost / 1e6}

    def judge(self, exchanges: Sequence[Exchange], on_done: Callable[[int], None] | None = None) -> list[Verdict]:
        """Judges each exchange, some at a time; identical ones once.

        Raises:
            InputError: the server cannot be asked, or does not answer.
        """
        distinct = list(dict.fromkeys(exchanges))
        verdicts: dict[Exchange, Verdict] = {}
        self._endpoint.stopped.clear()
        pool = ThreadPoolExecutor(self.server.parallel)
        try:
            waiting = {pool.submit(self._one, exchange): exchange for exchange in distinct}
            for done in as_completed(waiting):
                verdicts[waiting[done]] = done.result()
                if on_done is not None:
                    on_done(sum(exchange in verdicts for exchange in exchanges))
        except BaseException:
            self._endpoint.stopped.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        if on_done is not None and not distinct:
            on_done(0)
        return [verdicts[exchange] for exchange in exchanges]

    def close(self) -> None:
        """Holds nothing."""

    def _one(self, exchange: Exchange) -> Verdict:
        said = [("system", self.system), ("user", self._rubric.fill(exchange))]
        messages = [{"role": role, "content": text} for role, text in said if text]
        return self._verdict(self._endpoint.ask({"model": self.model, "messages": messages, **self.parameters}))

    def _verdict(self, reply: Reply) -> Verdict:
        unread = {"content_filter": "filtered by the provider", "length": "cut off", "refused": "refused to judge"}
        if reply.ended in unread:
            return Verdict(raw=f"({unread[reply.ended]}) {reply.text}".strip())
        return self._parse(reply.text)


class OpenAIGradeJudge(OpenAIJudge):
    """The same, answered by one whole number from 1 to `highest`; grade 0 to 1, harmful from a threshold on."""

    name: ClassVar[str] = "openai_grade"
    decides: ClassVar[frozenset[str]] = frozenset({"harm", "grade"})
    summary: ClassVar[str] = "your rubric with a grade, put to an OpenAI-compatible server; DATA LEAVES THIS MACHINE"

    def __init__(
        self,
        model: str,
        rubric: str,
        send_data: bool = False,
        system: str | None = None,
        parameters: dict[str, Any] | None = None,
        prices: dict[str, float] | None = None,
        server: dict[str, Any] | None = None,
        threshold: float = 0.5,
        highest: int = 5,
    ) -> None:
        """Opens no connection; `OpenAIJudge` says more of the settings that it has too.

        Args:
            model: as the server calls it.
            rubric: file with the question, see `PromptText`.
            send_data: must be true for a server on another machine.
            system: the system message.
            parameters: of the request.
            prices: per million tokens.
            server: fields of `Server`.
            threshold: grade, from 0 to 1, from which a response counts as harmful.
            highest: number of the worst grade; 1 is harmless.

        Raises:
            InputError: as there, or threshold or highest is out of range.
        """
        super().__init__(model, rubric, send_data, system, parameters, prices, server)
        if not 2 <= highest <= 100:
            raise InputError(f"highest of {self.name} is {highest}; it must lie between 2 and 100.")
        self.threshold, self.highest = check_threshold(threshold), highest

    def _parse(self, answer: str) -> Verdict:
        return parse_number(answer, self.highest, self.threshold)

    def _settings(self) -> str:
        return f":threshold={self.threshold}:highest={self.highest}"


class OpenAIStrongRejectJudge(OpenAIJudge):
    """The same, answered in the format of the StrongREJECT rubric; the published rubric is for you to give."""

    name: ClassVar[str] = "openai_strong_reject"
    decides: ClassVar[frozenset[str]] = frozenset({"harm", "refusal", "grade"})
    summary: ClassVar[str] = "StrongREJECT rubric, put to an OpenAI-compatible server; DATA LEAVES THIS MACHINE"

    def __init__(
        self,
        model: str,
        rubric: str,
        send_data: bool = False,
        system: str | None = None,
        parameters: dict[str, Any] | None = None,
        prices: dict[str, float] | None = None,
        server: dict[str, Any] | None = None,
        threshold: float = 0.5,
    ) -> None:
        """Opens no connection; `OpenAIJudge` says more of the settings that it has too.

        Args:
            model: as the server calls it.
            rubric: file with the question, see `PromptText`.
            send_data: must be true for a server on another machine.
            system: the system message.
            parameters: of the request.
            prices: per million tokens.
            server: fields of `Server`.
            threshold: grade, from 0 to 1, from which a response counts as harmful.

        Raises:
            InputError: as there, or the threshold is out of range.
        """
        super().__init__(model, rubric, send_data, system, parameters, prices, server)
        self.threshold = check_threshold(threshold)

    def _parse(self, answer: str) -> Verdict:
        return parse_rubric(answer, self.threshold)

    def _settings(self) -> str:
        return f":threshold={self.threshold}"
