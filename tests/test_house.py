"""The house rules that a machine can check: the floor plan, the light install, sizes, names, docs, safety."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "timeloupe"
MODULES = sorted(PACKAGE.rglob("*.py"))

# What a light install (`pip install .`) has to be able to import, and what it does not have.
LIGHT_ROOMS = (
    "errors",
    "trajectory",
    "config",
    "runs",
    "grounding",
    "prompt",
    "reward",
    "eval",
    "serve",
    "cli",
    "video",
)
LIGHT_ROOMS += ("environment", "policy.base", "policy.scripted", "policy.openai_server")
HEAVY = ("torch", "transformers", "safetensors", "accelerate", "peft", "fastapi", "uvicorn", "mcp")

MAX_MODULE_LINES = 420
MAX_BODY_LINES = 80
MAX_DATA_BYTES = 20_000_000


def name_of(path: Path) -> str:
    """The dotted name of a module of the package."""
    parts = ("timeloupe", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_light(name: str) -> bool:
    room = name.removeprefix("timeloupe").removeprefix(".")
    return not room or any(room == light or room.startswith(f"{light}.") for light in LIGHT_ROOMS)


TREES = {path: ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in MODULES}
LIGHT = [path for path in MODULES if is_light(name_of(path))]


def imports_at_module_level(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names that are imported when the module is, with their lines; functions and TYPE_CHECKING blocks do not count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.lineno
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from imports_at_module_level(other)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports_at_module_level(node)


def test_imports_go_down_only() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    if not command.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run([command, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", LIGHT, ids=name_of)
def test_light_rooms_name_no_heavy_library_at_module_level(path: Path) -> None:
    heavy = [
        f"line {line}: {name}"
        for name, line in imports_at_module_level(TREES[path])
        if name.split(".")[0] in HEAVY
    ]
    assert not heavy, f"{name_of(path)} imports {heavy}; import it inside the function that needs it"


def test_light_rooms_import_where_the_heavy_libraries_are_missing() -> None:
    script = f"""
import importlib, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Missing())
for name in {[name_of(path) for path in LIGHT]!r}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        sys.exit(f"{{name}} needs {{error.name}} when it is imported")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(TREES[path]) or ""
    assert len(docstring.split()) >= 3, f"{name_of(path)} needs a docstring of at least a sentence"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_and_functions_are_small(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_MODULE_LINES, (
        f"{name_of(path)} has {lines} lines, allowed {MAX_MODULE_LINES}: split it"
    )
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            where = f"{name_of(path)}.{node.name}"
            assert length <= MAX_BODY_LINES, f"{where} has {length} lines, allowed {MAX_BODY_LINES}: split it"


def test_no_module_is_a_drawer() -> None:
    drawers = [
        name_of(path) for path in MODULES if re.search(r"util|common|helper|misc", name_of(path).lower())
    ]
    assert not drawers, "name a module after what it holds"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_runs_code_from_data(path: Path) -> None:
    """No pickle in any dress, no ``trust_remote_code``, no ``eval``: files and models are data."""
    for node in ast.walk(TREES[path]):
        where = f"{name_of(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            bad = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve"} & {
                name.split(".")[0] for name in names
            }
            assert not bad, f"{where} imports {bad}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "torch.load", "torch.save"}, f"{where} calls {called}"
            for keyword in node.keywords:
                trusts = keyword.arg == "trust_remote_code" and ast.unparse(keyword.value) != "False"
                assert not trusts, f"{where} trusts code of strangers"
                loads = keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False"
                assert not loads, f"{where} allows pickle"


def test_package_data_is_small_and_no_pickle() -> None:
    for path in PACKAGE.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.suffix not in {".bin", ".pt", ".pth", ".pkl", ".ckpt"}, path
            assert path.stat().st_size < MAX_DATA_BYTES, path


# -- documents ---------------------------------------------------------------------------------------------------------

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a Markdown page."""
    anchors = set()
    for title in re.findall(r"^#+\s+(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        anchors.add(re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-"))
    return anchors


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), f"{page.name} links to {target}, which is not there"
        assert found.is_relative_to(ROOT), f"{page.name} links out of the project: {target}"
        if anchor and found.suffix == ".md":
            assert anchor in anchors_of(found), f"{page.name} links to {target}: no such heading"


def test_a_newcomer_types_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```[a-z]*\n(.*?)```", readme, re.DOTALL)
    commands = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    assert [command for command in commands if command][:2] == ["make demo", "make test"]
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"demo", "test", "check"} <= set(targets)


def test_every_room_is_on_the_tour() -> None:
    tour = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
    rooms = {path.parent.name for path in MODULES if path.name == "__init__.py"} - {"timeloupe"}
    rooms = {room for room in rooms if (PACKAGE / room).is_dir()}
    missing = [room for room in sorted(rooms) if f"`{room}/`" not in tour]
    assert not missing, f"docs/tour.md does not speak of {missing}"


# -- installation ------------------------------------------------------------------------------------------------------


def test_constraints_pin_all_that_the_package_asks_for() -> None:
    import tomllib

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins[0].startswith("torch=="), "torch comes first"
    assert all(re.fullmatch(r"[A-Za-z0-9_.\-]+==[0-9][\w.]*", pin) for pin in pins), (
        "exact public versions only"
    )
    pinned = {re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    names = {re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~ ]", need)[0]).lower() for need in asked} - {
        "timeloupe"
    }
    assert names <= pinned, f"constraints.txt lacks {sorted(names - pinned)}"


def test_no_path_of_one_machine() -> None:
    """Nothing in the project names a folder of the machine it was written on."""
    places = re.compile("(?<![\\w.])/(work|root|opt)/")
    suffixes = {".py", ".md", ".toml", ".txt", ".json", ".html", ".css", ".js"}
    folders = [PACKAGE, ROOT / "docs", ROOT / "recipes", ROOT / "benchmarks"]
    files = [
        path for folder in folders if folder.exists() for path in folder.rglob("*") if path.suffix in suffixes
    ]
    for path in [
        *files,
        ROOT / "Makefile",
        ROOT / "pyproject.toml",
        ROOT / "README.md",
        ROOT / "constraints.txt",
    ]:
        assert not places.search(path.read_text(encoding="utf-8")), (
            f"{path.relative_to(ROOT)} names a machine path"
        )
