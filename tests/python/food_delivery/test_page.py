"""The page in a real browser: order, and see the message arrive."""

import base64
import re
import urllib.request

import pytest
from chromium import Browser


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    with Browser() as started:
        yield started


def test_customer_orders_and_sees_the_message(site, browser, tmp_path):
    host, port = site.address
    browser.open(f"http://{host}:{port}/")
    browser.wait_for_text("#state", "connected: ")
    browser.find("#dish").fill("Okonomiyaki")
    browser.find("#address").fill("12 Long Lane")
    browser.find("#order button").click()
    text = browser.wait_for_text("#messages li", "will be delivered")
    message = re.fullmatch(r"Order #(\d+) will be delivered in (\d+) minutes\.", text)
    (tmp_path / "page.png").write_bytes(base64.b64decode(browser.screenshot()))
    assert message and int(message[2]) == 15 + int(message[1]) % 30


def test_page_shows_a_refused_order(site, browser, kitchen):
    host, port = site.address
    browser.open(f"http://{host}:{port}/")
    browser.wait_for_text("#state", "connected: ")
    kitchen.fault("busy")
    try:
        browser.find("#order button").click()
        browser.wait_for_text("#messages li.error", "not taken (502)")
    finally:
        kitchen.fault("none")


def test_page_needs_nothing_from_elsewhere(site):
    host, port = site.address
    with urllib.request.urlopen(f"http://{host}:{port}/", timeout=10) as answer:
        page = answer.read().decode()
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", page)
    assert "Food delivery" in page
