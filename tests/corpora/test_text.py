"""Texts are read as documents with their bytes untouched, or refused with the place named."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoloss.corpora.text import corpus_of, documents_in, read_corpus
from isoloss.errors import BadData, BadRequest
from shared_data import SHARED, needs_shared

LINES = st.text(st.characters(codec="utf-8", exclude_characters="\n\r")).filter(str.strip)


@given(st.lists(LINES, min_size=1))
def test_lines_come_back_as_they_were_written(lines):
    assert documents_in("\n".join(lines), "line") == lines
    assert documents_in("\r\n".join(lines) + "\r\n", "line") == lines


@given(st.lists(LINES, min_size=1), st.integers(1, 3))
def test_paragraphs_come_back_whatever_the_blank_lines(lines, blanks):
    gap = "\n" + " \t\n" * blanks
    assert documents_in(gap + gap.join(lines) + gap, "blank-line") == lines


def test_the_file_rule_keeps_every_byte(tmp_path):
    data = "a\r\n\n  b\u2028é 🦞\n".encode()
    (tmp_path / "x.txt").write_bytes(data)
    corpus = read_corpus(tmp_path / "x.txt")
    assert corpus.documents[0].encode() == data
    assert corpus.bytes == (len(data),)
    assert corpus.name == "x"


def test_documents_of_white_space_are_dropped_and_counted(tmp_path):
    (tmp_path / "x.txt").write_text("\none\r\n--\n \n-- two--\n")
    corpus = read_corpus(tmp_path / "x.txt", document="separator:--")
    assert corpus.documents == ("one", " two")
    assert corpus.empty_documents == 2


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("b")
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "sub" / "a.md").write_text("c")
    (tmp_path / "z.jsonl").write_text('{"text": "d"}\n')
    (tmp_path / "LICENSE").write_text("no text of ours")
    assert read_corpus(tmp_path).documents == ("a", "b", "c", "d")


def test_jsonl_gives_a_document_a_row_and_the_hash_of_its_texts(tmp_path):
    rows = [{"body": "x y"}, {"body": ""}, {"body": "é\n\nz"}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    corpus = read_corpus(tmp_path / "x.jsonl", text_key="body")
    assert corpus.documents == ("x y", "é\n\nz")
    assert corpus.bytes == (3, 5)
    assert corpus.text_hash == corpus_of(["x y", "é\n\nz"], name="other").text_hash


def test_the_hash_knows_boundaries():
    one = corpus_of(["ab", "c"], name="x").text_hash
    assert one != corpus_of(["a", "bc"], name="x").text_hash
    assert one != corpus_of(["c", "ab"], name="x").text_hash


def test_a_local_dataset_is_read_by_name_and_split(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"text": "t"}\n')
    (folder / "test.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    name = f"datasets:{folder}"
    assert read_corpus(f"{name}:test").documents == ("a", "b")
    assert read_corpus(f"{name}::test[:1]").documents == ("a",)
    with pytest.raises(BadData, match="several splits") as error:
        read_corpus(name)
    assert error.value.nearest == "train, test"
    with pytest.raises(BadData, match="no column 'body'"):
        read_corpus(f"{name}:test", text_key="body")


@pytest.mark.parametrize("name", ["datasets:nobody/nothing", "nobody/nothing"])
def test_a_dataset_that_cannot_be_loaded_offline_is_an_error_naming_it(name):
    with pytest.raises(BadData, match="the dataset nobody/nothing cannot be loaded"):
        read_corpus(name)


def test_invalid_utf8_names_file_and_byte(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"abc\xffdef")
    with pytest.raises(BadData, match=r"x\.txt is not valid UTF-8 at byte 3") as error:
        read_corpus(tmp_path / "x.txt")
    assert "iconv" in error.value.remedy


@pytest.mark.parametrize("content", ["", " \n\n"])
def test_an_empty_corpus_is_an_error(tmp_path, content):
    (tmp_path / "x.txt").write_text(content)
    with pytest.raises(BadData, match="holds no text"):
        read_corpus(tmp_path / "x.txt", document="line")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"txt": "b"}', "no key 'text'"),
        ('{"text": 3}', "is no text"),
        ('{"text": ', "not valid JSON"),
        ('["text"]', "no key 'text'"),
    ],
)
def test_a_jsonl_row_without_text_is_named_by_its_line(tmp_path, line, what):
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n\n' + line + "\n")
    with pytest.raises(BadData, match=what) as error:
        read_corpus(tmp_path / "x.jsonl")
    assert "line 3" in error.value.asked


def test_half_a_surrogate_pair_is_refused_not_replaced(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "a\\ud800b"}\n')
    with pytest.raises(BadData, match="not valid Unicode"):
        read_corpus(tmp_path / "x.jsonl")


def test_a_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "valid.txt").write_text("a")
    with pytest.raises(BadData) as error:
        read_corpus(tmp_path / "vaild.txt")
    assert error.value.nearest == "valid.txt"


def test_a_folder_without_texts_names_what_it_holds(tmp_path):
    (tmp_path / "x.bin").write_text("a")
    with pytest.raises(BadData, match="holds no text file") as error:
        read_corpus(tmp_path)
    assert error.value.nearest == "x.bin"


@pytest.mark.parametrize("rule", ["blankline", "separator:", "paragraph"])
def test_an_unknown_rule_names_the_known_ones(tmp_path, rule):
    with pytest.raises(BadRequest, match="no such rule") as error:
        read_corpus(tmp_path / "never read", document=rule)
    assert "blank-line" in str(error.value)


@needs_shared
def test_wikitext_splits_into_headings_and_paragraphs():
    corpus = read_corpus(SHARED / "text/wikitext-2/valid.txt", document="blank-line")
    assert corpus.documents[0] == " = Homarus gammarus = "
    lines = (SHARED / "text/wikitext-2/valid.txt").read_text().split("\n")
    # documents are runs of lines that are not blank: nothing but line ends and blanks is lost
    assert "".join(corpus.documents).replace("\n", "") == "".join(x for x in lines if x.strip())
