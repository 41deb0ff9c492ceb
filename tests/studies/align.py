#!/usr/bin/env python3
"""ARIES beside DPO, iterative DPO, rejection-sampling SFT and GRPO at equal generated tokens, on arithmetic word problems, for several seeds.

    tests/studies/align.py                                # everything: 5 seeds, 5 methods, the tables and the plot
    tests/studies/align.py --seeds 1 --methods aries      # one chain: data, pretraining, SFT, three ARIES rounds
    tests/studies/align.py --report                       # tables and plot of what is there

Each seed has its own training problems, initial weights, data order and samples; the held-out problems are the same for all. The methods of a
seed start from its one SFT model. Every stage is a run of `plm` that continues where it was when this is run again. Results: WORK/align.md,
WORK/align.svg, WORK/align.json. Needs Python's standard library only.
"""
import argparse
import json
import math
import os
import random
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CONFIGS = "configs/align-demo"
ROUNDS, TASKS, ANSWERS, REFINEMENTS = 3, 1000, 4, 3

# What differs between the methods; each has ROUNDS * TASKS * ANSWERS answers in all. Learning rates: of 1e-4 and 2e-4 (align.json's) the one that was better
# on seed 2, for each method.
METHODS = {
    "aries": {"label": "ARIES", "rounds": ROUNDS, "set": {"rollout.chains": 1, "rollout.refinements": ANSWERS - 1}},
    "dpo": {"label": "DPO, one round", "rounds": 1, "set": {"loss.alpha": 0, "rollout.chains": ANSWERS, "rollout.refinements": 0, "prompts.per_round": ROUNDS * TASKS}},
    "iterative-dpo": {"label": "iterative DPO", "rounds": ROUNDS, "set": {"learning_rate.peak": 1e-4, "learning_rate.floor": 1e-5, "loss.alpha": 0, "rollout.chains": ANSWERS, "rollout.refinements": 0}},
    "rejection-sft": {"label": "rejection-sampling SFT", "rounds": ROUNDS, "set": {"loss.alpha": 0, "rollout.chains": ANSWERS, "rollout.refinements": 0}},
    "grpo": {"label": "GRPO", "rounds": ROUNDS, "set": {"loss.alpha": 0, "rollout.chains": ANSWERS, "rollout.refinements": 0}},
}
COLOURS = {"aries": "#c1272d", "dpo": "#7a7a7a", "iterative-dpo": "#0b5fa5", "rejection-sft": "#2e8b57", "grpo": "#b8860b"}


# ---- running ----

