"""The load tools say what happened; cached and recomputed updates are compared on the tiny model."""

import asyncio
import json
import random
from pathlib import Path

import pytest

from sigma_assets.benchmarks.serving import shadow_root
from sigma_core.benchmarks.serving_incremental import measure_incremental
from sigma_core.benchmarks.serving_load import Call, Connection, clients, malformed, slope_per_hour, steady
from tests.serving.live_world import live_day


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers /ok with a list, hangs up on /bye, and says 503 to all else."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split()[1]
            if path == b"/bye":
                break
            body = b'{"served_by":"u2i"}' if path == b"/ok" else b"{}"
            status = b"200 OK" if path == b"/ok" else b"503 No"
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    except asyncio.IncompleteReadError:
        pass
    writer.close()


def test_clients_and_steady_load_count_what_comes_back() -> None:
    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        load = await clients(port, [Call("/ok")] * 7 + [Call("/no")] * 2 + [Call("/bye")], 3)
        assert load.statuses == {"200": 7, "503": 2, "broken": 1}
        assert load.served == {"u2i": 7}
        assert load.report()["requests"] == 9
        load, memory = await steady(port, lambda _: Call("/ok"), 200, 0.2, pid=1, seed=0)
        assert 0 < load.statuses["200"] <= 41
        assert memory
        server.close()

    asyncio.run(run())


def test_a_connection_that_was_idle_is_opened_anew_before_the_server_closes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = []

    async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)
        await answer(reader, writer)

    async def run() -> None:
        server = await asyncio.start_server(counting, "127.0.0.1", 0)
        connection = Connection(server.sockets[0].getsockname()[1])
        for most, expected in ((60.0, 1), (60.0, 1), (0.0, 2)):
            monkeypatch.setattr("sigma_core.benchmarks.serving_load.IDLE_S", most)
            assert (await connection.send(Call("/ok")))[0] == 200
            assert len(opened) == expected
        connection.close()
        server.close()

    asyncio.run(run())


def test_memory_slope_by_hand() -> None:
    points = [(60.0 * n, 100 + n / 60) for n in range(40)]  # a MiB an hour
    assert slope_per_hour(points) == pytest.approx(1.0)
    assert slope_per_hour(points[:2]) is None


def test_malformed_requests_can_be_sent_and_repeat() -> None:
    calls = [malformed(random.Random(n)) for n in range(200)]
    assert calls == [malformed(random.Random(n)) for n in range(200)]
    assert len({call.path for call in calls}) > 6


def test_a_shadow_root_shares_artifacts_and_no_live_data(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "item_index").mkdir(parents=True)
    (root / "live").mkdir()
    (root / "root.json").write_text("{}")
    shadow = shadow_root(root, tmp_path / "shadow")
    assert sorted(entry.name for entry in shadow.iterdir()) == ["item_index", "root.json"]


def test_incremental_figures_of_the_tiny_model() -> None:
    found = measure_incremental(live_day(), (17,), steps=2, batch=2, repeats=1, seed=1)
    assert found["17"]["one_user"]["max_score_difference"] < 1e-4
    assert found["17"]["batch_of_2"]["new_events"] == 4
    assert {"incremental_ratio_17", "incremental_ratio_17_one_user", "incremental_p95_ms_17"} <= found.keys()
    json.dumps(found)
