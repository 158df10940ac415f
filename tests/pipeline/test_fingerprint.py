import os

from pipeline import fingerprint


def test_files_that_change_have_another_fingerprint(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    pattern = (str(tmp_path / "*.txt"),)
    before = fingerprint.of_files(pattern)
    assert fingerprint.of_files(pattern) == before
    path.write_text("longer")
    changed = fingerprint.of_files(pattern)
    os.utime(path, (1, 1))
    touched = fingerprint.of_files(pattern)
    (tmp_path / "b.txt").write_text("two")
    assert len({before, changed, touched, fingerprint.of_files(pattern), fingerprint.of_files(())}) == 5


def test_a_folder_stands_for_its_files(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    before = fingerprint.of_files((str(tmp_path),))
    (tmp_path / "a.txt").write_text("longer")
    assert fingerprint.of_files((str(tmp_path),)) != before


def test_code_of_other_packages_does_not_matter():
    assert fingerprint.of_code("preprocessing") == fingerprint.of_code("preprocessing")
    assert fingerprint.of_code("preprocessing") != fingerprint.of_code("preprocessing", "model")
    assert fingerprint.of_code("pipeline.split") != fingerprint.of_code("pipeline.trainer")
