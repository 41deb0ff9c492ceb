#!/usr/bin/env python3
"""wrong_scores.py ROWS.jsonl ITEMS.jsonl SCORE: the names of the rows that `plm score --items` gave another score."""
import json
import sys

rows, items = ([json.loads(line) for line in open(path)] for path in sys.argv[1:3])
print(", ".join(row["name"] for row, item in zip(rows, items, strict=True) if item["score"] != float(sys.argv[3])))
