"""make_text.py DIR: small English-like documents, the same on every machine: DIR/stories.jsonl and DIR/notes/*.txt."""
import json
import pathlib
import sys

state = 12345


def draw(n):
    """A whole number below n from a linear congruential generator (Knuth's MMIX constants)."""
    global state
    state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
    return (state >> 33) % n


def pick(words):
    return words[draw(len(words))]


NOUNS = "farmer river house doctor garden letter window captain island teacher kitchen mountain forest bridge lantern harbour".split()
ADJECTIVES = "old quiet small heavy bright distant careful wooden yellow patient".split()
VERBS = "watched painted followed remembered carried opened repaired described crossed reached".split()
PLACES = ["near the river", "behind the house", "before the winter", "after the storm", "in the morning", "without a word"]
LINKS = ["and then", "because", "while", "although", "so"]


def clause():
    return f"the {pick(ADJECTIVES)} {pick(NOUNS)} {pick(VERBS)} the {pick(NOUNS)} {pick(PLACES)}"


def sentence():
    text = clause() if draw(3) else f"{clause()} {pick(LINKS)} {clause()}"
    return text[0].upper() + text[1:] + "."


def document(number):
    return f"Number {number}. " + " ".join(sentence() for _ in range(3 + draw(8)))


out = pathlib.Path(sys.argv[1])
(out / "notes").mkdir(parents=True, exist_ok=True)
with open(out / "stories.jsonl", "w", encoding="utf-8") as f:
    for i in range(400):
        f.write(json.dumps({"text": document(i)}) + "\n")
for i in range(100):
    (out / "notes" / f"note-{i:03}.txt").write_text(document(1000 + i) + "\n\n" + document(2000 + i) + "\n", encoding="utf-8")
