"""Terms of gated corpora: refused until somebody has accepted them as they are today, by hand or by a script."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from affect_hpc.config import terms
from affect_hpc.config.corpora import CORPORA, GatedDataConfig
from affect_hpc.core.errors import UserError
from affect_hpc.data.__main__ import main

NOON = 1_700_000_000.0


class Terminal:
    """Standard input of somebody who answers."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return f"{self._answers.pop(0)}\n" if self._answers else ""


def test_every_gated_corpus_has_terms_and_no_other() -> None:
    assert {name for name, corpus in CORPORA.items() if issubclass(corpus, GatedDataConfig)} == set(terms.TERMS)


@pytest.mark.parametrize("corpus", terms.TERMS)
def test_terms_are_refused_until_they_are_accepted(corpus: str, tmp_path: Path) -> None:
    folder = tmp_path / "a store" / terms.FOLDER
    command = f"python -m affect_hpc.data accept {corpus} --store '{tmp_path}/a store'"
    with pytest.raises(UserError) as caught:
        terms.require_accepted(corpus, folder)
    assert command in str(caught.value) and "\n" not in str(caught.value)
    terms.accept(corpus, folder, " Ada L. ", clock=lambda: NOON)
    terms.require_accepted(corpus, folder)
    record = json.loads((folder / f"{corpus}.json").read_text())
    assert record["who"] == "Ada L." and record["when"] == "2023-11-14T22:13:20+00:00" and record["corpus"] == corpus
    assert record["terms"] == terms.summary(corpus)["digest"]
    others = set(terms.TERMS) - {corpus}
    for other in others:
        with pytest.raises(UserError):
            terms.require_accepted(other, folder)


def test_terms_that_have_changed_are_to_be_accepted_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terms.accept("affectnet", tmp_path, "Ada", clock=lambda: NOON)
    before = terms.summary("affectnet")
    changed = replace(terms.TERMS["affectnet"], points=(*before["points"], "No use on Sundays."), version="v9")
    monkeypatch.setattr(terms, "TERMS", {"affectnet": changed})
    with pytest.raises(UserError, match=r"Ada accepted other terms .*\(v9\), on 2023-11-14.*accept affectnet"):
        terms.require_accepted("affectnet", tmp_path)
    assert terms.summary("affectnet")["digest"] != before["digest"]
    terms.accept("affectnet", tmp_path, "Ada")
    terms.require_accepted("affectnet", tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"who": "Ada"}', "\udcff"])
def test_a_damaged_record_is_one_sentence(tmp_path: Path, content: str) -> None:
    terms.record_path("mead", tmp_path).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"mead.json is no record of acceptance .*: remove it and run") as caught:
        terms.require_accepted("mead", tmp_path)
    assert "\n" not in str(caught.value)


def test_the_summary_is_json_with_all_that_readers_need() -> None:
    summary = terms.summary("affectnet")
    assert json.loads(json.dumps(summary)) == summary
    shown = terms.TERMS["affectnet"]
    assert (summary["name"], summary["owner"], summary["url"]) == (shown.name, shown.owner, shown.url)
    assert tuple(summary["points"]) == shown.points and summary["citation"] == shown.citation


def test_nobody_cannot_accept(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"accepted by somebody: give a name"):
        terms.accept("mead", tmp_path, "  ")
    assert not list(tmp_path.iterdir())


def test_the_command_asks_for_a_name_and_a_yes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["accept", "affectnet", "--store", str(tmp_path)]
    monkeypatch.setattr(sys, "stdin", Terminal("Ada", "no"))
    assert main(words) == 2
    said = capsys.readouterr()
    assert "not accepted, nothing was recorded" in said.err
    assert all(point.split()[0] in said.out for point in terms.TERMS["affectnet"].points)
    monkeypatch.setattr(sys, "stdin", Terminal("Ada"))
    assert main(words) == 130
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(sys, "stdin", Terminal("Ada", "Yes"))
    assert main(words) == 0
    terms.require_accepted("affectnet", tmp_path / terms.FOLDER)
    assert main(["terms", "affectnet", "--store", str(tmp_path)]) == 0
    assert "accepted by Ada on" in capsys.readouterr().out


def test_a_script_must_name_who_accepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for given in ([], ["--yes"], ["--by", "Ada"]):
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        assert main(["accept", "mead", *given]) == 2
        assert "give --by NAME --yes" in capsys.readouterr().err
    assert main(["terms", "mead"]) == 0
    assert "not accepted: data=mead: nobody has accepted" in capsys.readouterr().out
    assert main(["accept", "mead", "--by", "Ada", "--yes"]) == 0
    terms.require_accepted("mead", tmp_path / terms.FOLDER)


@pytest.mark.parametrize("command", ["accept", "terms"])
def test_an_unknown_corpus_is_one_sentence(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "afectnet"]) == 2
    assert capsys.readouterr().err == (
        "'afectnet' is no corpus with terms to accept: the valid ones are affectnet, mead.\n"
    )


def test_the_command_loads_no_torch() -> None:
    program = "import sys; import affect_hpc.data.__main__; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parent.parent.parent
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0