class Study:
    def __init__(self, a):
        self.a, self.work = a, a.work
        self.launcher = ["mpirun", "-q", "-n", str(a.ranks)] if a.ranks > 1 else []
        if self.launcher and os.geteuid() == 0:
            self.launcher.append("--allow-run-as-root")
        self.extra = [option for s in a.set for option in ("--set", s)]

    def path(self, *names):
        return os.path.join(self.work, *names)

    def plm(self, *arguments, ranks=False, log=None):
        command = (self.launcher if ranks else []) + [self.a.plm, *arguments]
        print("+ " + " ".join(command), flush=True)
        start = time.monotonic()
        with open(log, "a", encoding="utf-8") if log else open(os.devnull, "w", encoding="utf-8") as out:
            code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT if log else None, check=False).returncode
        if code:
            sys.exit(f"{command[0]} ended with status {code}" + (f"; see {log}" if log else ""))
        print(f"  {time.monotonic() - start:.0f} s", flush=True)

    def made(self, path, *arguments):
        """A file that plm writes to its --out, once."""
        if not os.path.exists(path):
            self.plm(*arguments, "--out", path)

    def seed_dir(self, seed, *names):
        return self.path(f"seed-{seed}", *names)

    def data(self, seed):
        """Held-out problems, a seed's own problems and calculations to pretrain on, and the tokenizer, which is the same for all seeds."""
        os.makedirs(self.seed_dir(seed), exist_ok=True)
        arithmetic = ["data", "arithmetic", "--steps", "1", "--digits", "2:3", "--width", "3", "--columns"]
        self.made(self.path("held-out.jsonl"), *arithmetic, "--count", str(self.a.held_out), "--split", "test")
        self.made(self.path("valid-pairs.jsonl"), *arithmetic, "--count", "300", "--split", "valid", "--pairs")
        self.made(self.path("words.jsonl"), *arithmetic, "--count", "20000", "--pairs")
        self.made(self.path("tokenizer.json"), "tokenizer", "train", "--vocab", "512", "--min-count", "1", "--text-field", "prompt",
                  self.path("words.jsonl"), f"{CONFIGS}/chat.json", f"{CONFIGS}/refine.txt")
        self.made(self.seed_dir(seed, "calculations.jsonl"), *arithmetic, "--count", "4000", "--seed", str(10 * seed), "--calculations")
        self.made(self.seed_dir(seed, "worked.jsonl"), *arithmetic, "--count", "20000", "--seed", str(10 * seed + 3))
        self.made(self.seed_dir(seed, "pairs.jsonl"), *arithmetic, "--count", "20000", "--seed", str(10 * seed + 1), "--pairs", "--mislabelled", "0.4")
        self.made(self.seed_dir(seed, "prompts.jsonl"), *arithmetic, "--count", str(ROUNDS * TASKS), "--seed", str(10 * seed + 2))
        if not os.path.exists(self.seed_dir(seed, "shards", "build.json")):
            self.plm("data", "build", "--tokenizer", self.path("tokenizer.json"), "--name", f"seed-{seed}", "--out", self.seed_dir(seed, "shards"),
                     self.seed_dir(seed, "calculations.jsonl"))

    def run(self, command, config, directory, settings):
        log = directory + ".log"
        options = [option for key, value in settings.items() for option in ("--set", f"{key}={value}")]
        self.plm(command, f"{CONFIGS}/{config}.json", "--set", f"run_dir={directory}", *options, ranks=True, log=log)

    def start(self, seed):
        """The seed's SFT model."""
        done = self.seed_dir(seed, "sft-done")
        if os.path.exists(done):
            return
        self.data(seed)
        self.run("pretrain", "base", self.seed_dir(seed, "base"), {
            "tokenizer": self.path("tokenizer.json"), "seed": seed, "phases.0.mixture.0.path": self.seed_dir(seed, "shards", "train"),
            "eval.sources.0.path": self.seed_dir(seed, "shards", "valid")})
        self.run("sft", "sft", self.seed_dir(seed, "sft"), {
            "model.path": self.seed_dir(seed, "base"), "seed": seed, "phases.0.sources.0.path": self.seed_dir(seed, "worked.jsonl"), "phases.1.sources.0.path": self.seed_dir(seed, "pairs.jsonl"),
            "eval.sources.0.path": self.path("valid-pairs.jsonl"), "eval.answers.path": self.path("held-out.jsonl")})
        with open(done, "w", encoding="utf-8"):
            pass

    def align(self, seed, method):
        directory, settings = self.seed_dir(seed, method), METHODS[method]
        if rounds_done(directory) >= settings["rounds"]:
            return
        self.start(seed)
        options = {"model.path": self.seed_dir(seed, "sft"), "method": method, "rounds": settings["rounds"], "seed": seed,
                   "prompts.path": self.seed_dir(seed, "prompts.jsonl"), "prompts.per_round": TASKS, "eval.path": self.path("held-out.jsonl"),
                   "eval.refinements": REFINEMENTS, **settings["set"]}
        options.update(s.split("=", 1) for s in self.a.set)
        self.run("align", "align", directory, options)


# ---- reading ----

def rows_of(directory):
    try:
        with open(os.path.join(directory, "metrics.jsonl"), encoding="utf-8") as f:
            return [json.loads(line) for line in f if line.endswith("\n")]
    except FileNotFoundError:
        return []


def scores_of(directory):
    """{(round, turn): (score, count)} of held-out answers; a run that was killed may have a row twice, the last counts."""
    return {(r["round"], r["turn"]): (r["score"], r["count"]) for r in rows_of(directory) if r.get("eval") == "held-out" and "turn" in r}


def generated_of(directory):
    """Tokens generated for training, all rounds."""
    return sum({r["round"]: r["generated_tokens"] for r in rows_of(directory) if "generated_tokens" in r and "eval" not in r}.values())


def rounds_done(directory):
    return max((r for r, turn in scores_of(directory) if turn == REFINEMENTS), default=-1)


# ---- statistics ----

T_975 = [math.nan, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262]  # of 1 to 9 degrees of freedom


def wilson(score, n):
    z = 1.959964
    middle, half = score + z * z / (2 * n), z * math.sqrt(score * (1 - score) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def over_seeds(values):
    """Mean and 95 % interval of one value per seed: Student's t; what differs from seed to seed, training as well as sampling, is in it."""
    n, mean = len(values), sum(values) / len(values)
    if n < 2:
        return mean, math.nan, math.nan
    half = T_975[min(n - 1, 9)] * math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)
    return mean, mean - half, mean + half


def over_seeds_and_questions(results, draws=4000):
    """95 % interval of the mean by a bootstrap of both levels: seeds, and questions within a seed."""
    rng = random.Random(1)
    means = []
    for _ in range(draws):
        total = 0
        for _ in results:
            score, n = rng.choice(results)
            total += rng.gauss(score, math.sqrt(score * (1 - score) / n))  # the binomial's normal limit: n is some hundreds
        means.append(total / len(results))
    means.sort()
    return means[int(0.025 * draws)], means[int(0.975 * draws)]


