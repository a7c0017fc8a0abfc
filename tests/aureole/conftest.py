"""Tiny networks as ONNX files, a command line that runs in this process, and a checker of JSON reports."""

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from aureole.__main__ import main

SIDE = 6


def save_onnx(path, nodes, weights, *, labels=4, shape=(1, SIDE, SIDE)):
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", labels])],
        initializer=[numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def halves_nodes(last="scores"):
    """Scores (mean of the left half, mean of the right half, 0.2, 0.1), through a ReLU."""
    columns = np.tile(np.arange(SIDE), SIDE)
    means = np.stack([columns < SIDE // 2, columns >= SIDE // 2]).astype(np.float32) / (SIDE * SIDE // 2)
    mixing = np.zeros((4, 2), np.float32)
    mixing[0, 0] = mixing[1, 1] = 1.0
    weights = {"means": means, "zero": np.zeros(2, np.float32), "mixing": mixing}
    weights["constant"] = np.array([0.0, 0.0, 0.2, 0.1], np.float32)
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], name="flatten", axis=1),
        helper.make_node("Gemm", ["flat", "means", "zero"], ["halves"], name="halves", transB=1),
        helper.make_node("Relu", ["halves"], ["active"], name="relu"),
        helper.make_node("Gemm", ["active", "mixing", "constant"], [last], name="mix", transB=1),
    ]
    return nodes, weights


@pytest.fixture
def halves(tmp_path):
    """Its score of label 1 is the mean of the right half, so with the image below it leaves the top 2 from epsilon 0.4 on."""
    return save_onnx(tmp_path / "halves.onnx", *halves_nodes())


@pytest.fixture
def headed(tmp_path):
    """The same network under a Sigmoid or Softmax."""

    def build(op):
        nodes, weights = halves_nodes("logits")
        attributes = {"axis": 1} if op == "Softmax" else {}
        nodes.append(helper.make_node(op, ["logits"], ["scores"], name="head", **attributes))
        return save_onnx(tmp_path / f"{op.lower()}.onnx", nodes, weights)

    return build


@pytest.fixture
def strange(tmp_path):
    """A network with an operation nobody supports here, in a node called odd_one."""
    nodes, weights = halves_nodes("logits")
    nodes.append(helper.make_node("Sin", ["logits"], ["scores"], name="odd_one"))
    return save_onnx(tmp_path / "strange.onnx", nodes, weights)


@pytest.fixture
def pixels():
    """Left half 0.8, right half 0.6: the top 2 are labels 0 and 1."""
    image = np.full((1, SIDE, SIDE), 0.8, np.float32)
    image[..., SIDE // 2 :] = 0.6
    return image


@pytest.fixture
def image(tmp_path, pixels):
    path = tmp_path / "image.npy"
    np.save(path, pixels)
    return path


@pytest.fixture
def mask(tmp_path):
    """Marks the left half."""
    marked = np.zeros((SIDE, SIDE), np.bool_)
    marked[:, : SIDE // 2] = True
    path = tmp_path / "mask.npy"
    np.save(path, marked)
    return path


@dataclass(frozen=True)
class Ended:
    """How a run of the command line ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def aureole(capfd, monkeypatch, tmp_path):
    """Runs the command line in an empty folder of its own and returns how it ended."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    # Whatever terminal the tests run in, lines do not wrap.
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments):
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def schemas():
    return json.loads(files("aureole").joinpath("schemas", "reports-1.json").read_text())["$defs"]


@pytest.fixture(scope="session")
def check_report(schemas):
    """Checks an object against the schema it names; returns it."""

    def check(content):
        name = content["schema"].split("/")[1]
        schema = schemas["counterexample_file" if name == "counterexample" else name]
        problems = list(_problems(content, schema, schemas, "$"))
        assert not problems, problems
        return content

    return check


_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def _has_type(value, name):
    if name in ("integer", "number"):
        return isinstance(value, int if name == "integer" else int | float) and not isinstance(value, bool)
    return isinstance(value, _TYPES[name])


def _problems(value, schema, definitions, place):
    """The part of JSON Schema that reports-1.json uses; an unknown keyword is an error, not a pass."""
    known = {
        "$ref",
        "anyOf",
        "const",
        "enum",
        "type",
        "description",
        "properties",
        "required",
        "additionalProperties",
        "items",
    }
    assert set(schema) <= known, f"{place}: the checker does not know {set(schema) - known}"
    if "$ref" in schema:
        yield from _problems(value, definitions[Path(schema["$ref"]).name], definitions, place)
        return
    if "anyOf" in schema:
        branches = [list(_problems(value, branch, definitions, place)) for branch in schema["anyOf"]]
        if all(branches):
            yield from min(branches, key=len)
        return
    if "const" in schema and value != schema["const"]:
        yield f"{place}: {value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{place}: {value!r} is not in {schema['enum']}"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_has_type(value, kind) for kind in kinds):
        yield f"{place}: {value!r} is not {kinds}"
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _problems(item, schema.get("items", {}), definitions, f"{place}[{index}]")
    if isinstance(value, dict):
        yield from _object_problems(value, schema, definitions, place)


def _object_problems(value, schema, definitions, place):
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name in schema.get("required", []):
        if name not in value:
            yield f"{place}: {name} is missing"
    for name, item in value.items():
        if name in properties:
            yield from _problems(item, properties[name], definitions, f"{place}.{name}")
        elif others is False:
            yield f"{place}: {name} is not in the schema"
        elif others is not True:
            yield from _problems(item, others, definitions, f"{place}.{name}")
