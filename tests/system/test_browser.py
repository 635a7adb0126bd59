"""report.html in a real browser: headless Chromium, driven by Selenium."""

import base64
import json
import os
import shutil
from urllib.parse import urlsplit

import pytest
from made_up_runs import broken, completed, finish, make_variants, write_run

from trialrun.report import build_report

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SCRIPT = "<script>alert(1)</script>"
LONG = "model.args.a_long_name_of_an_argument_that_nobody_would_want_to_type_twice"
VARIANTS = make_variants(
    [
        {"training.learning_rate": rate, "model.args.units": units, LONG: text}
        for rate in (1e-5, 3e-4, 2e-3)
        for units, text in (([16, 32], SCRIPT), ([128], "x" * 300))
    ]
)
NUM_ROWS = len(VARIANTS)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="no chromium or no chromedriver: scripts/setup_debian chromium chromium-driver",
    ),
]


def result_of(variant, seed):
    if variant.variant_id == "v01":
        return broken(variant, seed, error="Traceback:\n" + "  a line\n" * 99 + "ValueError: no")
    metrics = {f"val_metric_{number}": number + seed / 7 for number in range(30)}
    return completed(variant, seed, **metrics)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = write_run(
        tmp_path_factory.mktemp("runs"),
        VARIANTS,
        range(3),
        result_of=result_of,
        class_names=(SCRIPT, "had_side_effects"),
    )
    build_report(finish(folder))
    return folder.report_file


