"""The rules of the house: floors, files, names, documentation, what importing costs."""

import ast
import importlib
import inspect
import os
import pathlib
import pkgutil
import re
import subprocess
import sys
import tomllib

import equinox as eqx
import pytest

import measattn as ma

ROOT = pathlib.Path(__file__).parents[1]
LIBRARY = ROOT / "measattn"
PARTS = [ROOT / name for name in ("measattn", "paper_repro", "tests", "notebooks", "benchmarks")]
SOURCES = sorted(file for part in PARTS for file in part.rglob("*.py"))
LIBRARY_SOURCES = [file for file in SOURCES if LIBRARY in file.parents]
CLIENTS = [
    file for part in PARTS if part.name not in {"measattn", "tests"} for file in part.rglob("*.py")
]
CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text())
LARGEST_FILE = 400

of_each_source = pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(ROOT)))
of_each_module_file = pytest.mark.parametrize(
    "file", LIBRARY_SOURCES, ids=lambda f: str(f.relative_to(ROOT))
)


def imports(file):
    """The modules that a file imports, wherever it does so, and the names it takes from them."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield "." * node.level + (node.module or ""), alias.name


def modules():
    names = [name for _, name, _ in pkgutil.walk_packages(ma.__path__, "measattn.")]
    return [ma, *map(importlib.import_module, names)]


def public(module):
    """Functions and classes that a module defines under a public name."""
    for name, item in vars(module).items():
        named = inspect.isclass(item) or inspect.isfunction(item)
        if named and not name.startswith("_") and item.__module__ == module.__name__:
            yield name, item


def run(*command, **options):
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, **options
    )


def lint_imports(configuration):
    program = (
        "import sys; from importlinter.cli import lint_imports;"
        f"sys.exit(lint_imports(config_filename={str(configuration)!r}, no_cache=True))"
    )
    return run(sys.executable, "-c", program)


def test_each_floor_imports_only_from_the_floors_below_it():
    done = lint_imports(ROOT / "pyproject.toml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_check_of_the_floors_fails_when_the_house_is_turned_over(tmp_path):
    text = (ROOT / "pyproject.toml").read_text()
    layers = re.search(r"layers = \[\n(.*?)\]", text, re.DOTALL).group(1)
    upside_down = "".join(reversed(layers.splitlines(keepends=True)))
    (tmp_path / "pyproject.toml").write_text(text.replace(layers, upside_down))
    assert lint_imports(tmp_path / "pyproject.toml").returncode == 1


def test_every_module_has_its_floor():
    contract = CONFIGURATION["tool"]["importlinter"]["contracts"][0]
    floors = {name.strip("() ") for floor in contract["layers"] for name in floor.split("|")}
    parts = {file.stem for file in LIBRARY.glob("*.py")} | {
        file.parent.name for file in LIBRARY.glob("*/__init__.py")
    }
    assert parts - {"__init__", "__main__"} <= floors


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        ("ot", {"wasserstein"}),
        ("matplotlib", {"plot"}),
        ("safetensors", {"pretrained"}),
        ("diffrax", {"dynamics"}),
        ("gguf", {"pretrained"}),
        ("tokenizers", {"pretrained"}),
        ("paper_repro", {"cli"}),
        ("torch", set()),
        ("transformers", set()),
    ],
)
def test_a_heavy_package_is_imported_in_its_own_home_alone(package, homes):
    users = {
        file.relative_to(LIBRARY).parts[0]
        for file in LIBRARY_SOURCES
        for module, _ in imports(file)
        if module.split(".")[0] == package
    }
    assert users <= homes


IMPORT_PROBE = """
import sys
import measattn
heavy = {"ot", "torch", "matplotlib", "diffrax", "safetensors", "gguf", "tokenizers"}
heavy |= {"transformers"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
import jax
assert not jax.config.jax_enable_x64
"""


def test_importing_emits_no_warnings_loads_nothing_heavy_and_leaves_jax_as_it_was():
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    done = run(sys.executable, "-W", "error", "-c", IMPORT_PROBE, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_every_module_has_a_docstring_and_so_has_everything_public_in_it():
    bare = []
    for module in modules():
        if not (module.__doc__ or "").strip():
            bare.append(module.__name__)
        for name, item in public(module):
            if not (inspect.getdoc(item) or "").strip():
                bare.append(f"{module.__name__}.{name}")
            if inspect.isclass(item):
                bare += [
                    f"{module.__name__}.{name}.{part}"
                    for part, method in vars(item).items()
                    if not part.startswith("_")
                    and (inspect.isfunction(method) or isinstance(method, property))
                    and not inspect.getdoc(getattr(item, part))
                ]
    assert bare == []


def test_every_public_name_says_in_its_own_words_what_it_is():
    # dataclasses get a made-up docstring "Name(field, ...)"
    for name, item in vars(ma).items():
        if name.startswith("_") or inspect.ismodule(item):
            continue
        text = inspect.getdoc(item)
        assert text, name
        assert not text.startswith(f"{name}("), name
        assert text.split("\n")[0].rstrip().endswith((".", ":", "$", ",")), name


def all_modules_of_equinox():
    found = {
        item for module in modules() for _, item in public(module) if inspect.isclass(item)
    } | {
        item
        for module in modules()
        for item in vars(module).values()
        if inspect.isclass(item) and item.__module__ == module.__name__
    }
    return {item for item in found if issubclass(item, eqx.Module)}


def test_a_class_is_abstract_by_name_or_final():
    classes = all_modules_of_equinox()
    assert len(classes) > 30
    for item in classes:
        for base in item.__mro__[1:]:
            if base in classes:
                assert base.__name__.lstrip("_").startswith("Abstract"), (item, base)


def test_what_is_called_abstract_cannot_be_made_and_what_is_not_can():
    for item in all_modules_of_equinox():
        assert inspect.isabstract(item) == item.__name__.lstrip("_").startswith("Abstract"), item


def test_what_is_abstract_inherits_from_what_is_abstract_alone():
    classes = all_modules_of_equinox()
    for item in (item for item in classes if inspect.isabstract(item)):
        assert all(inspect.isabstract(base) for base in item.__mro__[1:] if base in classes), item


@of_each_source
def test_a_file_has_no_more_lines_than_the_house_allows(file):
    assert len(file.read_text().splitlines()) <= LARGEST_FILE


@of_each_source
def test_annotations_are_not_postponed(file):
    assert ("__future__", "annotations") not in set(imports(file))


def test_imports_for_type_checkers_alone_count_as_imports():
    assert "exclude_type_checking_imports" not in CONFIGURATION["tool"]["importlinter"]


def test_no_module_is_called_utils():
    assert not [f for f in SOURCES if re.search(r"util|helper|misc|common", f.stem)]


@of_each_module_file
def test_the_library_asserts_nothing_and_never_touches_the_configuration_of_jax(file):
    tree = ast.parse(file.read_text())
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    if LIBRARY / "cli" in file.parents:
        return  # where a program starts
    touched = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("jax.config")
    ]
    assert not touched


@of_each_module_file
def test_formulas_have_no_axis_arguments_in_public_signatures(file):
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            names = [a.arg for a in [*node.args.args, *node.args.kwonlyargs]]
            assert "axis" not in names, node.name


@of_each_module_file
def test_random_keys_have_no_default(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert "key" not in [
                a.arg for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d
            ], node.name


def test_clients_of_the_library_use_its_public_names_alone():
    inside = [
        f"{file.relative_to(ROOT)}: {module} {name or ''}"
        for file in CLIENTS
        for module, name in imports(file)
        if module.split(".")[0] == "measattn"
        and any(part.startswith("_") for part in [*module.split("."), name or "x"])
    ]
    assert inside == []


def test_every_public_name_of_the_top_is_defined_in_one_place_alone():
    for name, item in vars(ma).items():
        if name.startswith("_") or inspect.ismodule(item):
            continue
        home = importlib.import_module(item.__module__)
        assert getattr(home, name) is item, name


def test_the_version_is_that_of_the_project():
    assert ma.__version__ == CONFIGURATION["project"]["version"]


def test_there_is_one_configuration_file():
    others = ["setup.py", "setup.cfg", "tox.ini", "pytest.ini", "ruff.toml", ".flake8", "mypy.ini"]
    assert not [name for name in others if (ROOT / name).exists()]
