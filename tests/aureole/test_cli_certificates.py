"""`aureole verify --certificate`: what lies in the file is accepted by `aureole check`; nothing half-written ever lies there."""

import json
from pathlib import Path

import numpy as np
import pytest

import aureole as public
from aureole.exits import ExitCode
from verifier.certify import Certification
from verifier.errors import ContradictionError


def printed(ended, check_report):
    assert ended.out.startswith("{"), ended.err
    return check_report(json.loads(ended.out))


def test_a_counterexample_certificate_is_accepted(aureole, check_report, halves, image, tmp_path):
    path = tmp_path / "new" / "found.cert"
    ended = aureole("verify", halves, image, "--label", "1", "--eps", "0.5", "--certificate", path, "--json")
    assert ended.code == ExitCode.VULNERABLE
    report = printed(ended, check_report)
    note = report["certification"]
    assert note["file"] == str(path)
    assert note["bytes"] == path.stat().st_size
    assert note["check_seconds"] >= 0
    assert (note["leaves"], note["reason"]) == (None, None)
    assert [place.name for place in path.parent.iterdir()] == ["found.cert"]
    checked = printed(aureole("check", path, "--network", halves, "--json"), check_report)
    assert (checked["exit_code"], checked["kind"]) == (ExitCode.VULNERABLE, "counterexample")
    assert checked["replay"]["margin_lower"] == report["counterexample"]["margin_lower"]
    assert checked["replay"]["runtime_margin"] == report["counterexample"]["runtime_margin"]
    assert checked["statement"]["property"] == report["property"]["text"]


def test_the_certificate_holds_the_image_that_was_saved(aureole, halves, image, tmp_path):
    from verifier.proof.reader import CertificateReader

    path = tmp_path / "found.cert"
    aureole("verify", halves, image, "--label", "1", "--eps", "0.5", "--certificate", path, "--out", "found")
    with path.open("rb") as source:
        held = CertificateReader(source, path.stat().st_size).image()
    np.testing.assert_array_equal(held, np.load("found/halves-image-stays-in-label1.npy"))


def test_an_open_query_writes_nothing_and_leaves_an_earlier_file(aureole, check_report, halves, image, tmp_path):
    path = tmp_path / "none.cert"
    words = ("verify", halves, image, "--label", "1", "--eps", "0.3", "--timeout", "0", "--certificate", path)
    ended = aureole(*words, "--json")
    note = printed(ended, check_report)["certification"]
    assert ended.code == ExitCode.UNDECIDED
    assert not path.exists()
    assert (note["file"], note["bytes"], note["make_seconds"], note["reason"]) == (
        None,
        None,
        None,
        "the query is open",
    )
    path.write_bytes(b"earlier")
    ended = aureole(*words)
    assert path.read_bytes() == b"earlier"
    assert "the file of that name is an earlier one" in " ".join(ended.out.split())


def test_a_place_that_cannot_be_written_is_refused_before_any_work(aureole, halves, image, tmp_path, monkeypatch):
    monkeypatch.setattr("aureole.api.verify", lambda *_args, **_kwargs: pytest.fail("solved"))
    words = ("verify", halves, image, "--label", "1", "--eps", "0.3", "--certificate")
    blocked = tmp_path / "file"
    blocked.write_text("")
    for path, code, word in (
        (tmp_path, ExitCode.USAGE, "is a folder"),
        (blocked / "x.cert", ExitCode.NO_OUTPUT, "cannot be written"),
        ("/proc/x.cert", ExitCode.NO_OUTPUT, "cannot be written"),
        (halves, ExitCode.USAGE, "is what the question is about"),
        (image, ExitCode.USAGE, "is what the question is about"),
    ):
        ended = aureole(*words, path)
        assert (ended.code, ended.out) == (code, ""), ended
        assert word in ended.err
        assert ended.err.count("\n") == 1


def test_float32_without_a_certificate_is_bad_use(aureole, halves, image):
    ended = aureole("verify", halves, image, "--label", "1", "--eps", "0.3", "--float32")
    assert ended.code == ExitCode.USAGE
    assert "--certificate FILE" in ended.err


def test_a_file_that_cannot_be_written_after_all_costs_nobody_the_answer(
    aureole, check_report, halves, image, tmp_path, monkeypatch
):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("aureole.certificate_files.write_counterexample", full)
    path = tmp_path / "found.cert"
    ended = aureole("verify", halves, image, "--label", "1", "--eps", "0.5", "--certificate", path, "--json")
    assert ended.code == ExitCode.NO_OUTPUT
    report = printed(ended, check_report)
    assert report["verdict"] == "vulnerable"
    assert "No space left" in report["certification"]["reason"]
    assert "No space left" in ended.err
    assert not list(tmp_path.glob("**/*found.cert*"))


def test_a_certificate_that_the_checker_refuses_is_never_left_behind(aureole, halves, image, tmp_path, monkeypatch):
    monkeypatch.setattr("verifier.check.certificates.replay", lambda *_: None)
    path = tmp_path / "found.cert"
    ended = aureole("verify", halves, image, "--label", "1", "--eps", "0.5", "--certificate", path)
    assert (ended.code, ended.out) == (ExitCode.INTERNAL, "")
    assert "the checker refuses the certificate just made" in ended.err
    assert not list(tmp_path.glob("**/*found.cert*"))
    assert Path("out/contradiction.pickle").exists()


