"""The playground: what is served at `/`, that it needs nothing from elsewhere, and (marked ui) the page in a real browser."""

import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from sigma_core.serving.http.app import create_app
from sigma_core.serving.http.pages import FOLDER, KINDS
from sigma_core.serving.http.security import KeyRing
from tests.serving.live_world import holder
from tests.serving.running import running
from tests.serving.test_http import EASY, KEY, LOCAL


def text(name: str) -> str:
    return (FOLDER / name).read_text()


def test_the_page_and_its_parts_need_no_key_but_a_policy() -> None:
    with TestClient(create_app(holder(), EASY, KeyRing((KEY,))), base_url=LOCAL) as client:
        for path in ("/", *(f"/playground/{name}" for name in KINDS)):
            answer = client.get(path)
            assert answer.status_code == 200, path
            assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert client.get("/playground/..%2fapp.py").status_code == 404
        assert client.get("/playground/other.js").status_code == 404


def test_it_loads_nothing_from_elsewhere_and_has_no_inline_code() -> None:
    for name in KINDS:
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text(name)), name
    page = text("index.html")
    assert not re.search(r"\son\w+=|style=|<script(?![^>]*src=)", page)


def test_the_script_names_only_what_the_page_has() -> None:
    ids = set(re.findall(r'id="([\w-]+)"', text("index.html")))
    for name in ("playground.js", "compare.js"):
        assert set(re.findall(r'\$\("([\w-]+)"\)', text(name))) <= ids
    assert set(re.findall(r'<label[^>]* for="([\w-]+)"', text("index.html"))) <= ids


CONTRAST = """(where) => {
  const pixel = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    pixel.clearRect(0, 0, 1, 1); pixel.fillStyle = colour; pixel.fillRect(0, 0, 1, 1);
    return pixel.getImageData(0, 0, 1, 1).data;
  };
  const light = (colour) => {
    const [r, g, b] = [...rgba(colour)].slice(0, 3).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let ground = document.querySelector(where);
  const ink = light(getComputedStyle(ground).color);
  while (rgba(getComputedStyle(ground).backgroundColor)[3] < 255) ground = ground.parentElement;
  const paper = light(getComputedStyle(ground).backgroundColor);
  return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
}"""


# ------------------------------------------------------------------------------------------ browser
@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    with running(create_app(holder(), EASY, KeyRing())) as address, api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        opened = browser.new_page(viewport={"width": 1400, "height": 900})
        opened.errors = []
        opened.on("pageerror", lambda error: opened.errors.append(str(error)))
        opened.goto(address)
        opened.wait_for_selector("#items li")
        yield opened
        assert opened.errors == []
        browser.close()


@pytest.mark.ui
def test_the_main_path_a_wish_gives_a_list_and_its_three_steps(page: Any) -> None:
    assert page.input_value("#user") == "u0"
    page.fill("#words", "soda")
    page.click("text=Search")
    page.wait_for_selector("#said:has-text('soda')")
    assert page.locator("#items li").count() > 3
    assert page.locator("#beams button").count() >= 2
    assert page.locator("#inside div").count() >= 1
    assert page.locator("#mosaic rect").count() > 3
    assert "the model" in page.inner_text("#served")


@pytest.mark.ui
def test_free_words_say_what_they_were_taken_for(page: Any) -> None:
    page.click("#tasks >> text=In your words")
    page.fill("#words", "blah blah")
    page.click("text=Recommend")
    page.wait_for_selector("#taken:has-text('% sure')")
    page.click("#tasks >> text=For you")
    page.wait_for_selector("#taken", state="hidden")


@pytest.mark.ui
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_stand_out_from_their_ground_in_both_themes(page: Any, theme: str) -> None:
    """WCAG AA: a contrast of 4.5 or more."""
    while page.evaluate("document.documentElement.dataset.theme") != theme:
        page.click("#theme")
    for where in (
        "#items .name",
        "#items .detail",
        "#served",
        "#tasks [aria-checked=true]",
        ".figure span",
        "#profile .chip",
    ):
        assert page.evaluate(CONTRAST, where) >= 4.5, where


@pytest.mark.ui
def test_what_they_buy_is_asked_again_only_where_events_are_taken(page: Any) -> None:
    assert page.locator("#items .buy").count() == 0, "this server stays with one day"


@pytest.mark.ui
def test_two_lists_stand_side_by_side(page: Any) -> None:
    page.click("#pin")
    page.click("#tasks >> text=For you")
    page.wait_for_selector("#pinned-figures:has-text('in both')")
    assert page.locator("#pinned-items li").count() > 3
    assert page.evaluate("document.documentElement.scrollWidth") <= 1400
    page.click("#pin")
    assert not page.is_visible("#pinned")


@pytest.mark.ui
def test_an_error_says_what_to_do_and_an_empty_list_why(page: Any) -> None:
    page.fill("#words", "shoes")
    page.click("#tasks >> text=Category")
    page.wait_for_selector("#status.error")
    assert "no category 'shoes'" in page.inner_text("#status")
    page.fill("#words", "")
    page.click("#tasks >> text=For you")
    page.wait_for_selector("#items li")
    page.click("#more summary")
    page.check("#only_new")
    page.select_option("#price_bands", "budget")
    page.wait_for_selector("#status:has-text('Loosen')")
    page.click("#nobody")
    page.wait_for_selector("text=nobody we know")


@pytest.mark.ui
def test_it_works_by_keyboard_and_fits_a_phone(page: Any) -> None:
    page.click("#reset")
    page.focus("#tasks [aria-checked=true]")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#tasks [aria-checked=true][data-task=query]")
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.ui
def test_no_list_stands_under_a_wish_it_does_not_answer(page: Any) -> None:
    page.fill("#words", "")
    page.click("text=Search")
    page.wait_for_selector("#status:has-text('Type what')")
    assert page.locator("#items li").count() == 0
    assert page.inner_text("#served") == ""
    page.fill("#words", "soda")
    page.keyboard.press("Enter")
    page.wait_for_selector("#items li")
    assert page.locator("#items .tag.up, #items .tag.down").count() == 0, (
        "there is no list before of this wish"
    )
    assert "items, first" in page.text_content("#heard"), "what a screen reader hears"


@pytest.mark.ui
def test_a_server_that_stopped_is_said_to_have_stopped(page: Any) -> None:
    page.context.set_offline(True)
    page.click("#tasks >> text=For you")
    page.wait_for_selector("#status.error:has-text('sigma serve')")
    assert page.locator("#items li").count() == 0


@pytest.mark.ui
def test_tabs_follow_the_arrow_keys_and_fields_show_where_the_focus_is(page: Any) -> None:
    page.focus("#tab-recent")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-favorites"
    assert page.get_attribute("#tab-favorites", "aria-selected") == "true"
    page.focus("#user")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_an_answer_that_a_newer_wish_overtakes_is_dropped() -> None:
    """Reading its body ends with an AbortError, which must stay one; other bodies that are no JSON are errors, not answers."""
    script = text("playground.js")
    assert script.count('if (error.name === "AbortError") throw error;') == 2
    assert "if (mine !== running) return;" in script
    assert "if (mine !== known) return;" in script
