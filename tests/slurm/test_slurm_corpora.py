"""A raw corpus prepared by array jobs on a real SLURM."""

from pathlib import Path

import pytest
from raw_corpora import accept, digests, inspect, prepare, write_affectnet, write_mead

from affect_hpc.config.packaged import missing

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.xdist_group("slurm"),
    pytest.mark.skipif(bool(missing("dlib_landmarks")), reason="dlib's landmark network is not installed"),
]


@pytest.mark.parametrize("corpus", ["affectnet", "mead"])
def test_array_jobs_write_the_bytes_of_the_local_run(tmp_path: Path, devcluster: dict[str, str], corpus: str) -> None:
    root = tmp_path / "raw"
    if corpus == "mead":
        write_mead(root)
    else:
        write_affectnet(root, "csv")
    here, there = tmp_path / "here", tmp_path / "there"
    for store in (here, there):
        assert accept(corpus, store).code == 0
    said = prepare(corpus, root, here)
    assert said.code == 0, said.out + said.err
    conf = devcluster["SLURM_CONF"]
    said = prepare(corpus, root, there, "cluster=slurm_dev", "watch=true", SLURM_CONF=conf)
    assert said.code == 0, said.out + said.err
    assert digests(there) == digests(here) != {}
    assert inspect(there).code == 0
