"""Only a test that ends its worker is run again, and once."""

import pathlib
import subprocess
import sys

TESTS = """
import os, pathlib

def test_that_ends_once():
    seen = pathlib.Path("seen")
    if not seen.exists():
        seen.touch()
        os._exit(3)

def test_that_always_ends():
    os._exit(3)

def test_that_fails():
    with open("fails", "a") as log:
        log.write("x")
    assert False

def test_that_passes():
    pass
"""


def test_a_test_that_ends_its_worker_is_run_once_more(tmp_path):
    (tmp_path / "test_it.py").write_text(TESTS)
    own = pathlib.Path(__file__).with_name("crashes.py")
    (tmp_path / "conftest.py").write_text(own.read_text())
    command = [sys.executable, "-m", "pytest", "-n", "1", "--dist", "worksteal"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "2 failed, 2 passed, 2 rerun in" in done.stdout, done.stdout
    assert (tmp_path / "fails").read_text() == "x"