def percent(mean, low=math.nan, high=math.nan, sign=""):
    text = f"{100 * mean:{sign}.1f}"
    return text if math.isnan(low) else f"{text} ({100 * low:{sign}.1f} to {100 * high:{sign}.1f})"


# ---- reporting ----

def collect(study):
    """{method: {"seeds", "scores": {(round, turn): [(score, count) per seed]}, "generated": [per seed]}} of the runs that are complete."""
    results = {}
    for method, settings in METHODS.items():
        runs = {s: study.seed_dir(s, method) for s in study.a.seeds}
        runs = {s: d for s, d in runs.items() if rounds_done(d) >= settings["rounds"]}
        if not runs:
            continue
        scores = [scores_of(d) for d in runs.values()]
        results[method] = {"seeds": list(runs), "generated": [generated_of(d) for d in runs.values()],
                           "scores": {key: [s[key] for s in scores] for key in sorted(scores[0]) if all(key in s for s in scores)}}
    return results


def cell(result, key):
    if key not in result["scores"]:
        return ""
    values = [s for s, _ in result["scores"][key]]
    mean, low, high = over_seeds(values)
    if len(values) == 1:
        low, high = wilson(*result["scores"][key][0])
    return percent(mean, low, high)


def difference(a, key_a, b, key_b):
    """Mean and interval of a's score minus b's over the seeds that both have."""
    pairs = [(x[0], y[0]) for s, x in zip(a["seeds"], a["scores"][key_a]) for t, y in zip(b["seeds"], b["scores"][key_b]) if s == t]
    return (*over_seeds([x - y for x, y in pairs]), len(pairs)) if pairs else None


def tables(results):
    out = []
    last = {m: METHODS[m]["rounds"] for m in results}
    seeds = sorted({s for r in results.values() for s in r["seeds"]})
    counts = sorted({n for r in results.values() for v in r["scores"].values() for _, n in v})
    out.append(f"Accuracy in per cent on held-out problems ({', '.join(map(str, counts))} each), mean of {len(seeds)} seed{'s' * (len(seeds) > 1)}, 95 % intervals "
               + ("over seeds (Student's t)" if len(seeds) > 1 else "by Wilson") + " in brackets.\n")
    out.append("Direct answers:\n")
    out.append("| method | generated tokens | SFT | round 1 | round 2 | round 3 | after the last, less SFT |")
    out.append("|---|---|---|---|---|---|---|")
    for method, r in results.items():
        rounds = [cell(r, (k, 0)) for k in range(ROUNDS + 1)]
        d = difference(r, (last[method], 0), r, (0, 0)) if (0, 0) in r["scores"] else None
        out.append(f"| {METHODS[method]['label']} | {sum(r['generated']) / len(r['generated']):,.0f} | " + " | ".join(rounds) + " | "
                   + (percent(*d[:3], sign="+") if d else "") + " |")
    out.append("\nAfter refinements, at the end of the last round (of SFT: before the first):\n")
    out.append("| method | direct | " + " | ".join(f"refined {k}x" for k in range(1, REFINEMENTS + 1)) + " |")
    out.append("|---|" + "---|" * (REFINEMENTS + 1))
    if "aries" in results:
        out.append("| SFT | " + " | ".join(cell(results["aries"], (0, k)) for k in range(REFINEMENTS + 1)) + " |")
    for method, r in results.items():
        out.append(f"| {METHODS[method]['label']} | " + " | ".join(cell(r, (last[method], k)) for k in range(REFINEMENTS + 1)) + " |")
    if "aries" in results and len(results) > 1:
        out.append("\nARIES less the others, points, after the last round, paired by seed:\n")
        out.append(f"| | direct | refined {REFINEMENTS}x |")
        out.append("|---|---|---|")
        a = results["aries"]
        for method, r in results.items():
            cells = [difference(a, (last["aries"], k), r, (last[method], k)) for k in (0, REFINEMENTS)]
            if method != "aries" and all(cells):
                out.append(f"| {METHODS[method]['label']} | " + " | ".join(percent(*c[:3], sign="+") for c in cells) + " |")
    return "\n".join(out) + "\n"