def test_ctrl_c_while_the_file_is_checked_keeps_the_answer(aureole, check_report, halves, image, tmp_path, monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("aureole.certificate_files.check_certificate", interrupted)
    path = tmp_path / "found.cert"
    ended = aureole("verify", halves, image, "--label", "1", "--eps", "0.5", "--certificate", path, "--json")
    report = printed(ended, check_report)
    assert (ended.code, report["verdict"]) == (ExitCode.VULNERABLE, "vulnerable")
    assert report["certification"]["reason"] == "interrupted"
    assert not list(tmp_path.glob("**/*found.cert*"))


def vulnerable(halves, pixels):
    network = public.load_network(halves)
    query = public.Query(network, public.Box.around(pixels, 0.5), public.stays_in_top_k(1, 2, 4))
    return query, public.verify(query)


def test_python(halves, pixels, tmp_path):
    query, outcome = vulnerable(halves, pixels)
    saved = public.save_certificate(tmp_path / "found.cert", query, outcome)
    assert isinstance(saved, public.SavedCertificate)
    report = public.check_certificate(saved.path, halves)
    assert isinstance(report, public.CheckReport)
    assert report.accepted
    assert not report.is_proof
    assert report.runtime_margin == outcome.verdict.counterexample.runtime_margin


def test_evidence_for_another_question_is_refused(halves, pixels, tmp_path):
    query, outcome = vulnerable(halves, pixels)
    other = public.Query(query.network, public.Box.around(pixels, 0.1), query.property)
    with pytest.raises(ContradictionError, match="refuses the certificate"):
        public.save_certificate(tmp_path / "found.cert", other, outcome)
    assert not list(tmp_path.glob("*found*"))


def test_a_proof_is_written_and_accepted(aureole, check_report, halves, image, tmp_path):
    path = tmp_path / "proof.cert"
    words = ("verify", halves, image, "--label", "1", "--eps", "0.3", "--certificate", path)
    ended = aureole(*words, "--json")
    report = printed(ended, check_report)
    assert (ended.code, report["verdict"]) == (ExitCode.ROBUST, "robust")
    assert report["certificate"]["trusted"] == []
    note = report["certification"]
    assert (note["file"], note["bytes"], note["reason"]) == (str(path), path.stat().st_size, None)
    assert note["make_seconds"] >= 0
    assert note["check_seconds"] >= 0
    assert not note["covers_float32"]
    checked = printed(aureole("check", path, "--network", halves, "--json"), check_report)
    assert (checked["exit_code"], checked["kind"]) == (ExitCode.ROBUST, "proof")
    assert checked["proof"]["leaves"] == note["leaves"]
    assert checked["statement"]["property"] == report["property"]["text"]
    text = " ".join(aureole(*words).out.split())
    for part in (
        "certified",
        "taken on trust nothing",
        "proof.cert",
        f"{note['bytes']:,} bytes",
        "made in",
        "checked in",
    ):
        assert part in text
    assert [place.name for place in tmp_path.glob("*.cert")] == ["proof.cert"]
    assert not list(tmp_path.glob(".*"))


def test_a_proof_for_float32_passes_the_stricter_check(aureole, check_report, halves, image, tmp_path):
    path = tmp_path / "proof.cert"
    words = ("verify", halves, image, "--label", "1", "--eps", "0.3", "--certificate", path)
    ended = aureole(*words, "--require-certificate", "--float32", "--json")
    assert ended.code == ExitCode.ROBUST
    assert printed(ended, check_report)["certification"]["covers_float32"]
    assert aureole("check", path, "--network", halves, "--float32").code == ExitCode.ROBUST


def test_a_proof_may_stay_in_memory(aureole, check_report, halves, image):
    words = ("verify", halves, image, "--label", "1", "--eps", "0.3", "--require-certificate")
    note = printed(aureole(*words, "--json"), check_report)["certification"]
    assert (note["file"], note["bytes"], note["check_seconds"], note["reason"]) == (None, None, None, None)
    assert note["leaves"] >= 1
    assert note["make_seconds"] >= 0
    assert "a proof the checker accepted" in aureole(*words).out


def test_where_none_can_be_made_the_answer_says_why(aureole, check_report, halves, image, tmp_path, monkeypatch):
    gave_up = Certification(None, "out of ideas", 0.0, 0.0)
    monkeypatch.setattr("verifier.verify.certification.certify", lambda *_args, **_kwargs: gave_up)
    path = tmp_path / "proof.cert"
    words = ("verify", halves, image, "--label", "1", "--eps", "0.3")
    ended = aureole(*words, "--certificate", path, "--json")
    report = printed(ended, check_report)
    assert (ended.code, report["verdict"]) == (ExitCode.ROBUST, "robust")
    assert report["certificate"]["trusted"]
    assert report["certification"]["reason"] == "out of ideas"
    assert not path.exists()
    ended = aureole(*words, "--require-certificate", "--json")
    report = printed(ended, check_report)
    assert (ended.code, report["verdict"]) == (ExitCode.UNDECIDED, "undecided")
    assert report["reason"]["name"] == "NOT_CERTIFIED"
    assert report["best_bound"] is None
    assert "out of ideas" in aureole(*words, "--require-certificate").out


def test_python_proofs(halves, pixels, tmp_path):
    network = public.load_network(halves)
    query = public.Query(network, public.Box.around(pixels, 0.3), public.stays_in_top_k(1, 2, 4))
    assert public.save_certificate(tmp_path / "none.cert", query, public.verify(query)) is None
    outcome = public.verify(query, certify=True)
    saved = public.save_certificate(tmp_path / "proof.cert", query, outcome)
    assert saved.report.accepted
    assert public.check_certificate(saved.path, network).leaves == outcome.proof.leaves
    with pytest.raises(public.InputError, match="float32"):
        public.verify(query, float32=True)
