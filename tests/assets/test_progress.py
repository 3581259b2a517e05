import io

from sigma_assets.progress import Reporter, progress_callback, show_on


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_gets_one_line_a_step() -> None:
    out = io.StringIO()
    reporter = Reporter(out)
    reporter.start("[1/1] codebooks")
    for done in range(1, 5):
        reporter.advance(done, 4, "levels")
    reporter.end("72 items")
    (line,) = out.getvalue().splitlines()
    assert line.startswith("[1/1] codebooks")
    assert line.endswith("s  72 items")


def test_a_terminal_gets_a_bar() -> None:
    out = Terminal()
    reporter = Reporter(out)
    reporter.start("step")
    reporter.advance(1, 2, "halves")
    reporter.advance(2, 2, "halves")
    assert f"[{'#' * 20}] 2/2 halves" in out.getvalue()


def test_assets_draw_on_the_terminal_or_write_to_the_runs_log() -> None:
    out, logged = Terminal(), list[str]()
    reporter = Reporter(out)
    reporter.start("step")
    show_on(reporter)
    try:
        progress_callback(logged.append)(3, 3, "steps")
    finally:
        show_on(None)
    assert "3/3 steps" in out.getvalue()
    progress_callback(logged.append)(2, 2, "users")
    assert logged == ["2/2 users"]
