"""Traces: written as steps happen, read back exactly, refused where they belong to another question."""

import json

import numpy as np
import pytest

from synth.cuts import Cut
from synth.result import GrowStep, QueryCounts, StepKind, StepVerdict
from synth.size import Size, SizeKind
from synth.trace import TraceKey, append, cut_record, open_trace, step_record
from synth.zones import Zones
from verifier.errors import InputError
from verifier.verdict import Counterexample


def zones(image=None, first=0):
    pixels = np.zeros((1, 3), dtype=np.bool_)
    pixels[0, first] = True
    return Zones.of_layers(np.zeros((1, 1, 3)) if image is None else image, pixels)


def key(**changes):
    parts = {"sha": "ab", "zones": zones(), "goals": ["label 1 stays in"], "objective": Size(np.ones(3))} | changes
    return TraceKey.of(parts["sha"], parts["zones"], parts["goals"], parts["objective"])


def step(index, epsilons, verdict=StepVerdict.ROBUST, bound=-0.5):
    size, counts = float(np.sum(epsilons)), QueryCounts(complete=1, bounds=index)
    return GrowStep(index, StepKind.GROW, None, np.array(epsilons), size, bound, verdict, counts, 0.1, size)


def write(path, *steps):
    open_trace(path, key())
    for one in steps:
        append(path, step_record(one))


def test_a_new_trace_starts_empty_and_reads_back_the_last_robust_epsilons_exactly(tmp_path):
    path = tmp_path / "trace.jsonl"
    fresh = open_trace(path, key())
    assert (fresh.epsilons, fresh.counts, fresh.next_index) == (None, QueryCounts(), 0)
    third = [0.1 + 0.2, 1 / 3, 0.0]
    for one in (step(0, [0.1, 0.0, 0.0]), step(1, third), step(2, [1.0, 1.0, 1.0], StepVerdict.VULNERABLE, np.inf)):
        append(path, step_record(one))
    checkpoint = open_trace(path, key())
    assert checkpoint.epsilons.tolist() == third
    assert (checkpoint.counts, checkpoint.next_index) == (QueryCounts(complete=1, bounds=2), 3)


def test_counterexamples_read_back_exactly(tmp_path):
    path = tmp_path / "trace.jsonl"
    image = np.array([[[0.1, 1 / 3, 1.0]]], dtype=np.float32)
    found = Counterexample(image, np.zeros(2), 0.1, np.zeros(2, dtype=np.float32), 0.1, "attack")
    open_trace(path, key())
    append(path, cut_record(Cut(np.array([0.1, 1 / 3, 1.0]), found)))
    append(path, step_record(step(0, [0.1, 0.0, 0.0])))
    (read,) = open_trace(path, key()).images
    assert read.dtype == np.float32
    assert np.array_equal(read, image)


def test_a_trace_from_before_there_were_kinds_of_size_is_linear(tmp_path):
    path = tmp_path / "trace.jsonl"
    write(path, step(0, [0.1, 0.0, 0.0]))
    header, *steps = path.read_text().splitlines()
    old = json.loads(header)
    assert old.pop("size") == "linear"
    path.write_text("\n".join([json.dumps(old), *steps]) + "\n")
    assert open_trace(path, key()).epsilons.tolist() == [0.1, 0.0, 0.0]
    with pytest.raises(InputError, match="its size differ"):
        open_trace(path, key(objective=Size(np.ones(3), SizeKind.VOLUME)))


def test_every_line_is_strict_json(tmp_path):
    path = tmp_path / "trace.jsonl"
    write(path, step(0, [0.0, 0.0, 0.0], bound=None), step(1, [0.5, 0.0, 0.0], bound=float("nan")))

    def refuse(text):
        raise AssertionError(text)

    records = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert [record.get("verdict") for record in records] == [None, "robust", "robust"]


def test_a_line_cut_off_is_dropped(tmp_path):
    path = tmp_path / "trace.jsonl"
    write(path, step(0, [0.1, 0.0, 0.0]))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"index": 1, "epsil')
    assert open_trace(path, key()).epsilons.tolist() == [0.1, 0.0, 0.0]
    assert path.read_bytes() == whole
    path.write_bytes(whole[:20])
    assert open_trace(path, key()).epsilons is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sha": "cd"}, "network"),
        ({"goals": ["label 2 stays in"]}, "goals"),
        ({"objective": Size(np.array([1.0, 1.0, 2.0]))}, "weights"),
        ({"objective": Size(np.ones(3), SizeKind.VOLUME)}, "size"),
        ({"zones": zones(np.ones((1, 1, 3)))}, "image"),
        ({"zones": zones(first=2)}, "zones"),
    ],
)
def test_a_trace_of_another_question_is_refused_and_left_alone(tmp_path, changes, named):
    path = tmp_path / "trace.jsonl"
    write(path, step(0, [0.1, 0.0, 0.0]))
    before = path.read_bytes()
    with pytest.raises(InputError, match=f"its {named} differ"):
        open_trace(path, key(**changes))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello\n", "not JSON"),
        (b"hello", "no trace file"),
        (b"[1]\n", "no JSON object"),
        (b'{"format": "other"}\n', "is no"),
    ],
)
def test_other_files_are_refused_and_left_alone(tmp_path, content, message):
    path = tmp_path / "trace.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_trace(path, key())
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"counterexample": "AAAA", "shape": [1, 1, 3]}', "neither step nor counterexample"),
        ('{"counterexample": "?", "shape": [1, 1, 3]}', "neither step nor counterexample"),
        ('{"index": 0}', "neither step nor counterexample"),
        (
            '{"index": 0, "counts": {"complete": 1}, "epsilons": [2, 0, 0], "weighted_size": 2, "verdict": "robust"}',
            "wrong epsilons",
        ),
        (
            '{"index": 0, "counts": {"complete": 1}, "epsilons": [0], "weighted_size": 0, "verdict": "robust"}',
            "wrong epsilons",
        ),
        (
            '{"index": 0, "counts": {"complete": 1}, "epsilons": ["a"], "weighted_size": 0, "verdict": "robust"}',
            "neither step nor counterexample",
        ),
    ],
)
def test_damaged_steps_are_refused(tmp_path, line, message):
    path = tmp_path / "trace.jsonl"
    write(path)
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=message):
        open_trace(path, key())


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(InputError, match="trace"):
        open_trace(tmp_path / "missing" / "trace.jsonl", key())
    with pytest.raises(InputError, match="trace"):
        open_trace(tmp_path, key())
