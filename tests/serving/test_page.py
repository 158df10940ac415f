"""The page in headless Chromium, asking a real server with the export's own signatures."""

import os
import pathlib
import urllib.error
import urllib.request

import pytest
import tensorflow as tf

from model.encoder.heads import CLASSIFIER
from model.settings import ClassificationSettings
from preprocessing.tokenizer import BertTokenizer
from serving.engine.settings import ModelSettings
from serving.settings import ExportSettings
from serving.signatures import ANSWER, ATTENTION, EMBEDDING, FILL_MASK, NEXT_SENTENCE, TAG, TOKENIZE
from serving.signatures.base import TextEncoder
from serving.signatures.classification import CLASSIFY, CLASSIFY_LABELS, CLASSIFY_PAIR, SCORE_PAIR
from tests.serving import served, small_model
from tests.serving.browser import Browser, chromium

SHOWN = (EMBEDDING, FILL_MASK, NEXT_SENTENCE, ATTENTION, TOKENIZE)
LABELS = ("bad", "good", "so")


@pytest.fixture(scope="module")
def encoders():
    """By signature, of a pretrained model and of tuned ones."""
    tokenizer = BertTokenizer(small_model.VOCAB)
    small, one = small_model.encoder(), small_model.encoder((CLASSIFIER.with_labels(1),))

    def made(encoder, task=None):
        return TextEncoder(encoder, tokenizer, ExportSettings(), task)

    labels = made(small, ClassificationSettings(LABELS, "multi-label", thresholds=(0.2, 0.5, 0.99)))
    number = made(one, ClassificationSettings(("score",), "regression", mean=2.0))
    classes, plain = made(small, ClassificationSettings(LABELS)), made(small)
    found = [(signature, plain) for signature in SHOWN]
    found += [(signature, classes) for signature in (CLASSIFY, CLASSIFY_PAIR, ANSWER)]
    found += [(CLASSIFY_LABELS, labels), (SCORE_PAIR, number), (TAG, made(small_model.tagger(), small_model.TAGGING))]
    return {signature.name: (signature, encoder) for signature, encoder in found}


@pytest.fixture(scope="module")
def base(tmp_path_factory, encoders):
    """A model with what the page shows of a pretrained one, one that has embeddings only, one for every task, and one
    whose answers to some tasks bear a name."""
    base = tmp_path_factory.mktemp("page")
    shown = [signature.name for signature in SHOWN]
    named = {"classify": "classify", "about_score_pair": "score_pair", "about_tag": "tag"}
    alike = {"whole": shown, "plain": shown[:1], "tasks": encoders.keys() - shown}
    for name, those in {**{name: {one: one for one in those} for name, those in alike.items()}, "named": named}.items():
        module = tf.Module()
        module.kept = [encoders[one][1].model.variables for one in those.values()]
        functions = {called: encoders[one][0].function(encoders[one][1]) for called, one in those.items()}
        tf.saved_model.save(module, str(base / name / "1"), signatures=functions)
    return base


@pytest.fixture(scope="module")
def expected(encoders):
    """What the Python path answers to one row: (signature, input=text) -> outputs of that row."""

    def of(name, **inputs):
        signature, encoder = encoders[name]
        outputs = signature.answered(encoder, {input: [text] for input, text in inputs.items()})
        return {output: value.numpy()[0] for output, value in outputs.items()}

    return of


@pytest.fixture(scope="module")
def server(base):
    names = {"bert": "whole", "plain": "plain", "tasks": "tasks", "named": "named"}
    models = tuple(ModelSettings(name, str(base / folder)) for name, folder in names.items())
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


@pytest.fixture
def tasks(page):
    """The page of the model for every task."""
    choose(page, "tasks", "!document.getElementById('classify').hidden")
    return page


def choose(page, model, until):
    page.evaluate(f"model.value = {model!r}; model.dispatchEvent(new Event('change'))")
    page.until(until)


