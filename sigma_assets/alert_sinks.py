"""Where alerts go: the log, a webhook that understands Slack's payload, e-mail by SMTP. Chosen by the environment alone.

    SIGMA_ALERT_SINKS         any of log, webhook, email, with commas [default: log]
    SIGMA_ALERT_WEBHOOK_URL   https://hooks.slack.com/... or anything that takes the same JSON
    SIGMA_ALERT_SMTP_HOST, _PORT [25], _USER, _PASSWORD, _STARTTLS [1 where a user is given]
    SIGMA_ALERT_FROM, SIGMA_ALERT_TO (with commas)

Every attempt ends after `TIMEOUT_SECONDS` (a mail of several steps after four times that), whatever the other side does. Our choice.
"""

import http.client
import json
import logging
import os
import smtplib
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any, Final

from sigma_assets.alerts import Alert, DeliveryError, Sink

TIMEOUT_SECONDS: Final = 5.0
_HEADER_CHARS: Final = 150  # Slack refuses longer headers
_TEXT_CHARS: Final = 2900  # ... and sections over 3,000
_REASON_CHARS: Final = 300
_NOT_NOW: Final = {408, 425, 429}
_SETUP: Final = {401, 403, 404, 405, 407, 410}  # about the address or who asks, so about every alert
_REDIRECTED: Final = 3  # 3xx
_MAIL_STEPS: Final = 4  # greeting, encryption, login, the message
_TOO_LARGE: Final = 552


class AlertConfigError(ValueError):
    """The environment names a sink that does not exist or lacks what a sink needs."""


@dataclass(frozen=True)
class LogSink:
    """Python's logging, logger `sigma.alerts`."""

    name: str = "log"

    def send(self, alert: Alert) -> None:
        """Log the alert as one record."""
        level = logging.ERROR if alert.severity == "ERROR" else logging.WARNING
        logging.getLogger("sigma.alerts").log(level, "%s", alert.text())


@dataclass(frozen=True)
class WebhookSink:
    """HTTP POST of Slack's payload. `timeout` is in seconds."""

    url: str = field(repr=False)  # it is a secret: whoever has it may post
    timeout: float = TIMEOUT_SECONDS
    name: str = "webhook"

    def send(self, alert: Alert) -> None:
        """Post; anything but a 2xx answer within the timeout is a `DeliveryError`, and so is an address that is none.

        Redirections are not followed: what would be asked there is a GET without the alert, and its answer no receipt.
        """
        body = json.dumps(slack_payload(alert)).encode()
        try:
            request = urllib.request.Request(  # noqa: S310 the scheme was checked by sinks_of
                self.url, data=body, headers={"Content-Type": "application/json"}, method="POST"
            )
            _within(self.timeout, lambda: self._post(request))
        except urllib.error.HTTPError as error:
            is_setup = error.code in _SETUP or error.code // 100 == _REDIRECTED
            is_final = 400 <= error.code < 500 and not is_setup and error.code not in _NOT_NOW
            moved = "; it has moved: give SIGMA_ALERT_WEBHOOK_URL its new address"
            what = f"the webhook answered {error.code}{moved if error.code // 100 == _REDIRECTED else ''}"
            raise DeliveryError(what, is_final=is_final, is_setup=is_setup) from error
        except (ValueError, http.client.InvalidURL) as error:  # its text may hold the secret
            what = f"SIGMA_ALERT_WEBHOOK_URL is no address that can be asked ({type(error).__name__})"
            raise DeliveryError(what, is_setup=True) from None
        except (OSError, http.client.HTTPException) as error:  # refused, timed out, no HTTP
            raise DeliveryError(f"the webhook was not reached: {_reason(error)}") from error

    def _post(self, request: urllib.request.Request) -> None:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=self.timeout) as answer:
            answer.read(1000)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None  # the 3xx answer is then an HTTPError


