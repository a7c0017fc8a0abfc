"""The parts of the top-k benchmark that need neither networks nor time: its questions, its results file, its tables."""

import json

import pytest

from benchmarks.topk import queries, recheck, report, results, tables
from benchmarks.topk.growth import k_series, ladder
from benchmarks.topk.queries import HARD, Question

PAIRS = [[2, 3], [6, 8], [6, 9], [0, 2], [2, 3], [4, 6], [3, 7], [3, 8], [6, 8], [2, 5]]


def asked(question=HARD[0].question, engine="auto", limit=100.0, **fields):
    identity = {name: getattr(question, name) for name in ("network", "image", "label", "k", "epsilon", "stays_in")}
    stage = {"name": "bounds", "seconds": 0.1, "bound": None, "detail": ""}
    answer = {
        "seconds": 0.5,
        "verdict": "robust",
        "bound": -0.25,
        "trusted": [],
        "unstable_units": 40,
        "stages": [stage],
    }
    return {"kind": "query", **identity, "engine": engine, "limit": limit, "images": None, **answer, **fields}


def failed(**fields):
    record = asked(**fields)
    for name in ("seconds", "verdict", "bound", "trusted", "unstable_units", "stages", "images"):
        del record[name]
    return record | {"error": "SolverUnavailableError: not here"}


def attacked(question=HARD[0].question, **fields):
    identity = {name: getattr(question, name) for name in ("network", "image", "label", "k", "epsilon", "stays_in")}
    found = {
        "seconds": 30.0,
        "restarts_done": 10_080,
        "margin": -0.5,
        "violated": False,
        "device": "cpu",
        "images": None,
    }
    return {"kind": "attack", **identity, "restarts": 10_000, "steps": 20, **found, **fields}


def all_labels(answers, **fields):
    identity = {"network": "381 noDef", "image": 0, "k": 2, "epsilon": 0.01, "engine": "auto", "limit": 100.0}
    return {"kind": "labels", **identity, "seconds": 2.0, "answers": answers, "images": "folder/file.npz", **fields}


def one_label(label, state, stays_in=None, stays_out=None):
    sides = {"stays_in": stays_in, "stays_out": stays_out}
    return {
        "label": label,
        "state": state,
        **{side: None if verdict is None else {"verdict": verdict, "bound": -1.0} for side, verdict in sides.items()},
    }


def test_the_grid_is_three_networks_ten_images_two_labels_four_epsilons():
    grid = queries.grid(PAIRS)
    assert len(grid) == len(set(grid)) == 240
    assert set(queries.hard()) <= set(grid)
    assert len(HARD) == 10
    assert sum(entry.peer_seconds is not None for entry in HARD) == 6
    assert all((entry.peer == "unknown") == (entry.peer_seconds is None) for entry in HARD)


def test_at_k_1_only_the_first_label_is_asked_about():
    firsts = {name: [pair[1] for pair in PAIRS] for name in queries.FILES}
    questions = queries.by_k(PAIRS, firsts, [0.01])
    assert len(questions) == 3 * 10 * (1 + 2 * 4)
    assert all(q.label == PAIRS[q.image][1] for q in questions if q.k == 1)


def test_names_are_chosen_by_pattern():
    grid = queries.grid(PAIRS)
    assert len({question.name for question in grid}) == len(grid)
    assert queries.chosen(grid, []) == grid
    assert queries.chosen(grid, ["381-noDef/i0/l2/*e0.005", "nothing"]) == [Question("381 noDef", 0, 2, 2, 0.005)]


def test_a_file_is_read_back_and_the_last_record_of_a_measurement_wins(tmp_path):
    path = tmp_path / "folder" / "results.jsonl"
    assert results.read(path) == []
    with results.appending(path) as append:
        append(failed())
        append(asked(engine="milp"))
    with results.appending(path) as append:
        append(asked())
    assert results.read(path) == [asked(), asked(engine="milp")]


