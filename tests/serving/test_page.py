"""The page in headless Chromium, asking a real server with the export's own signatures."""

import os
import pathlib
import urllib.error
import urllib.request

import pytest
import tensorflow as tf

from preprocessing.tokenizer import BertTokenizer
from serving.engine.settings import ModelSettings
from serving.settings import ExportSettings
from serving.signatures import ATTENTION, EMBEDDING, FILL_MASK, NEXT_SENTENCE
from serving.signatures.base import TextEncoder
from tests.serving import served, small_model
from tests.serving.browser import Browser, chromium

SHOWN = (EMBEDDING, FILL_MASK, NEXT_SENTENCE, ATTENTION)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model with what the page shows, and one that has embeddings only."""
    base = tmp_path_factory.mktemp("page")
    tokenizer = BertTokenizer.from_vocab(str(small_model.write_vocab(base)))
    texts = TextEncoder(small_model.encoder(), tokenizer, ExportSettings())
    for name, shown in (("whole", SHOWN), ("plain", SHOWN[:1])):
        module = tf.Module()
        module.kept = texts.model.variables
        functions = {signature.name: signature.function(texts) for signature in shown}
        tf.saved_model.save(module, str(base / name / "1"), signatures=functions)
    return base


@pytest.fixture(scope="module")
def server(base):
    models = (ModelSettings("bert", str(base / "whole")), ModelSettings("plain", str(base / "plain")))
    with served.running(served.settings(base, models=models)) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    chromium()
    with Browser() as browser:
        yield browser


@pytest.fixture
def page(server, browser):
    browser.errors.clear()
    browser.requests.clear()
    browser.resize(1280, 900)
    browser.dark(False)
    browser.open(server.rest)
    yield browser
    assert browser.errors == []
    assert all(url.startswith(server.rest) for url in browser.requests)  # no outside hosts


def fill(page, **fields):
    for name, value in fields.items():
        page.evaluate(f"document.getElementById({name.replace('_', '-')!r}).value = {value!r}")


def submit(page, section, until=".answer > *"):
    page.evaluate(f"document.querySelector('#{section} form').requestSubmit()")
    page.until(f"document.querySelector('#{section} {until}')")


def texts(page, selector):
    return page.evaluate(f"[...document.querySelectorAll({selector!r})].map(found => found.textContent)")


def picture(page, name):
    """Keeps a screenshot to look at, where BERT_SCREENSHOTS names a folder."""
    if folder := os.environ.get("BERT_SCREENSHOTS"):
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(pathlib.Path(folder) / f"{name}.png")


def test_fill_mask(page):
    fill(page, fill_text="paris is the [MASK] of [MASK].")
    submit(page, "fill-mask")
    assert texts(page, "#fill-mask .answer strong") == ["[MASK] 1", "[MASK] 2"]
    assert len(texts(page, "#fill-mask .bars li")) == 20
    shares = [float(text.removesuffix(" %")) for text in texts(page, "#fill-mask .bars:nth-of-type(1) .value")]
    assert shares == sorted(shares, reverse=True)
    widths = page.evaluate(
        "[...document.querySelectorAll('#fill-mask .fill')].map(bar => bar.offsetWidth / bar.parentElement.offsetWidth)"
    )
    assert widths[0] == pytest.approx(shares[0] / 100, abs=0.02)
    fill(page, fill_text="no mask here")
    submit(page, "fill-mask", ".note")
    assert texts(page, "#fill-mask .note") == ["There is no [MASK] in the text."]


def test_next_sentence(page):
    submit(page, "next-sentence")
    shares = [float(text.removesuffix(" %")) for text in texts(page, "#next-sentence .value")]
    assert sum(shares) == pytest.approx(100, abs=0.1)


def test_nearest(page):
    fill(page, query="the river", candidates="paris france\n\n  the river  \nrun")
    submit(page, "nearest")
    names = texts(page, "#nearest .name")
    assert len(names) == 3
    assert names[0] == "the river"
    assert texts(page, "#nearest .value")[0] == "1.000"


def test_attention(page):
    first, second = "paris is the capital of france", "it lies on a river"
    fill(page, attention_text=first, attention_second=second)
    submit(page, "attention", "#lines path")
    tokens = f"[CLS] {first} [SEP] {second} [SEP]".split()
    assert texts(page, "#lines text.from") == tokens
    assert len(texts(page, "#heads button")) == 4 * 2
    before = page.evaluate("document.getElementById('lines').innerHTML")
    page.evaluate("document.querySelectorAll('#heads button')[5].click()")
    assert page.evaluate("[layer.value, head.value]") == ["2", "1"]
    assert page.evaluate("document.getElementById('lines').innerHTML") != before
    assert page.evaluate("document.querySelectorAll('#heads [aria-pressed=true]').length") == 1
    page.evaluate("document.getElementById('hide-specials').click()")
    assert texts(page, "#lines text.from") == [token for token in tokens if not token.startswith("[")]
    page.evaluate("document.querySelector('#lines text.from').dispatchEvent(new PointerEvent('pointerenter'))")
    seen = page.evaluate(
        "[...document.querySelectorAll('#lines path')].filter(l => l.style.display !== 'none').map(l => l.dataset.from)"
    )
    assert set(seen) == {"1"}


def test_light_dark_and_phone(page):
    for section in ("fill-mask", "next-sentence", "nearest"):
        submit(page, section)
    submit(page, "attention", "#lines path")
    picture(page, "light")
    grounds = [page.evaluate("getComputedStyle(document.body).backgroundColor")]
    page.dark(True)
    grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    picture(page, "dark")
    assert grounds[0] != grounds[1]
    page.resize(360, 740)
    page.until("document.getElementById('lines').viewBox.baseVal.width < 400")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360  # nothing sticks out
    picture(page, "phone")


def test_a_model_that_can_do_less(page):
    page.evaluate("model.value = 'plain'; model.dispatchEvent(new Event('change'))")
    page.until("document.getElementById('fill-mask').hidden")
    assert "cannot: fill the mask, next sentence, attention" in texts(page, "#status")[0]
    assert not page.evaluate("document.getElementById('nearest').hidden")
    submit(page, "nearest")


def test_an_error_of_the_server_is_shown(page):
    fill(page, candidates="x\n" * 2000)
    page.evaluate("document.getElementById('candidates').removeAttribute('maxlength')")
    submit(page, "nearest", ".error")
    assert "may have 1024 rows. Received: 2001" in texts(page, "#nearest .error")[0]
    page.errors[:] = [error for error in page.errors if "400" not in error]  # the browser's own note of the status


def test_plain_files(server):
    def get(path):
        with urllib.request.urlopen(server.rest + path) as response:
            return response.headers, response.read()

    headers, body = get("/")
    assert headers["content-security-policy"].startswith("default-src 'self'")
    assert b"http://" not in body
    assert get("/page/main.js")[0]["content-type"].startswith("text/javascript")
    for path in ("/page/", "/page/../server.py", "/page/%2e%2e/server.py", "/page/none.js", "/etc/passwd"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(path)
