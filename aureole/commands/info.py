"""`aureole info`: what a network is made of, or which networks are shipped."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from aureole import api, terminal
from aureole.json_parts import network_object, to_text
from aureole.text_report import Row, fields
from nets import shipped
from verifier.bounds import BoundOptions
from verifier.canonical import Affine, CanonicalNetwork, Max, Relu
from verifier.lowering import lower
from verifier.network import Network, Op

INFO_SCHEMA = "aureole/info/1"
SHIPPED_SCHEMA = "aureole/shipped/1"


def run(network_name: str | None, as_json: bool) -> int:
    """Reports on one network, or lists the shipped ones; returns the exit code."""
    if network_name is None:
        return _list_shipped(as_json)
    with terminal.reserved_stdout(as_json):
        network = api.load_network(network_name)
        canonical = lower(network)
    if as_json:
        terminal.write_json(to_text(info_object(network, network_name, canonical)))
    else:
        terminal.answers().print(_report(network, network_name, canonical))
    return 0


def parameters(op: Op) -> int:
    """The numbers an operation carries: weights, biases, statistics, constants."""
    values = (getattr(op, field.name) for field in dataclasses.fields(op))
    return sum(value.size for value in values if isinstance(value, np.ndarray))


def info_object(network: Network, name: str, canonical: CanonicalNetwork) -> dict[str, Any]:
    """The network, its layers, and the canonical form that engines work on."""
    return {
        "schema": INFO_SCHEMA,
        "network": network_object(network, name),
        "parameters": sum(parameters(node.op) for node in network.nodes),
        "nodes": [
            {
                "name": node.name,
                "op": type(node.op).__name__,
                "shape": [int(size) for size in node.shape],
                "parameters": parameters(node.op),
            }
            for node in network.nodes
        ],
        "canonical": canonical_object(canonical),
    }


def canonical_object(canonical: CanonicalNetwork) -> dict[str, Any]:
    """Sizes of the canonical form."""
    nodes = canonical.nodes
    return {
        "nodes": [{"kind": type(node).__name__, "size": node.size} for node in nodes],
        "affine_nodes": sum(isinstance(node, Affine) for node in nodes),
        "relus": sum(node.size for node in nodes if isinstance(node, Relu)),
        "max_windows": sum(node.size for node in nodes if isinstance(node, Max)),
        "multiplications": canonical.most_entries,
    }


def _report(network: Network, name: str, canonical: CanonicalNetwork) -> Group:
    layers = Table("layer", "operation", "output", box=None, header_style="dim", pad_edge=False)
    layers.add_column("parameters", justify="right")
    for node in network.nodes:
        shape = " x ".join(str(size) for size in node.shape)
        layers.add_row(node.name, type(node.op).__name__, shape, f"{parameters(node.op):,}")
    sizes = canonical_object(canonical)
    beyond = ": too many for bounds and proofs" if sizes["multiplications"] > BoundOptions().most_entries else ""
    rows: list[Row] = [
        ("network", f"{name} ({network.path})"),
        ("sha256", network.sha256),
        ("input", " x ".join(str(size) for size in network.input_shape)),
        ("labels", str(network.labels)),
        ("head", network.head.value),
        ("parameters", f"{sum(parameters(node.op) for node in network.nodes):,}"),
        ("canonical form", " -> ".join(f"{node['kind']} {node['size']}" for node in sizes["nodes"])),
        ("to decide", f"{sizes['relus']:,} ReLUs, {sizes['max_windows']:,} Max windows"),
        ("multiplications", f"{sizes['multiplications']:,} an evaluation{beyond}"),
    ]
    return Group(fields(rows), Text(), layers)


def _list_shipped(as_json: bool) -> int:
    networks: Mapping[str, Any] = shipped.manifest()["networks"]
    if as_json:
        terminal.write_json(to_text({"schema": SHIPPED_SCHEMA, "networks": networks}))
        return 0
    table = Table("network", "layers", box=None, header_style="dim", pad_edge=False)
    table.add_column("parameters", justify="right")
    table.add_column("exact top 2", justify="right")
    table.add_column("under attack", justify="right")
    for name, entry in networks.items():
        architecture, measured = entry["architecture"], entry["measured"]
        clean, attacked = measured["clean_accuracy"], measured["attacked_accuracy"]
        table.add_row(
            name, architecture["layers"], f"{architecture['parameters']:,}", f"{clean:.3f}", f"{attacked:.3f}"
        )
    terminal.answers().print(table)
    return 0
