"""The folders are the architecture: this test guards it."""

import checks

COMMANDS = {
    "demo": ["--out"],
    "init": [],
    "run": [
        "--address", "--corpus", "--device", "--dry-run", "--dtype", "--json", "--limit", "--model",
        "--num-fewshot", "--only", "--out", "--quiet", "--set", "--steps", "--tasks", "--verbose",
    ],
}  # fmt: skip


def test_rooms_import_only_rooms_above_them():
    assert checks.misplaced_imports() == []


def test_every_file_stands_in_a_named_room():
    assert checks.unknown_rooms() == set()


def test_importing_isoloss_loads_nothing_heavy():
    assert checks.heavy_imports() == "[]"


def test_public_names_are_few_and_resolve():
    import isoloss

    assert len(isoloss.__all__) <= 40
    assert [name for name in isoloss.__all__ if getattr(isoloss, name, None) is None] == []