def shares_of(page, section):
    return [float(text.removesuffix(" %")) / 100 for text in texts(page, f"#{section} .value")]


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


def test_tokenize(page):
    fill(page, tokenize_text="Runnings 🙂 here")
    submit(page, "tokenize")
    assert texts(page, "#tokenize .pieces span") == ["[CLS]", "run", "##ning", "##s", "[UNK]", "here", "[SEP]"]
    assert texts(page, "#tokenize .pieces small") == [
        str(small_model.VOCAB.index(token)) for token in texts(page, "#tokenize .pieces span")
    ]
    assert texts(page, "#tokenize .unknown span") == ["[UNK]"]
    assert texts(page, "#tokenize .goes-on span") == ["##ning", "##s"]
    assert texts(page, "#tokenize .note") == ["5 pieces between [CLS] and [SEP], 1 of them [UNK]."]


def test_classes_of_a_text_and_of_a_pair(tasks, expected):
    first, second = "paris is the capital", "it lies on a river"
    for entered, signature, inputs in (
        ("", "classify", {"text": first}),
        (second, "classify_pair", {"first": first, "second": second}),
    ):
        fill(tasks, classify_text=first, classify_second=entered)
        submit(tasks, "classify")
        tasks.until("!document.querySelector('#classify button').disabled")
        answer = expected(signature, **inputs)
        shares = dict(zip(answer["labels"].tolist(), answer["probabilities"].tolist(), strict=True))
        ranked = sorted(shares, key=shares.get, reverse=True)
        assert texts(tasks, "#classify .name") == [label.decode() for label in ranked]
        assert shares_of(tasks, "classify") == pytest.approx([shares[label] for label in ranked], abs=6e-4)
        assert texts(tasks, "#classify .said .name") == [answer["label"].decode()]


def test_labels_over_their_thresholds(tasks, expected):
    fill(tasks, classify_labels_text="the river run")
    submit(tasks, "classify-labels")
    said = [label.decode() for label in expected("classify_labels", text="the river run")["labels"] if label]
    assert {text.removeprefix("✓ ") for text in texts(tasks, "#classify-labels .said .name")} == set(said)
    names = [text.removeprefix("✓ ") for text in texts(tasks, "#classify-labels .name")]
    assert sorted(names) == sorted(LABELS)
    lines = tasks.evaluate("[...document.querySelectorAll('#classify-labels .from')].map(line => line.style.left)")
    found = {name: float(line.removesuffix("%")) for name, line in zip(names, lines, strict=True)}
    assert found == pytest.approx({"bad": 20, "good": 50, "so": 99})
    assert tasks.evaluate("document.querySelector('#classify-labels .second').hidden")


def test_a_score_of_a_pair(tasks, expected):
    assert tasks.evaluate("document.getElementById('score-second').required")
    fill(tasks, score_text="paris", score_second="the capital of france")
    submit(tasks, "score")
    score = expected("score_pair", first="paris", second="the capital of france")["score"]
    assert float(texts(tasks, "#score .number")[0]) == pytest.approx(score, abs=1e-3)


def test_tags_and_entities_in_the_text(tasks, expected):
    text = "🙂 Paris, the 東京 of France: runnings here. It lies on a river!"
    fill(tasks, tag_text=text)
    submit(tasks, "tag")
    answer = expected("tag", text=text)
    count, entities = answer["word_count"], answer["entity_count"]
    assert entities > 1
    of_marks = "[...document.querySelectorAll('#tag .answer > .marked mark')].map(mark => mark.firstChild.textContent)"
    assert tasks.evaluate(of_marks) == [entity.decode() for entity in answer["entities"][:entities]]
    types = [kind.decode() for kind in answer["entity_types"][:entities]]
    assert texts(tasks, "#tag .answer > .marked small") == types
    of_words = "[...document.querySelectorAll('#tag .stacked mark')].map(mark => mark.firstChild.textContent)"
    tags = zip(answer["words"][:count], answer["tags"][:count], strict=True)
    assert tasks.evaluate(of_words) == [word.decode() for word, tag in tags if tag != b"O"]
    without_labels = (
        "(() => { const p = document.querySelector('#tag .marked').cloneNode(true);"
        "p.querySelectorAll('small').forEach(small => { small.previousSibling.remove(); small.remove() });"
        "return p.textContent })()"
    )
    assert tasks.evaluate(without_labels) == text
    hues = tasks.evaluate(
        "[...document.querySelectorAll('#tag .answer > .marked mark')].map(mark => mark.style.cssText)"
    )
    assert len(set(zip(types, hues, strict=True))) == len(set(types))  # a colour for each
    fill(tasks, tag_text="  ")
    submit(tasks, "tag", ".note")
    assert texts(tasks, "#tag .note") == ["There is no word in the text."]


