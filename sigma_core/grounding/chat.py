"""Two language models one can ask a question: an OpenAI-compatible endpoint, or a transformers model on this machine.

Holds asking and nothing of what is asked. The key comes from the environment only, goes to the configured endpoint only and
is never in a message. Source: our choice; the paper names world knowledge of LLMs as a view and no interface.
"""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from sigma_core.config import GroundingConfig
from sigma_core.pretrained import find_pretrained

KEY_VARIABLE: Final = "SIGMA_ANNOTATOR_API_KEY"
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
ATTEMPTS: Final = 3
RETRIED: Final = (408, 429, 500, 502, 503, 504)
TIMEOUT_SECONDS: Final = 60.0
_SHOWN: Final = 200  # characters of a refusal that are shown


class ChatError(RuntimeError):
    """The model did not answer; the message says what happened and what to do."""


class Chat(Protocol):
    """A model that answers a question."""

    name: str  # of the model, part of an answer's address in the cache

    def ask(self, question: str) -> str:
        """The answer's text."""


class EndpointChat:
    """`POST {url}/chat/completions` of an OpenAI-compatible server, temperature 0."""

    def __init__(
        self,
        url: str,
        model: str,
        key: str | None,
        max_tokens: int,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(url)
        is_local = parts.hostname in LOOPBACK
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ChatError(f"grounding.annotator_url={url!r} is no http(s) address.")
        if parts.username or parts.password:
            raise ChatError(
                f"grounding.annotator_url holds a password; put the key into {KEY_VARIABLE} instead."
            )
        if not is_local and parts.scheme != "https":
            raise ChatError(f"grounding.annotator_url={url!r} would send the key unencrypted; use https.")
        if not is_local and not key:
            raise ChatError(
                f"the annotator needs a key for {parts.hostname}: set {KEY_VARIABLE} in the environment."
            )
        if not model:
            raise ChatError(
                "grounding.annotator_model is empty; name the model that the endpoint should run."
            )
        key = (key or "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ChatError(f"{KEY_VARIABLE} holds characters that no key has; set it to the key alone.")
        self.name, self._url, self._key = model, url.rstrip("/"), key
        self._max_tokens, self._wait = max_tokens, wait

    def ask(self, question: str) -> str:
        """The first choice's text; busy or failing servers are asked again after 1 and 2 seconds.

        Raises:
            ChatError: refused, unreachable after three attempts, or an answer of another shape.
        """
        import httpx

        body = {
            "model": self.name, "temperature": 0, "max_tokens": self._max_tokens,
            "messages": [{"role": "user", "content": question}],
        }  # fmt: skip
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        problem = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                self._wait(float(attempt))
            try:
                reply = httpx.post(
                    f"{self._url}/chat/completions", json=body, headers=headers, timeout=TIMEOUT_SECONDS
                )
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            said = " ".join((reply.text.replace(self._key, "***") if self._key else reply.text).split())[
                :_SHOWN
            ]
            if reply.status_code == httpx.codes.OK:
                return _text_of(reply, said)
            problem = f"status {reply.status_code}: {said}"
            if reply.status_code not in RETRIED:
                break
        raise ChatError(
            f"the annotator at {self._url} did not answer ({problem}). Answers so far are cached: run the same command again, "
            "or set grounding.annotator=off."
        )


class LocalChat:
    """A transformers decoder on this machine, greedy, with its chat template where it has one."""

    def __init__(self, model: str, max_tokens: int) -> None:
        if not model:
            raise ChatError(
                "grounding.annotator_model is empty; name a transformers folder or a cached Hub id."
            )
        found = find_pretrained(model)
        self.name = f"{model} {found.digest()}"
        self._tokenizer, self._model = found.load_chat()
        self._max_tokens = max_tokens

    def ask(self, question: str) -> str:
        """The continuation of the question, at most `max_tokens` tokens; control tokens that a catalog's text spells are left out."""
        import torch

        tokenizer = self._tokenizer
        for token in tokenizer.all_special_tokens:
            question = question.replace(token, " ")
        if tokenizer.chat_template:
            question = tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
            )
        ids = tokenizer(question, return_tensors="pt", add_special_tokens=not tokenizer.chat_template)
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], do_sample=False,
                max_new_tokens=self._max_tokens, pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id or 0,
            )  # fmt: skip
        answer: str = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        return answer


def open_chat(config: GroundingConfig, environment: Mapping[str, str] = os.environ) -> Chat | None:
    """The chat model of the settings; none where the annotator is off.

    Raises:
        ChatError: a setting or the key is missing.
        PretrainedError: the local model is not on this machine.
    """
    if config.annotator == "off":
        return None
    if config.annotator == "local":
        return LocalChat(config.annotator_model, config.annotator_max_tokens)
    return EndpointChat(
        config.annotator_url,
        config.annotator_model,
        environment.get(KEY_VARIABLE),
        config.annotator_max_tokens,
    )


def _text_of(reply: Any, said: str) -> str:
    try:
        text = reply.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ChatError(
            f"the annotator's answer is not that of a chat completion: {said!r}. Check grounding.annotator_url."
        ) from error
    return text if isinstance(text, str) else ""
