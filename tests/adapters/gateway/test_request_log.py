from pathlib import Path

import pytest

from kapelle.adapters.gateway.request_log import RequestLog


def test_faults_are_counted_by_key(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "log")
    log.consume("a")
    log.consume("a")
    log.consume("b")
    assert log.counts == {"a": 2, "b": 1}


def test_counts_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log"
    first = RequestLog(path)
    first.consume("räum/äuf/1/0/0")
    first.consume("b")
    second = RequestLog(path)
    assert second.counts == first.counts
    second.consume("b")
    assert RequestLog(path).counts == {"räum/äuf/1/0/0": 1, "b": 2}


def test_a_count_is_on_disk_before_its_fault_happens(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = RequestLog(path)
    assert not path.exists()
    log.consume("a")
    assert RequestLog(path).counts == log.counts == {"a": 1}


def test_a_last_line_cut_anywhere_loses_at_most_itself(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = RequestLog(path)
    log.consume("a")
    whole_first = path.stat().st_size
    log.consume("b")
    content = path.read_bytes()
    for cut in range(whole_first, len(content)):
        path.write_bytes(content[:cut])
        assert RequestLog(path).counts == {"a": 1}, cut


def test_a_count_after_a_cut_line_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text('\n{"key": "a"}\n{"ke')
    RequestLog(path).consume("b")
    assert RequestLog(path).counts == {"a": 1, "b": 1}


@pytest.mark.parametrize("line", ["", "null", "7", "[1]", '"key"', '{"yek": "a"}', '{"key": []}', "{", "\ufffd", '{"key": {}}'])
def test_a_line_that_says_nothing_is_passed_over(tmp_path: Path, line: str) -> None:
    path = tmp_path / "log"
    path.write_text(f'{line}\n{{"key": "a"}}\n{line}')
    assert RequestLog(path).counts == {"a": 1}


def test_bytes_that_are_no_text_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'\xff\xfe\n{"key": "a"}\n\x00')
    assert RequestLog(path).counts == {"a": 1}
