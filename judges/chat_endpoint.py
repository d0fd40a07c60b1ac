"""Asking an OpenAI-compatible server for chat completions, with urllib: retries, rate limit, deadlines, what it cost.

The key is read from the environment for each request and kept nowhere; wherever a server repeats it, it is blotted out.
"""

import contextlib
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from ..errors import InputError
from ..registry import suggest

__all__ = ["ChatEndpoint", "Reply", "Server", "Spent"]

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
FILTERED = frozenset({"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"})
"""Error codes of servers that refuse to read a text."""
LARGEST = 8 << 20
"""Bytes of an answer, at most."""
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Reply:
    """What the server answered to one request."""

    text: str
    ended: str
    """As the server says: "stop", "length" (cut off), "content_filter"; "refused" where the model will not answer."""


@dataclass
class Spent:
    """What this process has sent and used so far."""

    requests: int = 0
    """Sent, repeated ones included."""
    repeated: int = 0
    answered: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    without_usage: int = 0
    """Answers that do not say how many tokens they took: the token counts are then too low."""
    models: set[str] = field(default_factory=set)
    """Names that the server gave its model, with their fingerprints."""


class _Transient(Exception):
    """A failure that may pass."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait
        """Seconds that the server asks to wait."""


class _NoRedirect(HTTPRedirectHandler):
    """The key must not follow a redirect to another host."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Follows none."""


@dataclass(frozen=True)
class Server:
    """Where an OpenAI-compatible server is, and how it is asked. Holds no secret."""

    base_url: str = "https://api.openai.com/v1"
    """With the version, without `/chat/completions`."""
    key_variable: str | None = "OPENAI_API_KEY"
    """Environment variable that holds the key; None sends none."""
    timeout: float = 60.0
    """Seconds for one request, its answer included."""
    retries: int = 5
    """How often a request is repeated after a failure that may pass."""
    longest_wait: float = 60.0
    """Seconds between two tries, at most, whatever the server asks for."""
    per_minute: float | None = None
    """Requests, at most."""
    parallel: int = 4
    """Requests at a time."""

    @classmethod
    def of(cls, settings: Mapping[str, Any] | None) -> "Server":
        """From a config.

        Raises:
            InputError: unknown setting, or one out of range; or the address is none, holds a password or a query, or
                would send the key in plain text.
        """
        known = [one.name for one in fields(cls)]
        for name in settings or {}:
            if name not in known:
                raise InputError(f"server has no setting '{name}'. {suggest(name, known)}")
        server = cls(**settings or {})
        numbers = [server.timeout, server.longest_wait, server.parallel, server.per_minute or 1]
        if not all(isinstance(one, int | float) and one > 0 for one in numbers) or server.retries < 0:
            raise InputError(f"server settings are out of range, all but retries must be above 0: {server}.")
        server._check_address()
        return server

    def _check_address(self) -> None:
        parts = urlsplit(self.base_url)
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise InputError(
                "base_url holds a user name, a query or a fragment, which would be stored with the run. Give the bare "
                "address; the key comes from the environment (key_variable)."
            )
        if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", self.base_url):
            raise InputError(f"base_url '{self.base_url}' is no http(s) address, such as http://localhost:8000/v1.")
        if parts.scheme == "http" and self.key_variable and not self.local:
            raise InputError(
                f"base_url '{self.base_url}' would send the key in plain text. Use https, or key_variable: null for a "
                "server that needs none."
            )

    @property
    def host(self) -> str:
        """Host, and port where one is given."""
        return urlsplit(self.base_url).netloc

    @property
    def local(self) -> bool:
        """Whether it is on this machine."""
        return urlsplit(self.base_url).hostname in _LOCAL


