"""The page in two languages: one dictionary, complete and without waste, and a switch."""

import re
from pathlib import Path

import pytest

from isoloss.errors import BadRequest
from isoloss.report import collect, write
from isoloss.report.languages import LANGUAGES, dictionaries
from isoloss.report.methods import method_tables
from isoloss.report.sentences import Word
from isoloss.report.trouble import trouble_tables
from isoloss.studies.findings import save
from report import found, page_words, stores

WORDS = dict(dictionaries()["zh"])
SLOT = re.compile(r"\{\w+\}")
CHINESE = re.compile(r"[\u3000-\u9fff\uff00-\uffef]")
SAME = {"p", "n", "n = {count}", "n ≥ {count}", "{n} of {all}"}
"""Entries without a Chinese letter: letters of formulas."""

UNTOLD = {"SVG", "PNG", "{}", "isoloss"}
"""Names that are the same in every language."""


def known(text: str) -> bool:
    keys = {page_words.plain(key) for key in WORDS}
    return text in keys or text in UNTOLD or page_words.in_words(text, WORDS) is not None


@pytest.mark.parametrize(
    "said", [page_words.template_words, page_words.spoken_words, page_words.opening_words]
)
def test_every_fixed_word_has_a_chinese_entry(said):
    texts = said()
    assert len(texts) > 20
    assert sorted(text for text in texts if not known(text)) == []


@pytest.mark.parametrize("build", [stores.trained, stores.proxied, stores.without_loss])
def test_every_heading_note_and_word_of_the_tables_has_a_chinese_entry(build, tmp_path):
    data = collect(build(tmp_path))
    for table in (*trouble_tables(data), *method_tables(data)):
        cells = [cell for row in table.rows for cell in row if isinstance(cell, Word)]
        for text in (table.title, *table.columns, table.note, table.empty, *cells):
            assert not page_words.has_words(text) or known(text), text
    for axis in data.axes.options:
        assert known(axis.title), axis.title


def test_no_entry_of_the_dictionary_is_unused():
    said = (page_words.template_words, page_words.spoken_words, page_words.opening_words)
    texts = [text for one in said for text in one()]
    texts += page_words.constants("report", "store", "studies/explained", "studies/forecasts")
    # its words are in English where they are written; the observer puts the others in place
    texts.append((page_words.ASSETS / "coloured.js").read_text("utf-8"))
    every = "\n".join(texts).replace("_", " ")
    unused = [
        key
        for key in WORDS
        # an entry is used where each stretch of its own words stands in a file that says it
        for part in re.split(r"\{\w+\}|: |, | \(", key)
        if page_words.has_words(part) and stem(part) not in every
    ]
    assert unused == []


def stem(part: str) -> str:
    """A stretch as files say it: counted nouns stand there in the singular."""
    text = page_words.plain(part).strip(" :.,()=≥")
    return text.removesuffix("s") if " " not in text else text


def test_an_entry_keeps_the_slots_of_its_key_and_is_chinese():
    for key, value in WORDS.items():
        assert sorted(SLOT.findall(key)) == sorted(SLOT.findall(value)), key
        assert CHINESE.search(value) or key in SAME, key


def test_a_language_that_the_page_does_not_speak_is_refused(tmp_path):
    with pytest.raises(BadRequest) as raised:
        write(stores.without_loss(tmp_path / "run"), tmp_path / "page.html", language="fr")
    assert raised.value.nearest == ", ".join(LANGUAGES)
    assert not (tmp_path / "page.html").exists()


@pytest.fixture(scope="module")
def studied(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("language")
    store = stores.trained(folder / "run")
    save(found.STUDY, store)
    save(found.HOSTILE_STUDY, store)
    write(store, folder / "en.html")
    write(store, folder / "zh.html", language="zh")
    return folder


def opened(browser, file: Path, at: str = ""):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.faults = []
    page.on("console", lambda message: page.faults.append(message.text))
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.goto(f"{file.as_uri()}{at}")
    page.wait_for_selector("#abilities .panel svg, #abilities .panel canvas", timeout=20_000)
    return page


def texts(page) -> list[str]:
    """Everything that stands beside the figures."""
    return page.evaluate(
        """() => [...document.querySelectorAll("h1, h2, h3, li, label, button, td, th, p, dt, dd")]
          .map((one) => one.textContent.trim())"""
    )


def words_left(page) -> list[str]:
    """Texts outside names that have no Chinese letter, as a reader would meet them."""
    return page.evaluate(
        """() => {
          const names = "bdi, code, pre, script, style, svg, canvas, .english, .pieces, td.value";
          const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          const left = new Set();
          for (let node = walk.nextNode(); node; node = walk.nextNode()) {
            const text = node.nodeValue.trim();
            const isSilent = node.parentElement.closest(names) || /[\\u4e00-\\u9fff]/.test(text);
            if (!isSilent && /[A-Za-z]{3}/.test(text)) left.add(text);
          }
          return [...left];
        }"""
    )


def test_the_switch_says_every_fixed_word_in_chinese_and_back_again(browser, studied):
    page = opened(browser, studied / "en.html")
    before = texts(page)
    names = page.locator("#words bdi").all_inner_texts()
    page.click("[data-language=zh]")
    assert page.evaluate("document.documentElement.lang") == "zh-Hans"
    assert "lang=zh" in page.url
    assert page.title() == "toy：能力与损失"
    assert page.locator("#words h2").inner_text() == "结论"
    # names of scores are no words of ours
    assert set(words_left(page)) <= {"SVG", "PNG", "accuracy", "exact_match"}
    # the same names stand in the sentences, in the order of the other language
    assert sorted(page.locator("#words bdi").all_inner_texts()) == sorted(names)
    assert "large@100" in page.inner_text("#words")
    page.click("[data-language=en]")
    assert texts(page) == before
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.faults == []
    page.close()


def test_a_page_written_in_chinese_starts_so_and_its_link_can_name_english(browser, studied):
    page = opened(browser, studied / "zh.html")
    assert page.evaluate("document.documentElement.lang") == "zh-Hans"
    assert page.is_visible(".translated-only")
    page.click("[data-language=en]")
    link = page.url
    assert "lang=en" in link
    page.close()
    again = opened(browser, studied / "zh.html", link[link.index("#") :])
    assert again.locator("#words h2").inner_text() == "In words"
    assert not again.is_visible(".translated-only")
    again.close()


def test_the_switch_keeps_the_view_and_what_scripts_say_later_is_chinese_too(browser, studied):
    page = opened(browser, studied / "zh.html")
    page.select_option("#x", "step")
    page.fill("#find", "no such task")
    assert page.inner_text("#found") == "0 幅图"
    page.click("[data-language=en]")
    assert page.inner_text("#found") == "0 figures"
    assert page.input_value("#x") == "step"
    assert page.input_value("#find") == "no such task"
    page.close()


def test_sentences_of_studies_stay_english_and_are_marked_so(browser, studied):
    page = opened(browser, studied / "zh.html")
    claim = page.locator('#words bdi[lang="en"]', has_text="Toys roll.")
    assert claim.count() == 1
    own = page.locator("#explained > h2 bdi")
    assert (own.inner_text(), own.get_attribute("lang")) == ("损失能解释什么", "zh-Hans")
    page.close()