def test_an_answer_in_its_context(tasks, expected):
    asked = {"question": "the capital?", "context": "🙂 Paris is the capital of France. It lies on a river."}
    fill(tasks, **asked)
    submit(tasks, "answer")
    answer = expected("answer", **asked)
    assert texts(tasks, "#answer .number") == [answer["answer"].decode()]
    assert texts(tasks, "#answer mark") == [answer["answer"].decode()]
    assert texts(tasks, "#answer .marked") == [asked["context"]]
    assert texts(tasks, "#answer button.track .name") == [text.decode() for text in answer["answers"]]
    assert shares_of(tasks, "answer") == pytest.approx(answer["scores"].tolist(), abs=6e-4)
    tasks.evaluate("document.querySelectorAll('#answer button.track')[2].click()")
    assert texts(tasks, "#answer mark") == [answer["answers"][2].decode()]
    pressed = "[...document.querySelectorAll('#answer [aria-pressed]')].map(button => button.ariaPressed)"
    assert [place for place, on in enumerate(tasks.evaluate(pressed)) if on == "true"] == [2]
    assert f"{abs(answer['no_answer']):.2f} nats" in texts(tasks, "#answer .note")[0]


def test_what_is_not_a_models_task_is_not_shown(page):
    for section in ("classify", "classify-labels", "score", "tag", "answer"):
        assert page.evaluate(f"document.getElementById({section!r}).hidden")
    assert texts(page, "#status") == ["Version 1"]


def test_of_several_models_in_an_export_one_is_asked(page, expected):
    def shown():
        return {
            one for one in ("classify", "score", "tag") if not page.evaluate(f"document.getElementById('{one}').hidden")
        }

    assert page.evaluate("task.closest('label').hidden")
    choose(page, "named", "!document.getElementById('classify').hidden")
    assert texts(page, "#task option") == ["(without a name)", "about"]
    assert shown() == {"classify"}
    page.evaluate("task.value = 'about'; task.dispatchEvent(new Event('change'))")
    assert shown() == {"score", "tag"}
    test_a_score_of_a_pair(page, expected)
    test_tags_and_entities_in_the_text(page, expected)
    picture(page, "named")


def test_whatever_is_entered_or_pressed_has_a_name(tasks):
    for section in ("classify", "classify-labels", "score", "tag", "answer"):
        submit(tasks, section)
    picture(tasks, "tasks")
    nameless = (
        "[...document.querySelectorAll('textarea, input, select')].filter(one => !one.labels.length)"
        ".concat([...document.querySelectorAll('button')].filter(one => !one.textContent && !one.ariaLabel))"
        ".map(one => one.id)"
    )
    assert tasks.evaluate(nameless) == []
    tasks.resize(360, 740)
    assert tasks.evaluate("document.documentElement.scrollWidth") <= 360
    picture(tasks, "tasks-phone")


def test_light_dark_and_phone(page):
    for section in ("fill-mask", "next-sentence", "nearest", "tokenize"):
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
    choose(page, "plain", "document.getElementById('fill-mask').hidden")
    assert "cannot: fill the mask, next sentence, tokenize, attention" in texts(page, "#status")[0]
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
