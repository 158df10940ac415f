"""A run's report in headless Chromium, from its file."""

import pathlib

from tests.serving.browser import Browser, chromium

_LOADED = "location.protocol === 'file:' && document.readyState === 'complete'"


def sections(report: pathlib.Path) -> list[str]:
    """The titles of a report's sections, each of which is seen; all its pictures are, it complains of nothing, asks
    nothing of any network, and is as wide as its window. Skips the test where there is no browser."""
    chromium()
    with Browser() as browser:
        browser.open(report.as_uri(), _LOADED)
        titles = browser.evaluate("[...document.querySelectorAll('section > h2')].map(found => found.textContent)")
        for width in (1280, 480):
            browser.resize(width, 900)
            wide = "[...document.querySelectorAll('body, main, section, figure')]"
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
            assert browser.evaluate(f"Math.max(...{wide}.map(found => found.getBoundingClientRect().right))") <= width
            assert browser.evaluate("[...document.querySelectorAll('section')].every(found => found.clientHeight > 40)")
        assert browser.evaluate("[...document.images].every(found => found.complete && found.naturalWidth > 0)")
        assert browser.evaluate("[...document.querySelectorAll('svg')].every(found => found.clientWidth > 0)")
        pictures = browser.evaluate("document.images.length + document.querySelectorAll('figure > svg').length")
        assert pictures == len({"Confusion", "Curves", "Lineage"} & set(titles))
        assert browser.errors == []
        assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data"}
    return titles
