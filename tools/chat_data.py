#!/usr/bin/env python3
"""Conversations about Debian packages, from what dpkg and apt know on this machine: real text for the fine-tuning of tools/quickstart.

usage: tools/chat_data.py OUT.jsonl COUNT
"""
import hashlib
import json
import subprocess
import sys


def packages():
    """(name, summary) of every package that apt has lists of, or of those installed."""
    for command in (["apt-cache", "dumpavail"], ["dpkg-query", "-W", "-f", "Package: ${Package}\nDescription: ${binary:Summary}\n\n"]):
        try:
            text = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60).stdout.decode("utf-8", "replace")
        except (OSError, subprocess.TimeoutExpired):
            continue
        found = {}
        for block in text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(" "))
            summary = fields.get("Description") or fields.get("Description-en")
            if "Package" in fields and summary:
                found[fields["Package"]] = summary.strip()
        if len(found) >= 100:
            return found
    raise SystemExit("error: neither apt-cache nor dpkg-query lists packages")


QUESTIONS = ("What is {}?", "What does the package {} hold?", "Tell me about {}.", "Which package should I install for this: {}?")


def main():
    out, count = sys.argv[1], int(sys.argv[2])
    shuffled = sorted(packages().items(), key=lambda p: hashlib.sha256(p[0].encode()).digest())[:count]
    with open(out, "w") as rows:
        for i, (name, summary) in enumerate(shuffled):
            question = QUESTIONS[i % len(QUESTIONS)]
            subject, answer = (summary, name) if "install" in question else (name, summary[0].upper() + summary[1:] + ".")
            rows.write(json.dumps({"messages": [{"role": "user", "content": question.format(subject)}, {"role": "assistant", "content": answer}]}) + "\n")
    print(f"{out}: {len(shuffled)} conversations about Debian packages")


if __name__ == "__main__":
    main()
