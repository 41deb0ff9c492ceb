"""Run a command whose standard output is a pipe that nobody reads: closed_pipe.py COMMAND...

Ends with its exit status, 128 + N by a signal N."""
import os
import subprocess
import sys

reader, writer = os.pipe()
os.close(reader)
status = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=writer).returncode
sys.exit(status if status >= 0 else 128 - status)
