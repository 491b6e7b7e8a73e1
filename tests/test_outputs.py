from emcurate import outputs


def test_fingerprint_changes_with_a_file_of_a_directory(tmp_path):
    (tmp_path / "1.png").write_bytes(b"a")
    before = outputs.fingerprint(tmp_path)
    assert outputs.fingerprint(tmp_path) == before
    (tmp_path / "2.png").write_bytes(b"b")
    assert outputs.fingerprint(tmp_path) != before