def test_half_a_line_spoils_nothing(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(asked()) + "\n" + json.dumps(asked(engine="milp"))[:40])
    assert results.read(path) == [asked()]
    with results.appending(path) as append:
        append(asked(engine="search"))
    assert results.read(path) == [asked(), asked(engine="search")]


@pytest.mark.parametrize(
    "other", [{"engine": "milp"}, {"limit": 5.0}, {"question": HARD[1].question}, {"stays_in": False}], ids=str
)
def test_what_is_held_is_not_measured_again_and_nothing_else_is_held(other):
    held = results.done([asked()])
    assert results.key(asked(seconds=9.0)) in held
    assert results.key(asked(**other)) not in held


def test_errors_are_measured_again_only_when_asked():
    records = [failed(), asked(engine="milp")]
    assert results.key(failed()) in results.done(records)
    assert results.done(records, retry_errors=True) == {results.key(asked(engine="milp"))}


def test_claims_are_found_in_both_kinds_and_not_in_errors():
    answers = [
        one_label(3, "can be both", "vulnerable", "vulnerable"),
        one_label(4, "always out", None, "robust"),
        one_label(5, "undecided", "unknown"),
    ]
    found = results.claims(all_labels(answers))
    told = [
        (claim.question.label, claim.question.stays_in, claim.verdict, claim.images, claim.entry) for claim in found
    ]
    assert told == [
        (3, True, "vulnerable", "folder/file.npz", "in_3"),
        (3, False, "vulnerable", "folder/file.npz", "out_3"),
        (4, False, "robust", None, ""),
    ]
    assert [claim.verdict for claim in results.claims(asked())] == ["robust"]
    assert results.claims(failed()) == results.claims(asked(verdict="unknown")) == []


def test_opposite_answers_are_told_also_between_single_questions_and_all_labels():
    agreeing = [asked(), asked(engine="milp"), asked(engine="bounds", verdict="unknown")]
    assert results.contradictions(agreeing) == []
    question = Question("381 noDef", 0, 3, 2, 0.01)
    disagreeing = [*agreeing, asked(question), all_labels([one_label(3, "can be both", "vulnerable", None)])]
    (line,) = results.contradictions(disagreeing)
    assert question.name in line
    assert "CONTRADICTIONS" in report.render(disagreeing, [], 100.0)
    assert "CONTRADICTIONS" not in report.render(agreeing, [], 100.0)


def test_an_attack_contradicts_verdicts_and_bounds():
    claimed = results.claims(asked(bound=-0.25)) + results.claims(asked(engine="milp", bound=None))
    assert list(recheck.contradicted(attacked(margin=-0.5), claimed)) == []
    assert len(list(recheck.contradicted(attacked(margin=-0.125), claimed))) == 1
    assert len(list(recheck.contradicted(attacked(margin=0.0, violated=True), claimed))) == 2
    assert list(recheck.contradicted(attacked() | {"error": "the worker died"}, claimed)) == []


def test_a_counterexample_that_is_missing_does_not_pass(tmp_path):
    record = asked(verdict="vulnerable", images="folder/none.npz")
    ((claim, why),) = recheck.failed_replays([record], tmp_path / "results.jsonl")
    assert claim.question == HARD[0].question
    assert "missing" in why


def rows(text, title):
    section = text.split(f"## {title}\n")[1].split("\n## ")[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")
    ]


def test_the_hard_list_stands_beside_the_peer():
    records = [
        asked(HARD[0].question, seconds=12.0),
        asked(HARD[1].question, seconds=0.5),
        asked(HARD[4].question, seconds=2.5, verdict="vulnerable"),
        asked(HARD[3].question, seconds=100.2, verdict="unknown", bound=0.0123),
        failed(question=HARD[2].question),
        asked(HARD[5].question, limit=5.0),
    ]
    table = rows(report.render(records, [], 100.0), "Hard list")
    cells = [row[3:] for row in table[2:]]
    assert cells[0] == ["time-out", "robust, 12 s"]
    assert cells[1] == ["robust 1.4 s", "robust, 0.50 s"]
    assert cells[2] == ["time-out", "SolverUnavailableError"]
    assert cells[3] == ["time-out", "open at 0.0123, 100 s"]
    assert cells[5] == ["vulnerable 1.3 s", ""], "measured under another limit"
    assert cells[10] == ["6 of 10", "3 of 10"]
    # Both decide questions 1 and 4: 0.5 and 2.5 s against 1.4 and 1.3 s.
    assert cells[11] == ["", "1.5 s against 1.4 s (2)"]


