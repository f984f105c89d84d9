"""Ctrl-C, SIGTERM and SIGUSR1: put off while something has to be saved, never lost; a second one is obeyed at once."""

import subprocess
import sys

import pytest

from tests.hangs import run_watched

COMMAND = """
import os, signal, time
from catheters.commands.command_line import run_command
from catheters.runtime.interrupts import Interrupted, deferred_interrupts, interrupt_signal, leave_interrupts_to_parent
from catheters.runtime.interrupts import end_with_this_process, interrupts_held_back
from catheters.runtime import interrupts

def command(arguments):
{body}
    return 0

run_command(command)
"""


def run(body: str) -> subprocess.CompletedProcess[str]:
    code = COMMAND.format(body="\n".join(f"    {line}" for line in body.strip().splitlines()))
    return run_watched([sys.executable, "-c", code])


@pytest.mark.parametrize(
    ("name", "status", "shown"), [("SIGTERM", 143, "SIGTERM"), ("SIGINT", 130, "Ctrl-C"), ("SIGUSR1", 138, "SIGUSR1")]
)
def test_a_signal_waits_until_work_is_saved(name: str, status: int, shown: str) -> None:
    done = run(f"""
interrupts.SECONDS_OF_ONE_REQUEST = 3600.0
with deferred_interrupts():
    os.kill(os.getpid(), signal.{name})
    os.kill(os.getpid(), signal.SIGTERM)  # at once: as torchrun passes on what a terminal has sent
    print("still here", interrupt_signal() == signal.{name})
    raise Interrupted("saved", interrupt_signal())
""")
    assert done.stdout == "still here True\n"
    assert done.stderr == f"\nstopped by {shown}: saved\n"
    assert done.returncode == status


def test_a_signal_is_obeyed_when_nothing_asked_for_it() -> None:
    done = run("""
with deferred_interrupts():
    os.kill(os.getpid(), signal.SIGTERM)
    print("inside")
print("behind")
""")
    assert (done.stdout, done.returncode) == ("inside\n", 143)


def test_a_second_signal_stops_at_once() -> None:
    done = run("""
interrupts.SECONDS_OF_ONE_REQUEST = 1e-9
with deferred_interrupts():
    os.kill(os.getpid(), signal.SIGINT)
    print("first")
    os.kill(os.getpid(), signal.SIGINT)
    print("second")
""")
    assert (done.stdout, done.returncode) == ("first\n", 130)


def test_a_batch_system_may_send_sigusr1_twice() -> None:
    """And SIGTERM at last, when its time is over: that one stops at once."""
    done = run("""
interrupts.SECONDS_OF_ONE_REQUEST = 1e-9
with deferred_interrupts():
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGUSR1)
    print("still here")
    os.kill(os.getpid(), signal.SIGTERM)
    print("not here")
""")
    assert (done.stdout, done.returncode) == ("still here\n", 138)


def test_a_second_sigusr1_does_not_cut_the_end_short() -> None:
    """Also where nothing is put off: what has been interrupted goes on to its end."""
    done = run("""
try:
    os.kill(os.getpid(), signal.SIGUSR1)
finally:
    os.kill(os.getpid(), signal.SIGUSR1)
    print("tidied up")
""")
    assert (done.stdout, done.returncode) == ("tidied up\n", 138)


def test_a_worker_is_not_stopped_by_a_signal_to_it_and_its_parent() -> None:
    """Not while it starts, nor later; it exits with its parent, where Python would send SIGTERM and wait for ever."""
    done = run("""
import multiprocessing
context = multiprocessing.get_context("fork")
started, signalled, ready = context.Event(), context.Event(), context.Event()
def work():
    started.set()
    signalled.wait()
    leave_interrupts_to_parent()
    ready.set()
    while True:
        signal.pause()
process = context.Process(target=work, daemon=True)
with interrupts_held_back():
    process.start()
end_with_this_process([process])
started.wait()
os.kill(process.pid, signal.SIGINT)
os.kill(process.pid, signal.SIGTERM)
os.kill(process.pid, signal.SIGUSR1)
signalled.set()
ready.wait()
os.kill(process.pid, signal.SIGTERM)
os.kill(process.pid, signal.SIGINT)
os.kill(process.pid, signal.SIGUSR1)
process.join(0.2)
print(process.is_alive())
""")
    assert (done.stdout, done.returncode, done.stderr) == ("True\n", 0, "")


def test_signals_that_are_held_back_come_afterwards() -> None:
    done = run("""
with interrupts_held_back():
    os.kill(os.getpid(), signal.SIGTERM)
    print("inside")
print("behind")
""")
    assert (done.stdout, done.returncode) == ("inside\n", 143)


def test_another_thread_hears_of_a_signal_at_once() -> None:
    """The main thread waits in C, which no signal ends, until the other one has heard."""
    done = run("""
import ctypes, threading
from catheters.runtime.interrupts import has_interrupt_arrived
libc = ctypes.CDLL(None)
mutex = ctypes.create_string_buffer(64)  # zeros: one that nobody has
is_taken, found = threading.Event(), []

def hear():
    libc.pthread_mutex_lock(mutex)
    is_taken.set()
    while f"{ctypes.addressof(mutex):#x}" not in open(f"/proc/self/task/{os.getpid()}/syscall").read():
        time.sleep(0.01)
    found.append(has_interrupt_arrived())
    os.kill(os.getpid(), signal.SIGTERM)
    while not has_interrupt_arrived():
        time.sleep(0.01)
    found.append(interrupt_signal())
    libc.pthread_mutex_unlock(mutex)

with deferred_interrupts():
    threading.Thread(target=hear).start()
    is_taken.wait()
    libc.pthread_mutex_lock(mutex)
    print(found, interrupt_signal() == signal.SIGTERM)
    raise Interrupted("saved", interrupt_signal())
""")
    assert done.stdout == "[False, None] True\n", done.stderr


def test_a_forked_process_hears_its_own_signals_alone() -> None:
    done = run("""
from catheters.runtime.interrupts import has_interrupt_arrived
pid = os.fork()
if pid == 0:
    with deferred_interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(not has_interrupt_arrived())
print(os.waitpid(pid, 0)[1], has_interrupt_arrived())
""")
    assert done.stdout == "0 False\n", done.stderr
