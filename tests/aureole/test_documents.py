"""What the documents say is so: their code runs, their examples fit the schemas, the names they list exist."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

import aureole as public
from aureole.app import app
from aureole.exits import ExitCode

ROOT = Path(__file__).resolve().parents[2]


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)


def test_the_readme_code_runs_as_it_stands(capsys):
    (code,) = blocks("README.md", "python")
    exec(compile(code, "README.md", "exec"), {})
    assert re.match(r"(Robust|Vulnerable)\(", capsys.readouterr().out)


@pytest.mark.parametrize("example", blocks("docs/json.md", "json"))
def test_json_examples_fit_the_schemas(check_report, example):
    check_report(json.loads(example))


def test_every_json_field_is_documented(schemas):
    text = (ROOT / "docs/json.md").read_text()

    def names(schema):
        if isinstance(schema, dict):
            yield from schema.get("properties", {})
            for part in schema.values():
                yield from names(part)
        elif isinstance(schema, list):
            for part in schema:
                yield from names(part)

    missing = {name for name in names(schemas) if not re.search(rf"\b{name}\b", text)}
    assert not missing


def test_every_command_and_exit_code_is_documented():
    readme, cli = (ROOT / "README.md").read_text(), (ROOT / "docs/cli.md").read_text()
    for name in get_command(app).commands:
        assert f"aureole {name}" in readme
        assert f"`{name}`" in cli
    for code in ExitCode:
        assert f"| {code.value} |" in cli


def test_every_dependency_is_explained():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "docs/dependencies.md").read_text()
    for requirement in project["dependencies"]:
        name = re.match(r"[\w-]+", requirement)[0]
        assert f"| {name} |" in text
    for extra in project["optional-dependencies"]:
        assert f"| `{extra}`" in text


def test_constraints_cover_every_requirement():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    assert not {re.match(r"[\w-]+", r)[0].lower().replace("_", "-") for r in wanted} - pinned


def test_version_is_said_once_and_the_same():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert public.__version__ == project["version"]
    assert f"version: {public.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_public_names_exist_and_are_listed():
    for name in public.__all__:
        assert getattr(public, name) is not None
    assert set(public._HOME_OF) == set(public.__all__) - {"__version__"}
    assert dir(public) == sorted(public.__all__)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        public.nothing_of_the_kind  # noqa: B018


@pytest.mark.parametrize("statement", ["import aureole", "import aureole.app", "import aureole.__main__"])
def test_importing_is_light(statement):
    code = f"{statement}\nimport sys\nassert not {{'torch', 'onnxruntime', 'highspy'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
