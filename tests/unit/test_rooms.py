"""The package is a house of rooms. Imports go downward only, and some rooms keep certain things out."""

import ast
import re
from pathlib import Path

import pytest

import saltext_selfheal

HOUSE = Path(next(iter(saltext_selfheal.__path__)))
#: Room → rooms that it may import. What stands in none is Salt's loader: it may import them all.
BELOW = {
    "healing": set(),
    "driver": set(),
    "app": {"driver"},
    "witness": {"driver"},
    "control": {"driver", "witness"},
    "config": {"healing", "driver"},
    "ledger": {"healing", "driver"},
    "probe": {"healing", "driver", "config"},
    "doors": {"healing", "driver", "config"},
    "loop": {"healing", "driver", "config", "ledger", "probe", "doors"},
    "console": {"healing", "driver", "config", "ledger", "doors", "loop"},
    "doctor": {"healing", "driver", "config", "ledger", "probe", "doors", "loop", "console"},
}
LOADED = {"engines", "modules", "runners", "states", "reactor", "formula"}
#: What a room must do without, as the first word of a module's name.
WITHOUT = {
    "healing": {
        "salt", "pydantic", "rethinkdb", "sqlite3", "time", "random", "threading", "asyncio", "socket", "os", "pathlib",
        "logging", "uuid", "datetime", "queue",
    },
    "driver": {"salt", "pydantic", "sqlite3"},
    "app": {"salt", "pydantic", "sqlite3"},
    "witness": {"salt", "pydantic", "sqlite3", "rethinkdb", "psutil"},
    "control": {"salt", "pydantic", "sqlite3", "rethinkdb", "psutil"},
    "ledger": {"salt", "rethinkdb"},
    "probe": {"salt", "sqlite3"},
    "doors": {"salt", "sqlite3", "rethinkdb"},
    "config": {"salt", "sqlite3", "rethinkdb"},
    "console": {"salt", "sqlite3", "rethinkdb"},
    "loop": {"sqlite3", "rethinkdb"},
    "doctor": {"sqlite3", "rethinkdb"},
    "engines": {"sqlite3", "rethinkdb"},
    "modules": {"sqlite3", "rethinkdb"},
    "runners": {"sqlite3", "rethinkdb"},
    "states": {"sqlite3", "rethinkdb"},
}  # fmt: skip


def files(room):
    return sorted((HOUSE / room).rglob("*.py"))


def imported(path):
    """Modules that a file imports, as absolute dotted names, wherever in it the import stands."""
    package = [HOUSE.name, *path.relative_to(HOUSE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            yield module
            yield from (f"{module}.{one.name}" for one in node.names)


def rooms_of(path):
    """(room, module) of each import of our own."""
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == HOUSE.name and len(parts) > 1:
            yield parts[1], parts[2] if len(parts) > 2 else ""


def test_every_folder_is_a_room_that_is_known():
    found = {p.name for p in HOUSE.iterdir() if p.is_dir() and not p.name.startswith("_")}
    assert found == BELOW.keys() | LOADED
    assert [p.name for p in HOUSE.glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("room", BELOW)
def test_a_room_imports_only_what_lies_below(room):
    for path in files(room):
        above = {to for to, _ in rooms_of(path)} - BELOW[room] - {room}
        assert not above, f"{path.name} imports {', '.join(sorted(above))}"


@pytest.mark.parametrize("room", WITHOUT)
def test_a_room_keeps_out_what_does_not_belong_there(room):
    for path in files(room):
        found = {name.split(".")[0] for name in imported(path)} & WITHOUT[room]
        assert not found, f"{path.name} imports {', '.join(sorted(found))}"


def test_within_a_room_nobody_imports_in_a_circle():
    for room in BELOW:
        needs = {
            path.stem: {module for to, module in rooms_of(path) if to == room and module}
            for path in files(room)
            if path.stem != "__init__"
        }
        while needs:
            free = [name for name, wants in needs.items() if not wants & needs.keys() - {name}]
            assert free, f"{room}: a circle of {', '.join(sorted(needs))}"
            for name in free:
                del needs[name]


PAGE = Path(__file__).parents[2] / "docs" / "development.md"


def test_what_the_page_for_developers_names_is_there():
    named = re.findall(r"`(\w+/\w+\.py)`\s+\(`([\w.]+)`", PAGE.read_text(encoding="utf-8"))
    assert len(named) >= 15
    for file, name in named:
        text = (HOUSE / file).read_text(encoding="utf-8")
        for part in name.split("."):
            assert re.search(rf"(?:def|class) {part}\b", text), f"{file} has no {part}"


LONGEST_FILE = 500
LONGEST_FUNCTION = 60


def test_no_file_and_no_function_is_longer_than_can_be_read_at_a_time():
    for path in HOUSE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= LONGEST_FILE, path.name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = node.end_lineno - node.lineno + 1
                assert lines <= LONGEST_FUNCTION, f"{path.name}: {node.name} has {lines} lines"


@pytest.mark.parametrize("room", sorted(set(BELOW) - {"app", "console", "doctor"}))
def test_the_engine_reads_its_own_files_at_its_start_only(room):
    """An upgrade replaces the package under an engine that runs: a later import would mix two releases."""
    for path in files(room):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for node in ast.walk(function):
                own = isinstance(node, ast.ImportFrom) and (
                    node.level or (node.module or "").startswith(HOUSE.name)
                )
                own = own or (
                    isinstance(node, ast.Import)
                    and any(n.name.startswith(HOUSE.name) for n in node.names)
                )
                assert not own, f"{path.name}: {function.name} imports of this package when it runs"
