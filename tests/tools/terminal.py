"""Type at a program in a terminal, waiting for its prompt each time: terminal.py TEXT... -- COMMAND...

A TEXT is Python's: \\t, \\x1b and the like are read. Prints what the terminal showed."""
import os
import pty
import sys

at = sys.argv.index("--")
texts = [t.encode().decode("unicode_escape").encode("latin-1") for t in sys.argv[1:at]]
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[at + 1], sys.argv[at + 1:])
shown = b""
while True:
    try:
        data = os.read(fd, 4096)
    except OSError: # the terminal is closed
        break
    if not data:
        break
    shown += data
    if shown.endswith(b"> ") and texts:
        text, texts = texts[0], texts[1:]
        os.write(fd, text)
_, status = os.waitpid(pid, 0)
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(status))
