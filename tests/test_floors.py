"""Modules import from their own floor and those below, and never in a circle, inside functions either."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

from devstack.folder import PROJECT

FLOORS = ("settings", "db", "tasks", "workers")
MODULES = {
    ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (PROJECT / "settings.py", *(path for floor in FLOORS for path in (PROJECT / floor).rglob("*.py")))
}


def imports(name: str, path: Path) -> Iterator[str]:
    """Yield the modules of ours that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                if submodule in MODULES or node.module in MODULES:
                    yield submodule if submodule in MODULES else node.module


@cache
def graph() -> dict[str, set[str]]:
    """Return what each module imports of ours."""
    return {name: set(imports(name, path)) - {name} for name, path in MODULES.items()}


def floor(name: str) -> int:
    return FLOORS.index(name.partition(".")[0])


def test_no_module_imports_from_a_floor_above() -> None:
    assert [(name, other) for name, others in graph().items() for other in others if floor(other) > floor(name)] == []


def test_no_job_imports_another() -> None:
    jobs = {path.parent.name for path in (PROJECT / "tasks").glob("*/task.py")}

    def job(name: str) -> str | None:
        return next((part for part in name.split(".")[1:2] if part in jobs and name.startswith("tasks.")), None)

    assert [
        (name, other)
        for name, others in graph().items()
        for other in others
        if job(name) and job(other) and job(name) != job(other)
    ] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    TopologicalSorter(graph()).prepare()  # raises CycleError, which names them


def test_no_folders_of_the_processes_import_each_other_in_a_circle() -> None:
    def folder(name: str) -> str:
        parts = name.split(".")
        return ".".join(parts[:2]) if parts[0] == "workers" else parts[0]

    folders: dict[str, set[str]] = {}
    for name, others in graph().items():
        folders.setdefault(folder(name), set()).update({folder(other) for other in others} - {folder(name)})
    TopologicalSorter(folders).prepare()
