"""Progress in a log file: whole lines, few of them."""

import subprocess
import sys

CODE = """
import time
import catheters.progress as progress
progress.SECONDS_BETWEEN_LOG_LINES = 0.2
assert list(progress.track((time.sleep(0.05) or i for i in range(20)), "reading", 20)) == list(range(20))
"""


def test_a_log_file_gets_lines() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert "\r" not in done.stderr
    assert 2 <= len(lines) <= 8, done.stderr  # 1 s of work at one line in 0.2 s, not one for each of 20 items
    assert all(line.startswith("reading") for line in lines)
    assert "20/20" in lines[-1]


def test_short_work_is_silent() -> None:
    code = "from catheters.progress import track\nassert sum(track(range(5), 'reading', 5)) == 10"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
