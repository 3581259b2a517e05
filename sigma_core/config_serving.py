"""The sections of what answers requests: prepared lists, the HTTP API, live events. Frozen, unknown keys refused. No I/O."""

from pydantic import Field, field_validator

from sigma_core.config_sections import Section


class ServingConfig(Section):
    """User-to-item index."""

    u2i_top_n: int = Field(50, ge=1, description="items of a precomputed list")
    u2i_tasks: tuple[str, ...] = Field(
        ("just_for_you",), min_length=1, description="tasks that get precomputed lists"
    )
    batch_users: int = Field(32, ge=1, description="users answered at a time")

    @field_validator("u2i_tasks")
    @classmethod
    def _general(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        from sigma_core.instruction.tasks import check_general  # the table of tasks costs time

        check_general(tasks)
        return tasks


class HttpConfig(Section):
    """`sigma serve`. It changes no artifact, so it is no part of a root's digest."""

    max_batch: int = Field(16, ge=1, le=256, description="concurrent requests answered by one forward pass")
    batch_wait_ms: float = Field(4.0, ge=0, description="how long a lone request waits for company")
    max_queue: int = Field(256, ge=1, description="requests waiting from arrival on; more fall back at once")
    deadline_ms: int = Field(
        2000, ge=1, description="budget of a request; past it the answer comes from U2I, then popularity"
    )
    route_confidence: float = Field(
        0.6,
        ge=0,
        le=1,
        description="how sure the encoder must be of a task for free words (API and `sigma recommend`); below it just_for_you",
    )
    max_body_bytes: int = Field(262_144, ge=1024, description="larger bodies are refused (413)")
    max_in_flight: int = Field(1024, ge=1, description="requests being answered at once; more get a 429")
    body_timeout_s: float = Field(10.0, gt=0, description="a body slower than this is refused (408)")
    rate_per_minute: int = Field(60_000, ge=1, description="requests a key may make a minute (429 beyond)")
    rate_burst: int = Field(2000, ge=1, description="requests a key may make at once")
    cors_origins: tuple[str, ...] = Field(
        (), description="web origins that may call the API; none by default"
    )
    refresh_seconds: float = Field(
        2.0, gt=0, description="how often users with events of other processes are looked for"
    )
    reload_seconds: float = Field(
        5.0, gt=0, description="how often the root is looked at for a newer published day"
    )


class NearlineConfig(Section):
    """`sigma nearline`, and the same work inside `sigma serve`. It changes no artifact."""

    batch_events: int = Field(2000, ge=1, description="events committed at once")
    batch_users: int = Field(32, ge=1, description="users refreshed by one forward pass")
    poll_seconds: float = Field(1.0, gt=0, description="how often new events are looked for")
    session_events: int = Field(
        32, ge=1, description="events appended to a prompt before it is rebuilt with them in its history"
    )
    session_mib: float = Field(
        256.0, ge=0, description="memory for users' cached KV states, MiB; 0: every prompt is read whole"
    )
    spill_mib: float = Field(
        1024.0, ge=0, description="disk for cached KV states that left memory, MiB; 0: they are dropped"
    )