def _within(seconds: float, call: Callable[[], None]) -> None:
    """Wait at most so long for `call`, which may go on alone: a socket's own timeout begins anew with every byte, and never for DNS.

    Raises:
        TimeoutError: it had not ended; otherwise what `call` raised.
    """
    outcome: list[BaseException | None] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 raised again by whoever waits
            outcome.append(error)
        else:
            outcome.append(None)

    thread = threading.Thread(target=run, name="alert", daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError
    if outcome[0] is not None:
        raise outcome[0]


@dataclass(frozen=True)
class EmailSink:
    """One message an alert by SMTP. `timeout` is in seconds."""

    host: str
    port: int
    sender: str
    to: tuple[str, ...]
    user: str = ""
    password: str = field(default="", repr=False)
    starttls: bool = False
    timeout: float = TIMEOUT_SECONDS
    name: str = "email"

    def send(self, alert: Alert) -> None:
        """Send; whatever the server refuses, the timeout ends or no address can be is a `DeliveryError`."""
        try:
            message = self._message(alert)
            _within(_MAIL_STEPS * self.timeout, lambda: self._mail(message))
        except smtplib.SMTPAuthenticationError as error:
            raise DeliveryError(
                f"{self.host} refused the login ({error.smtp_code})", is_setup=True
            ) from error
        except ValueError as error:  # a line feed in an address, a host name that cannot be one
            what = f"host, sender, receivers or login of the mail cannot be right: {_reason(error)}"
            raise DeliveryError(what, is_setup=True) from error
        except (OSError, smtplib.SMTPException) as error:
            code = getattr(error, "smtp_code", 0)
            is_final = code == _TOO_LARGE or (isinstance(error, smtplib.SMTPDataError) and code >= 500)
            what = f"{self.host}:{self.port} did not take the mail: {_reason(error)}"
            raise DeliveryError(what, is_final=is_final) from error

    def _mail(self, message: EmailMessage) -> None:
        with smtplib.SMTP(self.host, self.port, timeout=self.timeout) as server:
            if self.starttls:
                server.starttls(context=ssl.create_default_context())
            if self.user:
                server.login(self.user, self.password)
            server.send_message(message)

    def _message(self, alert: Alert) -> EmailMessage:
        message = EmailMessage()
        message["Subject"] = " ".join(_plain(f"[sigma] {alert.headline()}").split())[:200]
        message["From"], message["To"] = self.sender, ", ".join(self.to)
        message["Message-ID"] = f"<{alert.id}@sigma>"  # a second copy is recognized as the same
        message.set_content(_plain(alert.text()))
        return message


def sinks_of(environment: Mapping[str, str] = os.environ) -> list[Sink]:
    """The sinks that the environment names.

    Raises:
        AlertConfigError: an unknown sink, or a needed variable is missing; the message names it.
    """
    names = [name.strip() for name in environment.get("SIGMA_ALERT_SINKS", "log").split(",") if name.strip()]
    makers: dict[str, Callable[[Mapping[str, str]], Sink]] = {
        "log": lambda _: LogSink(),
        "webhook": _webhook,
        "email": _email,
    }
    if unknown := [name for name in names if name not in makers]:
        raise AlertConfigError(
            f"SIGMA_ALERT_SINKS names {', '.join(unknown)}; there are {', '.join(makers)}."
        )
    return [makers[name](environment) for name in names]


def slack_payload(alert: Alert) -> dict[str, Any]:
    """The alert as Slack's incoming webhooks take it; `text` is what clients without blocks show."""
    lines = [alert.what, *(f"- `{example}`" for example in alert.examples)]
    lines += [f"*To do:* {alert.to_do}"] if alert.to_do else []
    lines += [f"*Owner:* {alert.owner}"] if alert.owner else []
    lines += [f"<{alert.link}|the run>"] if alert.link else []
    return {
        "text": alert.headline(),
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": alert.headline()[:_HEADER_CHARS]}},
            {"type": "section", "text": {"type": "mrkdwn", "text": "\n".join(lines)[:_TEXT_CHARS]}},
        ],
    }


def _webhook(environment: Mapping[str, str]) -> WebhookSink:
    url = _needed(environment, "SIGMA_ALERT_WEBHOOK_URL", "webhook")
    if not url.startswith(("https://", "http://")):
        raise AlertConfigError("SIGMA_ALERT_WEBHOOK_URL must begin with https:// or http://.")
    return WebhookSink(url)


def _email(environment: Mapping[str, str]) -> EmailSink:
    user = environment.get("SIGMA_ALERT_SMTP_USER", "")
    port = environment.get("SIGMA_ALERT_SMTP_PORT", "25")
    if not port.isdigit():
        raise AlertConfigError(f"SIGMA_ALERT_SMTP_PORT must be a number, arrived {port!r}.")
    to = tuple(
        one.strip() for one in _needed(environment, "SIGMA_ALERT_TO", "email").split(",") if one.strip()
    )
    return EmailSink(
        host=_needed(environment, "SIGMA_ALERT_SMTP_HOST", "email"),
        port=int(port),
        sender=_needed(environment, "SIGMA_ALERT_FROM", "email"),
        to=to,
        user=user,
        password=environment.get("SIGMA_ALERT_SMTP_PASSWORD", ""),
        starttls=environment.get("SIGMA_ALERT_SMTP_STARTTLS", "1" if user else "0") == "1",
    )


def _needed(environment: Mapping[str, str], name: str, sink: str) -> str:
    if not (value := environment.get(name, "")):
        raise AlertConfigError(f"SIGMA_ALERT_SINKS names {sink}, which needs {name}.")
    return value


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, TimeoutError | socket.timeout):
        return f"no answer within {TIMEOUT_SECONDS:.0f} s"
    return " ".join(str(reason).split())[:_REASON_CHARS] or type(reason).__name__


def _plain(text: str) -> str:
    """The text without what no mail can hold (lone surrogates)."""
    return text.encode("utf-8", "replace").decode("utf-8")
