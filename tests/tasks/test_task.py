import dataclasses

import pytest

from isoloss.tasks.task import Document, Generation, Task, hash_documents, option


def choices(*texts, gold=(0,), doc="0", context="Sky is"):
    options = tuple(option(context, text, delimiter=" ") for text in texts)
    return Document(doc=doc, options=options, gold=gold)


@pytest.mark.parametrize(
    ("context", "answer", "delimiter", "chars", "size"),
    [
        ("The cat", "sat", " ", 3, 4),  # " sat"
        ("The cat ", "sat", "", 3, 4),  # the context's space is scored with it
        ("Find:\n", "sat", " ", 3, 5),  # "\n sat"
        ("Himmel:", "grün", " ", 4, 6),  # ü takes two bytes
        ("", "sat", "", 3, 3),
    ],
)
def test_bytes_count_what_is_scored_and_chars_what_is_answered(
    context, answer, delimiter, chars, size
):
    got = option(context, answer, delimiter=delimiter)
    assert (got.chars, got.bytes) == (chars, size)
    assert got.continuation == delimiter + answer


def test_a_document_knows_its_kind():
    assert choices("blue", "red").kind == "options"
    assert choices("blue").kind == "continuation"
    contexts = tuple(option(c, "ran.", delimiter=" ") for c in ("Ann", "Bob"))
    assert Document(doc="0", options=contexts, gold=(1,)).kind == "contexts"
    asked = Generation(context="Who?", until=("\n",), max_tokens=4)
    assert Document(doc="0", generation=asked).kind == "generate"


def test_the_hash_changes_with_everything_asked_and_with_the_order():
    base = [choices("blue", "red"), choices("cold", "warm")]
    changed = [
        [choices("blue", "green"), base[1]],
        [choices("blue", "red", gold=(1,)), base[1]],
        [choices("blue", "red", context="Sea is"), base[1]],
        [dataclasses.replace(base[0], subject="colour"), base[1]],
        [dataclasses.replace(base[0], answers=("blue",)), base[1]],
        [
            dataclasses.replace(base[0], generation=Generation(context="", until=(), max_tokens=1)),
            base[1],
        ],
        base[::-1],
        base[:1],
    ]
    hashes = [hash_documents(documents) for documents in [base, *changed]]
    assert len(set(hashes)) == len(hashes)


def test_the_hash_does_not_depend_on_names_or_on_a_native_scorer():
    def task(documents, native=None):
        return Task(
            name="t",
            form="cloze",
            num_fewshot=0,
            version="1",
            documents=tuple(documents),
            native=native,
        )

    plain = task([choices("blue", "red")])
    renamed = task([choices("blue", "red", doc="7")])
    assert plain.docs_hash == renamed.docs_hash
    assert task([choices("blue", "red")], native=object()) == plain
    assert plain.settings["docs_hash"] == plain.docs_hash
    assert plain.settings["docs_n"] == 1
