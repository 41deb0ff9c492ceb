"""Send a signal to a running job when it has come to a state, however busy the machine is.

usage: at_state.py [--to-child N] RUN STATE SIGNAL COMMAND...

RUN      the directory the job writes. STATE waits for one of
           N        that many lines of RUN/metrics.jsonl
           N..M     the same, and the job must not have written M lines by its end
           GLOB     a file of RUN that matches; GLOB|GLOB|...: any of them
SIGNAL   TERM, USR1, ...: to the command's process; TERM*3000: so often, or until it is gone; KILL: to all its processes.
--to-child N   to the N-th of the command's children (of mpirun: a rank) instead

A job that comes to its end before the signal reaches it, because this script got no processor in time, is started again with RUN as
it was. What the job writes goes to RUN.log. The exit status is the job's, 128 + the signal's number where a signal ended it."""
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import time


def lines_of(run):
    try:
        with open(f"{run}/metrics.jsonl", "rb") as f:
            return f.read().count(b"\n")
    except FileNotFoundError:
        return 0


def parse_state(run, text):
    """Functions that say whether the state is reached, and whether the job was still within it at its end."""
    steps = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", text)
    if steps:
        first, end = int(steps[1]), int(steps[2] or sys.maxsize)
        return lambda: lines_of(run) >= first, lambda: lines_of(run) < end
    patterns = text.split("|")
    return lambda: any(glob.glob(f"{run}/{p}") for p in patterns), lambda: True


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return [int(child) for child in f.read().split()]


def send(job, name, to_child):
    """Whether the job was there to get the signal."""
    name, _, times = name.partition("*")
    number = getattr(signal, "SIG" + name)
    for i in range(int(times or 1)):
        if job.poll() is not None:
            return i > 0
        try:
            if to_child:
                os.kill(children(job.pid)[to_child - 1], number)
            elif number == signal.SIGKILL:
                os.killpg(job.pid, number)
            else:
                os.kill(job.pid, number)
        except (ProcessLookupError, FileNotFoundError, IndexError):
            return i > 0
    return True


def attempt(run, state, name, command, to_child):
    """Start the job, send the signal: its return code, or None when it was over before, or too far."""
    reached, within = parse_state(run, state)
    with open(f"{run}.log", "w") as log:
        job = subprocess.Popen(command, start_new_session=True, stdout=log, stderr=subprocess.STDOUT)
    while job.poll() is None and not reached():
        time.sleep(0.0005)
    sent = job.poll() is None and send(job, name, to_child)
    code = job.wait()
    if not sent and code != 0:
        sys.exit(f"the job failed before '{state}' was reached, exit status {code}:\n{open(run + '.log').read()}")
    return code if sent and code != 0 and within() else None


def main():
    arguments = sys.argv[1:]
    to_child = 0
    if arguments[0] == "--to-child":
        to_child, arguments = int(arguments[1]), arguments[2:]
    run, state, name, command = arguments[0], arguments[1], arguments[2], arguments[3:]
    before = f"{run}.before"
    if os.path.isdir(run):
        shutil.copytree(run, before, symlinks=True)
    while True:
        code = attempt(run, state, name, command, to_child)
        if code is not None:
            break
        print(f"{run}: the job was over, or beyond '{state}', before the signal came; once more", file=sys.stderr, flush=True)
        shutil.rmtree(run, ignore_errors=True)
        if os.path.isdir(before):
            shutil.copytree(before, run, symlinks=True)
    shutil.rmtree(before, ignore_errors=True)
    sys.exit(128 - code if code < 0 else code)


main()
