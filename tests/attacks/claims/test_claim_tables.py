"""Claims read from CSV, JSON and Parquet; what cannot be read becomes a claim with a problem."""

import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from attacks.claims import Aim, ClaimKind, read_claim, read_records, table_in
from attacks.metrics import Norm
from verifier.errors import InputError

RECORD = {
    "name": "first",
    "claim": "success",
    "attack": "pgd",
    "image": "clean.npy",
    "adversarial": "found.npy",
    "off": [1, 3],
    "k": 2,
    "norm": "linf",
    "bound": 0.1,
}
PIXELS = np.zeros((1, 2, 2), np.float32)


def read_image(name):
    if name == "missing.npy":
        raise InputError("missing.npy: no such file")
    return PIXELS if name == "clean.npy" else PIXELS + 0.1


def claim_of(record):
    return read_claim(record, 7, 5, read_image)


@pytest.fixture(params=["csv", "json", "parquet"])
def table(request, tmp_path):
    """The record above and one about a group, in each format."""
    other = {"claim": "robust-accuracy", "group": "g", "value": 0.5, "norm": "linf", "bound": 0.1}
    path = tmp_path / f"claims.{request.param}"
    if request.param == "json":
        path.write_text(json.dumps({"claims": [RECORD, other]}))
    elif request.param == "parquet":
        parquet.write_table(
            pa.Table.from_pylist([{**dict.fromkeys({**RECORD, **other}), **row} for row in (RECORD, other)]), path
        )
    else:
        path.write_text(
            "name,claim,attack,image,adversarial,off,k,norm,bound,group,value\n"
            "first,success,pgd,clean.npy,found.npy,1 3,2,linf,0.1,,\n"
            ",robust-accuracy,,,,,,linf,0.1,g,0.5\n"
        )
    return path


def test_each_format_holds_the_same_claims(table):
    assert table_in(table.parent) == table == table_in(table)
    first, second = (read_claim(record, place, 5, read_image) for place, record in enumerate(read_records(table)))
    assert (first.name, first.kind, first.attack, first.problem) == ("first", ClaimKind.SUCCESS, "pgd", "")
    assert first.aim == Aim(5, (), (1, 3), 2, k=2)
    assert (first.norm, first.bound) == (Norm.LINF, 0.1)
    assert np.array_equal(first.image, PIXELS)
    assert first.adversarial.max() == np.float32(0.1)
    assert (second.name, second.kind, second.group, second.value) == ("1", ClaimKind.ROBUST_ACCURACY, "g", 0.5)
    assert second.problem == ""


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"claim": "victory"}, "claim: got 'victory'"),
        ({"claim": None}, "claim: got 'nothing'"),
        ({"image": "missing.npy"}, "image: missing.npy: no such file"),
        ({"image": None}, "image: missing"),
        ({"adversarial": "missing.npy"}, "adversarial: missing.npy"),
        ({"off": "one"}, "off: got 'one'"),
        ({"off": [1, 5]}, "labels from 0 to 4"),
        ({"off": None}, "needed 0"),
        ({"k": None}, "exactly one"),
        ({"k": 1.5}, "whole number"),
        ({"k": 5}, "k: got 5"),
        ({"norm": "l3"}, "norm: got 'l3'"),
        ({"bound": "wide"}, "bound: got 'wide'"),
        ({"bound": "inf"}, "finite"),
        ({"needed": 3}, "needed 3"),
    ],
)
def test_what_cannot_be_read_is_a_problem(change, problem):
    record = {name: cell for name, cell in {**RECORD, **change}.items() if cell is not None}
    claim = claim_of(record)
    assert problem in claim.problem
    assert claim.source == record


def test_labels_may_be_one_number_or_words():
    assert claim_of({**RECORD, "off": 3}).aim.off == (3,)
    assert claim_of({**RECORD, "off": "3, 1"}).aim.off == (3, 1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("claims.csv", b"claim,k\n"),
        ("claims.csv", b"claim,k\nsuccess,1,2,3\n"),
        ("claims.csv", b"\xff\xfe\x00"),
        ("claims.csv", b"claim,k\nnone,1\n"),
        ("claims.json", b"{"),
        ("claims.json", b"[1]"),
        ("claims.json", b'{"claim": 1}'),
        ("claims.parquet", b"PAR1"),
        ("claims.txt", b"x"),
    ],
)
def test_broken_tables_are_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=name):
        read_records(path)


def test_records_that_claim_nothing_are_left_out(tmp_path):
    path = tmp_path / "claims.csv"
    path.write_text("claim,name\nnone,a\nfailure,b\n")
    assert [record["name"] for record in read_records(path)] == ["b"]


def test_folders_without_or_with_several_tables(tmp_path):
    with pytest.raises(InputError, match="no table of claims"):
        table_in(tmp_path)
    (tmp_path / "results.parquet").write_bytes(b"")
    assert table_in(tmp_path).name == "results.parquet"
    (tmp_path / "claims.csv").write_text("")
    assert table_in(tmp_path).name == "claims.csv"
    (tmp_path / "claims.json").write_text("")
    with pytest.raises(InputError, match=r"claims\.csv, claims\.json"):
        table_in(tmp_path)


def test_pyarrow_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"aureole\[attacks\]"):
        read_records(tmp_path / "claims.parquet")
