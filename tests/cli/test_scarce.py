"""Little memory: limits of the address space, and what libraries do in them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")

HEAD = "import os, signal, sys, time; from stac_latent.cli.scarce import told, watched; watched(); "


def limited(code, size=2_000_000_000):
    import resource

    return subprocess.Popen(
        [sys.executable, "-c", HEAD + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size)),  # noqa: PLW1509 - no threads here
    )


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS"])
def test_a_library_that_ends_the_process(name):
    run = limited(f"os.kill(os.getpid(), signal.{name})")
    _, said = run.communicate(timeout=60)
    assert run.returncode == 1
    assert said == (
        f"error MemoryError: not enough memory: a library ended the process with {name}; the address space is limited to "
        "1907 MiB, raise that (ulimit -v, RLIMIT_AS) to 4096 MiB or more, or ask for less at once\n"
    )


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("    bytearray(1 << 40)", "an allocation failed"),
        ('    raise RuntimeError("can\'t start new thread")', "can't start new thread"),
        (
            "    raise OSError('Failed to launch worker thread: Resource temporarily unavailable')",
            "Failed to launch worker thread",
        ),
        (
            "    raise ImportError('libx.so: failed to map segment from shared object')",
            "libx.so: failed to map",
        ),
        (
            "    try: bytearray(1 << 40)\n    except MemoryError as exc: raise ValueError('x') from exc",
            "an allocation",
        ),
    ],
)
def test_exceptions_for_lack_of_memory_are_one_line(code, text):
    run = limited(f"\nwith told():\n{code}")
    _, said = run.communicate(timeout=60)
    assert run.returncode == 1
    assert said.startswith(f"error MemoryError: not enough memory: {text}")
    assert said.count("\n") == 1


def test_other_exceptions_stay_as_they_are():
    run = limited("\nwith told():\n    raise ValueError('of something else')")
    _, said = run.communicate(timeout=60)
    assert run.returncode == 1
    assert said.endswith("ValueError: of something else\n")


def test_exit_codes_and_output_are_those_of_the_command(monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    run = limited("print(os.environ['OPENBLAS_NUM_THREADS']); sys.exit(3)")
    assert run.communicate(timeout=60) == ("1\n", "")
    assert run.returncode == 3


def test_more_room_leaves_threads_alone(monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    run = limited("print(os.environ.get('OPENBLAS_NUM_THREADS'))", 8 << 30)
    assert run.communicate(timeout=60) == ("None\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_are_passed_on(number):
    code = f"signal.signal({int(number)}, lambda n, _: sys.exit(40 + n)); print('ready', flush=True); time.sleep(60)"
    run = limited(code)
    assert run.stdout.readline() == "ready\n"
    started = time.monotonic()
    os.kill(run.pid, number)
    run.communicate(timeout=60)
    assert run.returncode == 40 + number
    assert time.monotonic() - started < 30