def test_the_grid_counts_undecided_and_errors_against_the_share():
    grid = queries.grid(PAIRS)
    records = [asked(q, seconds=1.0) for q in grid[:57]]
    records += [asked(q, seconds=100.0, verdict="unknown") for q in grid[57:59]]
    records += [failed(question=grid[59]), asked(Question("381 noDef", 0, 2, 2, 0.003), verdict="unknown")]
    (row,) = rows(report.render(records, [], 100.0), "Grid")[2:]
    assert row == ["auto", "60", "95%, 1.0 / 100 s", "", "", "", "95%, 1.0 / 100 s", "57 / 0"]


def test_engines_are_compared_on_what_both_decide():
    grid = queries.grid(PAIRS)
    records = [asked(q, seconds=seconds) for q, seconds in zip(grid, (1.0, 2.0, 9.0), strict=False)]
    records += [asked(grid[0], "milp", seconds=4.0), asked(grid[1], "milp", seconds=6.0)]
    records += [asked(grid[2], "milp", seconds=100.0, verdict="unknown"), asked(grid[3], "milp", seconds=1.0)]
    (row,) = rows(report.render(records, [], 100.0), "Both decide")[2:]
    assert row == ["milp", "3", "2", "1.5", "5.0", "1", "0"]


def test_all_labels_are_counted_by_state():
    states = ["always in"] * 2 + ["always out"] * 5 + ["can be both"] * 2 + ["undecided"]
    answers = [one_label(label, state) for label, state in enumerate(states)]
    records = [all_labels(answers), all_labels(answers, image=1, seconds=4.0)]
    (row,) = rows(report.render(records, [], 100.0), "All labels of an image")[2:]
    assert row == ["auto", "381 noDef", "2", "0.01", "2", "90%", "4 / 10 / 4 / 2", "3.0", "3.0", "4.0"]


def test_growth_compares_only_complete_series():
    whole = [asked(Question("381 noDef", 0, 2, 2, size)) for size in queries.LADDER_EPSILONS]
    part = [asked(Question("381 noDef", 1, 6, 2, size)) for size in queries.LADDER_EPSILONS[:-1]]
    assert ladder([*whole, *part]) == whole
    by_k = [asked(Question("381 noDef", 3, 0, k, 0.01)) for k in queries.KS]
    assert k_series([*by_k, *part]) == by_k
    text = report.render([*whole, *part, *by_k], [], 100.0)
    assert [row[1] for row in rows(text, "Growth with epsilon")[2:]] == ["1"] * len(queries.LADDER_EPSILONS)
    assert [row[0] for row in rows(text, "Growth with k")[2:]] == ["1", "2", "3", "4", "5"]
    assert rows(text, "Growth with unstable units")[2][:2] == ["25 to 49", str(len(whole + part + by_k))]


def test_the_second_check_is_summed_up():
    records = [
        attacked(),
        attacked(HARD[1].question, margin=-0.01),
        attacked(HARD[2].question, margin=0.5, violated=True),
    ]
    (row,) = rows(report.render([asked()], records, 100.0), "Second check")[2:]
    assert row == ["3", ">= 10000", "20", "cpu", "1", "0", "0.5", "30", "30"]


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [(1, 1, "100%"), (0, 3, "0%"), (39, 40, "97.5%"), (9_999, 10_000, "99.9%"), (1, 3, "33.3%")],
)
def test_a_share_says_100_percent_only_of_all(part, whole, shown):
    assert tables.share(part, whole) == shown


def test_nothing_measured_says_so():
    assert "nothing was measured" in report.render([asked(limit=5.0)], [], 100.0)
