"""The study of maximal neighbourhoods: what is done is not done again, nothing finished is lost, its tables add up."""

import json

import pytest

from benchmarks import maximal
from nets import shipped
from synth.zones import Zones


def record(network="strided3-none", image=0, method="ours", cut="fixed", size=0.2, complete=2):
    counts = {"complete": complete, "bounds": 5, "attack": 7, "gradient": 1}
    return {
        "kind": "grow",
        "network": network,
        "image": image,
        "method": method,
        "cut": cut,
        "limit": 1.0,
        "weighted_size": size,
        "upper_bound": 0.4,
        "gap": 0.5,
        "pixels_above_zero": 10,
        "is_maximal": True,
        "seconds": 1.0,
        "queries": counts,
    }


def write(path, *records, tail=""):
    path.write_text("".join(json.dumps(one) + "\n" for one in records) + tail)


def test_finished_runs_are_not_run_again_and_a_line_cut_off_is_dropped(tmp_path, capsys):
    path = tmp_path / "m.jsonl"
    write(path, record(), tail='{"kind": "grow", "netw')
    case = maximal.Case("grow", "strided3-none", 0, "ours", "fixed", 1.0)
    maximal.run_all([case], path, 1)
    assert capsys.readouterr().out == ""
    assert maximal.read(path) == [record()]
    assert path.read_text().endswith("}\n")


def test_an_error_is_a_result(tmp_path):
    path = tmp_path / "m.jsonl"
    missing = maximal.measure(maximal.Case("grow", "no-such-network", 0, "ours", "fixed", 1.0))
    assert "no-such-network" in missing["error"]
    write(path, missing, record())
    assert len(maximal.read(path)) == 2


def test_methods_without_cuts_run_once():
    cases = list(maximal.cases_of(["strided3-none"], ["ours", "uniform"], ["fixed", "sensitivity"], 2, 1.0))
    assert [(case.image, case.method, case.cut) for case in cases] == [
        (0, "ours", "fixed"),
        (0, "ours", "sensitivity"),
        (0, "uniform", "fixed"),
        (1, "ours", "fixed"),
        (1, "ours", "sensitivity"),
        (1, "uniform", "fixed"),
    ]


def test_the_comparison_is_by_image_and_the_largest_network_is_counted():
    records = [
        *(record(image=i, size=0.3, complete=2) for i in range(3)),
        *(record(image=i, method="published", size=0.1, complete=40) for i in range(3)),
    ]
    (line,) = maximal.comparison(records)
    assert "3.00 x the weighted size, 20.0 x fewer complete queries" in line
    assert "medians over 3 runs" in line
    networks = [record(network=name, size=size) for name, size in zip(maximal.NETWORKS, (0.1, 0.3, 0.2), strict=True)]
    (line,) = maximal.defences(networks)
    assert "strided3-l0 1" in line
    rows = list(maximal.table_rows(records))
    assert len(rows) == 4
    assert rows[2].count("|") == rows[0].count("|") == rows[1].count("|") == 13


def test_a_real_run_is_kept(tmp_path):
    path = tmp_path / "m.jsonl"
    case = maximal.Case("bands", "strided3-none", 0, "4", "fixed", 1.0)
    (kept,) = [maximal.measure(case)]
    json.dumps(kept, allow_nan=False)
    assert kept["upper_bound"] >= kept["weighted_size"]
    assert len(kept["epsilons"]) == 4
    write(path, kept | {"bounds": [[0.5, 0.1, 2.0], [1.0, 0.1, 1.0, 3]]})
    maximal.plot(path)
    assert (tmp_path / "m-convergence.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "m-epsilons.png").exists()


def test_curves_are_told_apart_and_older_records_have_no_queries():
    row = {
        **record(method="4"),
        "kind": "bands",
        "sizes": [[0.1, 1, 0.2]],
        "bounds": [[0.5, 0.2, 2.0], [1.0, 0.2, 1.0, 3]],
    }
    (panel,) = maximal.convergences([row, row | {"method": "8"}]).items()
    assert panel[0] == "strided3-none, image 0"
    assert [run.name for run in panel[1]] == ["4 bands", "8 bands"]
    assert [(point.queries, point.value) for point in panel[1][0].bounds] == [(None, 2.0), (3, 1.0)]
    assert panel[1][0].sizes[0].queries == 1


def test_epsilons_side_by_side(tmp_path):
    layers = len(Zones.of_layers(shipped.images().images[0].astype(float), shipped.images().masks[0][0]).names)
    records = [
        record(network=name, cut=cut) | {"is_proved": True, "epsilons": [0.01] * layers}
        for name in maximal.NETWORKS[:2]
        for cut in maximal.CUTS
    ]
    records.append(record(method="uniform"))
    rows = maximal.heat_rows(records, 3)
    titles = [[panel.title for panel in row] for row in rows]
    assert [[title.splitlines()[0].split(", ")[2] for title in row] for row in titles] == [
        ["fixed"] * 3,
        ["sensitivity"] * 3,
    ]
    assert [panel.neighbourhood is None for panel in rows[0]] == [False, False, True]
    assert "not measured" in titles[0][2]
    path = tmp_path / "m.jsonl"
    write(path, *records)
    maximal.plot(path)
    assert (tmp_path / "m-epsilons.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(Exception, match="no finished runs"):
        maximal.plot(tmp_path / "none.jsonl")