class ChatEndpoint:
    """Asks a server.

    Args:
        server: which one, and how.
        sleep: waits so many seconds; by default until `stopped` is set at the latest.
    """

    def __init__(self, server: Server, sleep: Callable[[float], object] | None = None) -> None:
        self.server, self.spent = server, Spent()
        self.stopped = threading.Event()
        """Set it, and requests that wait give up."""
        self._sleep = sleep or self.stopped.wait
        self._lock, self._next = threading.Lock(), 0.0

    def check(self) -> None:
        """Whether the server may be asked at all; opens no connection.

        Raises:
            InputError: the key is not in the environment, or the command was told to stay offline.
        """
        self._key()
        if not self.server.local and os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            raise InputError(
                f"{self.server.host} is on another machine, and --offline (HF_HUB_OFFLINE) opens no connection."
            )

    def ask(self, body: Mapping[str, Any]) -> Reply:
        """One chat completion. Safe to call from several threads.

        Args:
            body: of the request.

        Raises:
            InputError: the server cannot be reached, refuses the request, or still fails after all retries.
        """
        data = json.dumps(body).encode()
        for attempt in range(self.server.retries + 1):
            self._take_turn(repeated=attempt > 0)
            if self.stopped.is_set():
                raise InputError("Judging was stopped.")
            try:
                return self._reply(self._send(data))
            except _Transient as error:
                failure = error
            if attempt < self.server.retries:
                self._postpone(failure, attempt)
        raise InputError(
            f"{self.server.host} failed {self.server.retries + 1} times, last so: {failure}. Run again to go on: what "
            "is in the store is not asked again."
        )

    def _key(self) -> str | None:
        if self.server.key_variable is None:
            return None
        key = os.environ.get(self.server.key_variable, "").strip()
        if not key:
            raise InputError(
                f"The environment variable {self.server.key_variable} is not set: put the key of {self.server.host} "
                "there, or set key_variable: null for a server that needs none."
            )
        if not re.fullmatch(r"[!-~]+", key):  # else http.client would show it in its own error
            raise InputError(f"The key in {self.server.key_variable} holds white space or letters that no key has.")
        return key

    def _take_turn(self, repeated: bool) -> None:
        """Waits until the rate limit and the server's own wishes allow a request."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + (60 / self.server.per_minute if self.server.per_minute else 0.0)
            self.spent.requests += 1
            self.spent.repeated += repeated
        if start > now:
            self._sleep(start - now)

    def _postpone(self, failure: _Transient, attempt: int) -> None:
        """All threads wait if the server says how long; else this one, longer each time."""
        if failure.wait is None:
            self._sleep(min(self.server.longest_wait, 2.0**attempt * random.uniform(0.5, 1.0)))
            return
        with self._lock:
            self._next = max(self._next, time.monotonic() + min(failure.wait, self.server.longest_wait))

    def _send(self, data: bytes) -> Any:
        """The server's JSON answer.

        Raises:
            _Transient: a failure that may pass.
            InputError: one that does not, or the server filtered the request.
        """
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "safebasin"}
        request = Request(f"{self.server.base_url.rstrip('/')}/chat/completions", data, headers)
        key = self._key()
        if key:
            request.add_unredirected_header("Authorization", f"Bearer {key}")
        ends = time.monotonic() + self.server.timeout
        try:
            with self._opener().open(request, timeout=self.server.timeout) as answer:
                return json.loads(_read(answer, ends))
        except HTTPError as error:
            with error:
                return self._refused(error, ends)
        except (TimeoutError, HTTPException, URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise _Transient(self._blot(f"{type(reason).__name__}: {reason}")) from None
        except ValueError:
            raise _Transient("its answer is not JSON") from None

    def _opener(self) -> OpenerDirector:
        return build_opener(_NoRedirect, *([ProxyHandler({})] if self.server.local else []))

    def _refused(self, error: HTTPError, ends: float) -> Any:
        """What stands in the place of an answer where the server filtered the request.

        Raises:
            _Transient: a failure that may pass.
            InputError: one that does not.
        """
        told = ""
        with contextlib.suppress(OSError, HTTPException):  # the status says enough
            told = _read(error, ends).decode("utf-8", "replace")
        codes = _codes(told)
        if error.code == 400 and codes & FILTERED:
            return {"choices": [{"finish_reason": "content_filter", "message": {"content": ""}}]}
        what = f"HTTP {error.code} {' '.join(self._blot(told).split())[:300]}".strip()
        if error.code in RETRIED and "insufficient_quota" not in codes:
            raise _Transient(what, _retry_after(error.headers.get("Retry-After"))) from None
        moved = 300 <= error.code < 400
        hint = "it points to another address; give that as base_url" if moved else "check key, model and parameters"
        raise InputError(f"{self.server.host} refuses the request ({hint}): {what}") from None

    def _reply(self, answer: Any) -> Reply:
        """Reads a chat completion, and counts it.

        Raises:
            _Transient: it is none.
        """
        try:
            choice = answer["choices"][0]
            message, ended = choice["message"], str(choice.get("finish_reason"))
            text, refusal = message.get("content"), message.get("refusal")
        except (TypeError, KeyError, IndexError, AttributeError):
            raise _Transient("its answer is no chat completion") from None
        if not isinstance(text, str | None):
            raise _Transient("its answer holds no text")
        self._count(answer)
        return Reply(self._blot(text or str(refusal or "")), "refused" if refusal and not text else ended)

    def _count(self, answer: Mapping[str, Any]) -> None:
        usage = answer.get("usage")
        used = usage if isinstance(usage, Mapping) else {}
        tokens = [used.get(name) for name in ("prompt_tokens", "completion_tokens")]
        name = " ".join(str(answer[part]) for part in ("model", "system_fingerprint") if answer.get(part))
        with self._lock:
            self.spent.answered += 1
            self.spent.without_usage += not all(isinstance(one, int) for one in tokens)
            self.spent.input_tokens += tokens[0] if isinstance(tokens[0], int) else 0
            self.spent.output_tokens += tokens[1] if isinstance(tokens[1], int) else 0
            if name:
                self.spent.models.add(self._blot(name))

    def _blot(self, text: str) -> str:
        """The text without the key, should a server repeat it."""
        key = os.environ.get(self.server.key_variable, "").strip() if self.server.key_variable else ""
        return text.replace(key, "[key]") if key else text


def _read(answer: Any, ends: float) -> bytes:
    """The body, whole and in time.

    Raises:
        TimeoutError: it is not there in time, however slowly it comes.
        HTTPException: it was cut off, or is too large.
    """
    parts: list[bytes] = []
    while part := answer.read1(1 << 16):
        parts.append(part)
        if time.monotonic() > ends:
            raise TimeoutError("the answer came too slowly")
        if sum(map(len, parts)) > LARGEST:
            raise HTTPException(f"the answer is larger than {LARGEST} bytes")
    body, promised = b"".join(parts), answer.headers.get("Content-Length")
    if promised and promised.isdigit() and len(body) < int(promised):
        raise HTTPException(f"the answer was cut off after {len(body)} of {promised} bytes")
    return body


def _codes(told: str) -> set[str]:
    """The codes in the body of an error: of OpenAI's form, and Azure's with one inside."""
    try:
        error = json.loads(told)["error"]
        inner = error.get("innererror") or {}
        return {str(code) for code in (error.get("code"), error.get("type"), inner.get("code")) if code}
    except (ValueError, TypeError, KeyError, AttributeError):
        return set()


def _retry_after(given: str | None) -> float | None:
    """Seconds to wait, from a number or a date; None where the server says nothing that can be read."""
    if given is None:
        return None
    if re.fullmatch(r"\s*[0-9]{1,9}(\.[0-9]*)?\s*", given):
        return float(given)
    try:
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
