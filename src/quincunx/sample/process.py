"""How processes are started, ended for certain, and spoken of."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence


def start(
    command: Sequence[str], errors: int | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a process with pipes, in a group of its own: an interrupt reaches us alone, and we end the whole group."""
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, env=environment, start_new_session=True)


def strike(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all it started, at once."""
    if process.returncode is not None:
        return
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all it started, wait for its end, and close its pipes."""
    strike(process)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def ending(code: int) -> str:
    """`exit code 3`, or `SIGSEGV`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