@pytest.fixture(scope="module")
def chromium():
    """A browser that keeps a log of its console and of what it asks for."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = CHROMIUM
    # Containers have little shared memory, and no GPU.
    for argument in ("--headless=new", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # root has none
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Both paths are given: nothing is looked for, and nothing downloaded.
    browser = Chrome(options=options, service=Service(executable_path=DRIVER))
    yield browser
    browser.quit()


@pytest.fixture
def page(chromium, report):
    """The page as it opens, light and 1280 px wide."""
    emulate(chromium, width=1280, theme="light")
    chromium.get(report.as_uri())
    yield chromium
    assert chromium.get_log("browser") == []  # no error, no violation of the policy


def emulate(browser, *, width, theme, media="screen"):
    device = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def find(page, selector):
    return page.find_element("css selector", selector)


def find_all(page, selector):
    return page.find_elements("css selector", selector)


def shown_rows(page):
    return [row.text for row in find_all(page, "tbody th[scope=row]") if row.is_displayed()]


# In one call, because the texts of a column one by one take a second.
COLUMN = """
const names = [...document.querySelectorAll("th[data-name]")].map(head => head.dataset.name);
const place = names.indexOf(arguments[0]) + 1;
const cells = document.querySelectorAll(`table[data-sortable] tbody > tr > :nth-child(${place})`);
return [...cells].map(cell => cell.innerText.trim());
"""


def column(page, name):
    """The texts of a column from top to bottom, by its full name."""
    return page.execute_script(COLUMN, name)


def head(page, name):
    return find(page, f"th[data-name='{name}'] button")


def press(page, *keys):
    from selenium.webdriver import ActionChains

    ActionChains(page).send_keys(*keys).perform()


def focused(page):
    return page.switch_to.active_element


# Sorting --------------------------------------------------------------------------------------


def test_a_click_on_a_head_sorts_numbers_as_numbers_and_a_second_one_turns_them(page):
    rates = [1e-5, 1e-5, 3e-4, 3e-4, 2e-3, 2e-3]
    head(page, "learning_rate").click()
    assert list(map(float, column(page, "learning_rate"))) == rates
    assert find(page, "th[data-name=learning_rate]").get_attribute("aria-sort") == "ascending"
    head(page, "learning_rate").click()
    assert list(map(float, column(page, "learning_rate"))) == rates[::-1]
    sorted_heads = find_all(page, "table[data-sortable] th[aria-sort]")
    assert [one.get_attribute("aria-sort") for one in sorted_heads] == ["descending"]
    assert find(page, "[role=status]").text == "Sorted by learning_rate, descending."


def test_what_is_not_known_comes_last_in_both_orders(page):
    for _ in range(2):
        head(page, "val_loss").click()
        assert column(page, "val_loss")[-1] == "n/a"
    assert column(page, "variant")[-1] == "v01"


def test_the_page_opens_in_the_order_of_the_ranks_and_comes_back_to_it(page):
    before = column(page, "variant")
    assert column(page, "#") == [str(place) for place in range(1, NUM_ROWS + 1)]
    assert find(page, "th[data-name='#']").get_attribute("aria-sort") == "ascending"
    head(page, "variant").click()
    assert column(page, "variant") == sorted(before)
    head(page, "#").click()
    assert column(page, "variant") == before


# By keyboard ----------------------------------------------------------------------------------


def test_the_keyboard_alone_sorts_and_shows_where_it_is(page):
    from selenium.webdriver.common.keys import Keys

    page.execute_script("arguments[0].focus()", head(page, "#"))
    press(page, Keys.TAB)
    assert focused(page) == head(page, "variant")
    style = "return getComputedStyle(arguments[0]).outlineStyle"
    assert page.execute_script(style, focused(page)) == "solid"
    press(page, Keys.ENTER)
    assert column(page, "variant") == sorted(column(page, "variant"))
    press(page, Keys.SPACE)
    assert column(page, "variant") == sorted(column(page, "variant"), reverse=True)


def test_the_first_stop_of_the_keyboard_skips_to_the_result(page):
    from selenium.webdriver.common.keys import Keys

    press(page, Keys.TAB)
    assert focused(page).text == "Skip to the result"
    assert focused(page).is_displayed()
    press(page, Keys.ENTER)
    assert focused(page).get_attribute("id") == "main"


def test_a_box_is_a_stop_of_the_keyboard_only_while_it_scrolls(page):
    table = find(page, "section[aria-labelledby=leaderboard] .scroll")
    figure = find(page, "figure .scroll")
    assert table.get_attribute("tabindex") == "0"  # 38 columns
    assert figure.get_attribute("tabindex") is None
    emulate(page, width=360, theme="light")
    waiting = "const [box, done] = arguments; (function look() {"
    waiting += " box.tabIndex === 0 ? done() : requestAnimationFrame(look) })()"
    page.execute_async_script(waiting, figure)


# Filtering ------------------------------------------------------------------------------------


FILTERS = {
    "v02": ["v02"],
    "ALERT(1)": ["v00", "v02", "v04"],
    "alert [128]": [],
    "learning_rate<0.001 units=[128]": ["v03", "v01"],
    "learning_rate>=3e-4 alert": ["v04", "v02"],
    "variant=v05": ["v05"],
    "val_loss>0": ["v00", "v02", "v03", "v04", "v05"],
    "nothing<3": [],
}


def test_words_and_conditions_filter_the_rows(page):
    for text, rows in FILTERS.items():
        find(page, "input[type=search]").send_keys(text)
        assert sorted(shown_rows(page)) == sorted(rows), text
        assert find(page, "[role=status]").text == f"{len(rows)} of {NUM_ROWS} rows."
        find(page, ".filters button").click()
        assert len(shown_rows(page)) == NUM_ROWS


def test_a_parameter_is_chosen_from_its_values(page):
    choice = find(page, "select[data-column='3']")
    options = choice.find_elements("css selector", "option")
    assert [option.text for option in options] == ["any", "[16, 32]", "[128]"]
    options[1].click()
    assert sorted(shown_rows(page)) == ["v00", "v02", "v04"]
    head(page, "learning_rate").click()  # sorting keeps the filter
    assert shown_rows(page) == ["v00", "v02", "v04"]


def test_without_scripts_the_leaderboard_is_a_plain_table(chromium, report):
    emulate(chromium, width=1280, theme="light")
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    chromium.get(report.as_uri())
    assert len(find_all(chromium, "tbody th[scope=row]")) == NUM_ROWS
    assert not find(chromium, ".filters").is_displayed()
    assert not find_all(chromium, "th button")
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


# Nothing from outside, nothing by others ------------------------------------------------------


def test_the_page_asks_no_network_for_anything(page):
    page.get_log("performance")  # of pages before
    page.refresh()
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    urls = [
        urlsplit(event["params"]["request"]["url"])
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert {url.scheme for url in urls} == {"file", "data"}
    assert sum(url.scheme == "file" for url in urls) == 1  # the page itself
    assert sum(url.scheme == "data" for url in urls) == len(find_all(page, "img"))


def test_every_image_is_drawn_and_told_in_words(page):
    images = find_all(page, "img")
    assert images
    for image in images:
        assert int(image.get_attribute("naturalWidth")) > 100
        assert image.get_attribute("alt")


def test_a_script_in_a_name_is_text_and_never_runs(page):
    from selenium.common.exceptions import NoAlertPresentException

    assert SCRIPT in find(page, "tbody").text
    assert len(find_all(page, "script")) == 1
    with pytest.raises(NoAlertPresentException):
        page.switch_to.alert.dismiss()


def test_the_policy_stops_a_script_that_somebody_puts_in(chromium, report, tmp_path):
    page = report.read_text().replace("</main>", "<script>document.title = 'in'</script></main>")
    (tmp_path / "changed.html").write_text(page)
    chromium.get((tmp_path / "changed.html").as_uri())
    assert chromium.title == "medical_trial · trialrun"
    (entry,) = chromium.get_log("browser")
    assert "Content Security Policy" in entry["message"]


# Everywhere -----------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_never_scrolls_sideways(page, width):
    emulate(page, width=width, theme="light")
    for details in find_all(page, "summary"):
        page.execute_script("arguments[0].parentElement.open = true", details)
    edge = "const root = document.documentElement; return [root.scrollWidth, root.clientWidth]"
    scrolled, seen = page.execute_script(edge)
    assert scrolled == seen <= width
    box = find(page, "section[aria-labelledby=leaderboard] .scroll")
    assert page.execute_script("return arguments[0].scrollWidth", box) > width  # the table does


def test_the_dark_page_is_dark(page):
    colors = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    light = page.execute_script(colors)
    emulate(page, width=1280, theme="dark")
    dark = page.execute_script(colors)
    assert light == ["rgb(255, 255, 255)", "rgb(28, 36, 48)"]
    assert dark == ["rgb(20, 24, 30)", "rgb(228, 232, 238)"]


def test_the_page_prints_light_and_without_its_controls(page):
    emulate(page, width=1280, theme="dark", media="print")
    background = "return getComputedStyle(document.body).backgroundColor"
    assert page.execute_script(background) == "rgb(255, 255, 255)"
    assert not find(page, ".filters").is_displayed()
    assert not find(page, "nav").is_displayed()
    printed = page.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    assert base64.b64decode(printed).startswith(b"%PDF-")
    assert 3 <= base64.b64decode(printed).count(b"/Type /Page\n") <= 10