def plot(results):
    """Left: direct accuracy by round; right: accuracy by refinements after the last round. An SVG with nothing outside of it."""
    width, height, left, top, panel, gap, bottom = 920, 430, 60, 50, 340, 90, 330
    text = ['<svg xmlns="http://www.w3.org/2000/svg" ' f'viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="sans-serif" font-size="13">',
            "<title>Accuracy on held-out arithmetic word problems</title>", f'<rect width="{width}" height="{height}" fill="#ffffff"/>']
    series = []
    for method, r in results.items():
        rounds = [(k, r["scores"][k, 0]) for k in range(METHODS[method]["rounds"] + 1) if (k, 0) in r["scores"]]
        turns = [(k, r["scores"][METHODS[method]["rounds"], k]) for k in range(REFINEMENTS + 1)]
        series.append((method, rounds, turns))
    bounds = lambda v: wilson(*v[0]) if len(v) == 1 else over_seeds_and_questions(v)
    points = {(method, side, k): (sum(s for s, _ in v) / len(v), *bounds(v))
              for method, rounds, turns in series for side, line in enumerate((rounds, turns)) for k, v in line}
    lowest = max(0, math.floor(20 * min(p[1] for p in points.values())) / 20)
    highest = min(1, math.ceil(20 * max(p[2] for p in points.values())) / 20)
    step = 0.05 if highest - lowest <= 0.4 else 0.1
    y = lambda v: bottom - (v - lowest) / max(highest - lowest, 1e-9) * (bottom - top)
    for side, (title, axis, n) in enumerate((("Direct answers", "round (0: SFT)", ROUNDS), ("After the last round", "refinements", REFINEMENTS))):
        x0 = left + side * (panel + gap)
        text.append(f'<text x="{x0}" y="{top - 22}" font-weight="bold">{title}</text>')
        text.append(f'<text x="{x0 + panel / 2}" y="{bottom + 38}" text-anchor="middle">{axis}</text>')
        for i in range(int(round((highest - lowest) / step)) + 1):
            v = lowest + i * step
            text.append(f'<line x1="{x0}" x2="{x0 + panel}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="#dddddd"/>')
            text.append(f'<text x="{x0 - 8}" y="{y(v) + 4:.1f}" text-anchor="end">{100 * v:.0f} %</text>')
        x = lambda k, x0=x0, n=n: x0 + 20 + k * (panel - 40) / n
        for k in range(n + 1):
            text.append(f'<text x="{x(k):.1f}" y="{bottom + 18}" text-anchor="middle">{k}</text>')
        for i, (method, *lines) in enumerate(series):
            shift = 4 * (i - (len(series) - 1) / 2)
            at = [(x(k) + shift, *points[method, side, k]) for k, _ in lines[side]]
            path = " ".join(f"{px:.1f},{y(mean):.1f}" for px, mean, _, _ in at)
            text.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[method]}" stroke-width="2"/>')
            for px, mean, low, high in at:
                text.append(f'<line x1="{px:.1f}" x2="{px:.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}" stroke="{COLOURS[method]}"/>')
                text.append(f'<circle cx="{px:.1f}" cy="{y(mean):.1f}" r="3.5" fill="{COLOURS[method]}"/>')
    at = left
    for method, *_ in series:
        label = METHODS[method]["label"]
        text.append(f'<circle cx="{at + 5}" cy="{height - 28}" r="5" fill="{COLOURS[method]}"/><text x="{at + 16}" y="{height - 24}">{label}</text>')
        at += 40 + 7.5 * len(label)
    text.append(f'<text x="{left}" y="{height - 6}" font-size="11" fill="#666666">bars: 95 %, bootstrap over seeds and questions (of one seed: Wilson)</text>')
    return "\n".join(text + ["</svg>", ""])


def report(study):
    results = collect(study)
    if not results:
        print("no complete run yet")
        return
    markdown = tables(results)
    as_json = {m: {"label": METHODS[m]["label"], "seeds": r["seeds"], "generated_tokens": r["generated"],
                   "scores": [{"round": k[0], "turn": k[1], "per_seed": [{"score": s, "count": n, "wilson": wilson(s, n)} for s, n in v]}
                              for k, v in r["scores"].items()]} for m, r in results.items()}
    for name, content in (("align.md", markdown), ("align.svg", plot(results)), ("align.json", json.dumps(as_json, indent=1) + "\n")):
        with open(study.path(name), "w", encoding="utf-8") as f:
            f.write(content)
    print(markdown)
    print(f"{study.path('align.md')}, {study.path('align.svg')}, {study.path('align.json')}")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--work", default="build/align-demo", help="directory of all runs (default build/align-demo)")
    a.add_argument("--plm", default="build/release/tools/plm", help="the program (default build/release/tools/plm)")
    a.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    a.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    a.add_argument("--held-out", type=int, default=500, help="held-out problems (default 500)")
    a.add_argument("--ranks", type=int, default=2, help="processes of a run; 1: without mpirun (default 2)")
    a.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for plm align, all methods; into a --work of its own")
    a.add_argument("--report", action="store_true", help="run nothing")
    arguments = a.parse_args()
    os.chdir(ROOT)
    os.makedirs(arguments.work, exist_ok=True)
    study = Study(arguments)
    if not arguments.report:
        for seed in arguments.seeds:
            for method in arguments.methods:
                study.align(seed, method)
                report(study)
    report(study)


if __name__ == "__main__":
    main()
