#!/usr/bin/env bash
# plm report: the page holds the runs' data, is one file that needs nothing else, and nothing in the data becomes part of it. With a Chromium at hand its script is run.
# usage: test_report.sh PLM BUILD_DIRECTORY
set -u
# shellcheck source=tests/tools/support.sh
. "$(dirname "$0")/support.sh"

# The runs: pretraining with an unfinished last line; preference learning with every kind of row; names and texts that would be markup; one step; a long one.
$python - <<'PYTHON'
import json, math, os
def run(name, rows, config=None, samples=(), end=""):
    os.makedirs(name)
    with open(f"{name}/metrics.jsonl", "w") as f:
        f.writelines(json.dumps(row) + "\n" for row in rows)
        f.write(end)
    if config is not None:
        json.dump(config, open(f"{name}/run.json", "w"))
    if samples:
        open(f"{name}/samples.jsonl", "w").writelines(json.dumps(row) + "\n" for row in samples)

model = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2, "kv_lora_rank": 32, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32,
         "intermediate_size": 128, "vocab_size": 512}
phases = [{"name": n, "tokens": 1000, "mixture": [{"path": "shards/a/train", "weight": 0.75}, {"path": "shards/b/train", "weight": 0.25}]} for n in ("first", "second")]
rows = []
for i in range(1, 41):
    rows.append({"step": i, "phase": "first" if i <= 20 else "second", "loss": None if i == 9 else 8 / i, "lr": 1e-3, "grad_norm": 1.5, "tokens": 100 * i,
                 "tokens_per_s": 1000 + i, "step_s": 0.1, "data_wait_s": 0.01, "skipped": int(i == 9), "odd/metric": i, "note": "text", "list": [1]})
    if i % 20 == 0:
        rows.append({"step": i, "eval": "text", "eval_loss": 9 / i, "bits_per_byte": 1 / i})
run("pretraining/run", rows, {"model": model, "phases": phases}, [{"step": 40, "prompt": "Once", "answers": [{"text": "upon a time"}]}], '{"step": 41, "lo')
open("pretraining/run/events.out.tfevents.1.plm", "w")
open("pretraining/run/events.out.tfevents.2.plm", "w")

rows, samples = [], []
for r in (1, 2):
    rows += [{"step": 10 * (r - 1), "round": r, "turn": k, "score": 0.1 * r + 0.01 * k, "win_rate": 0.5, "length": 9, "ended_rate": 1, "copy_rate": 0, "count": 8} for k in (0, 1)]
    rows.append({"step": 10 * (r - 1), "round": r, "pairs": 5, "tied": 2, "filtered": 1, "kl": 0.5})
    rows += [{"step": 10 * (r - 1) + i, "round": r, "loss": 1, "loss/dpo": 0.69, "rewards/margins": 0.1, "rewards/accuracies": 0.5} for i in range(1, 11)]
    rows += [{"step": 10 * r, "round": r, "eval": "held-out", "turn": k, "score": 0.5, "low": 0.4, "high": 0.6} for k in (0, 1)]
    samples += [{"step": 10 * r, "round": r, "prompt": f"p{i}", "answers": [{"turn": k, "text": f"t{k}", "score": k} for k in (0, 1)], "reference": "ref"} for i in range(20)]
run("align", rows, {"loss": {"beta": 0.1}}, samples)

evil = "</script><script>document.title='taken'</script><!-- \" ' & \u2028 \u00e9 \U0001f600 ]]> {{data}}"
run("evil", [{"step": i, "phase": evil, "loss": 1, evil: 2, evil + "/x": 1e308, "tokens": -1} for i in (1, 2, 3)] + [{"step": 3, "eval": evil, "eval_loss": 1, "turn": 1}],
    {evil: [evil, {"a": evil}]}, [{"step": 1, "prompt": evil, "answers": [{"text": evil + "x" * 10000, "score": 1}, evil, 5], "reference": evil},
                                  {"step": 1, "prompt": [{"role": "user", "content": evil}], "answers": "none"}])
run("one", [{"step": 1, "loss": 3}])
run("nowhere-finite", [{"step": i, "loss": None} for i in (1, 2)])
run("long", [{"step": i, "phase": "p", "loss": 1e3 if i == 7777 else 1 + 1 / i, "tokens": i} for i in range(1, 20001)])
PYTHON

# data PAGE: the JSON inside it; python fails when the page is not well-formed, refers to anything outside, or has more scripts than its own
cat >data.py <<'PYTHON'
import html.parser, json, sys
class Page(html.parser.HTMLParser):
    scripts, inside, open_tags, title = [], None, [], ""
    void = {"meta", "input", "br", "link", "img"}
    def handle_starttag(self, tag, attributes):
        assert not any(a in ("src", "href") and v and not v.startswith("#") for a, v in attributes), attributes
        if tag not in self.void:
            self.open_tags.append(tag)
        if tag == "script":
            self.scripts.append([dict(attributes), ""])
    def handle_endtag(self, tag):
        assert self.open_tags and self.open_tags.pop() == tag, tag
    def handle_data(self, text):
        if self.open_tags[-1:] == ["script"]:
            self.scripts[-1][1] += text
        if self.open_tags[-1:] == ["title"]:
            self.title += text
page = Page()
page.feed(open(sys.argv[1], encoding="utf-8").read())
page.close()
assert page.open_tags == [], page.open_tags
assert len(page.scripts) == 2, len(page.scripts)
assert page.scripts[0][0]["type"] == "application/json" and "<" not in page.scripts[0][1]
def no(name): raise ValueError(name)
data = json.loads(page.scripts[0][1], parse_constant=no)
runs = data["runs"]
def curve(run, key, **where):
    found = [c for c in run["curves"] if c["key"] == key and all(c.get(k) == where.get(k) for k in ("eval", "turn"))]
    assert len(found) == 1, (key, where, len(found))
    return run["x"][found[0]["x"]], found[0]
PYTHON
# holds WHAT PAGE PYTHON...: what must be true of its data
holds() { check "$1" $python -c "import sys; sys.argv = ['', '$2']; exec(open('data.py').read()); exec(sys.stdin.read())" <<<"$3"; }

echo "- one run"
"$plm" report pretraining/run >report.log 2>&1
check "pretraining" grep -q "^pretraining/run/report.html: 1 run, 0\.[0-9]* MB" report.log
check "... the half line is said" grep -q "run/metrics.jsonl:43: the last line is only half there" report.log
holds "every value" pretraining/run/report.html "
r, = runs
assert (r['name'], r['rows'], r['steps'], r['sessions'], r['half_line']) == ('run', 42, 40, 2, True), r['name']
assert r['parameters'] == 512 * 64 + 2 * (64 + 2 * 48 * 64 + 48 * 64 + 32 + 2 * 64 * 32 + 64 * 64 + 64 + 2 * 128 * 64) + 64, r['parameters']
x, c = curve(r, 'loss')
assert x == list(range(1, 41)) and c['gaps'] == 1 and c['y'][8] is None
assert all(abs(v - 8 / (i + 1)) < 1e-6 for i, v in enumerate(c['y']) if v is not None)
x, c = curve(r, 'bits_per_byte', eval='text')
assert x == [20, 40] and c['y'] == [0.05, 0.025]
x, c = curve(r, 'elapsed_s')
assert abs(c['y'][-1] - 4) < 1e-6
assert curve(r, 'odd/metric')[1]['last'] == 40
assert [(p['name'], p['first'], p['last']) for p in r['phases']] == [('first', 1, 20), ('second', 21, 40)]
assert r['config']['phases'][0]['mixture'][0]['weight'] == 0.75 and r['evaluation'] is None
assert r['samples'] == {'total': 1, 'rows': [{'step': 40, 'prompt': 'Once', 'answers': [{'text': 'upon a time'}]}]}, r['samples']
assert page.title == 'run'
assert not any(c['key'] in ('note', 'list') for c in r['curves'])"

echo "- several, named"
check "two runs and a name" "$plm" report pretraining/run first=align --out two.html --title 'A & B < C'
holds "rounds, turns, bounds and samples" two.html "
assert [r['name'] for r in runs] == ['run', 'first'] and page.title == 'A & B < C'
r = runs[1]
x, c = curve(r, 'score', turn=1)
assert x == [0, 10] and r['x'][c['round']] == [1, 2] and [round(v, 6) for v in c['y']] == [0.11, 0.21]
x, c = curve(r, 'high', eval='held-out', turn=0)
assert x == [10, 20] and c['y'] == [0.6, 0.6] and r['x'][c['round']] == [1, 2]
x, c = curve(r, 'pairs')
assert x == [0, 10] and r['x'][c['round']] == [1, 2]
assert [(p['name'], p['first'], p['last']) for p in r['rounds']] == [('1', 1, 10), ('2', 11, 20)]
assert r['samples']['total'] == 40 and len(r['samples']['rows']) == 24 and r['samples']['rows'][12]['round'] == 2
assert r['parameters'] is None and r['sessions'] == 0"
mkdir -p other && cp -r pretraining/run other/run
check "runs with one name" "$plm" report pretraining/run other/run/ --out names.html
holds "... are told apart" names.html "assert [r['name'] for r in runs] == ['pretraining/run', 'other/run'], [r['name'] for r in runs]"

echo "- what is hostile, tiny or long"
check "markup in every text" "$plm" report evil --out evil.html --title "</title><script>alert(1)</script>{{data}}"
holds "... stays text" evil.html "
r, = runs
assert page.title == '</title><script>alert(1)</script>{{data}}', page.title
evil = r['phases'][0]['name']
assert evil.startswith('</script>') and '\u2028' in evil and evil.endswith('{{data}}')
assert r['samples']['rows'][0]['answers'][0]['text'].startswith(evil) and r['samples']['rows'][0]['answers'][0]['cut'] > 0
assert r['samples']['rows'][0]['answers'][1]['text'] == evil
assert r['samples']['rows'][1]['prompt'] == 'user: ' + evil and r['samples']['rows'][1]['answers'] == []
assert curve(r, evil + '/x')[1]['y'][0] == 1e308"
check "one row, and a loss that is never a number" "$plm" report one nowhere-finite --out tiny.html
holds "..." tiny.html "assert curve(runs[0], 'loss')[1]['y'] == [3] and curve(runs[1], 'loss')[1]['y'] == [None, None]"
check "20 000 steps" "$plm" report long --out long.html
holds "... are thinned and keep their peak" long.html "
x, c = curve(runs[0], 'loss')
assert 1000 <= len(x) <= 2000 and max(c['high']) == 1000 and runs[0]['steps'] == 20000 and c['width'] == 16, (len(x), c['width'])"
check "... in a page below 300 kB" test "$(stat -c %s long.html)" -lt 300000

echo "- errors"
reject "no run" "RUN is required" -- "$plm" report
reject "several runs without --out" "\-\-out.*required" -- "$plm" report one long
reject "missing directory" "run directory 'nowhere'.*No such file" -- "$plm" report nowhere
reject "not a directory" "'data.py' is not a directory" -- "$plm" report data.py
reject "no metrics" "'other' has no metrics.jsonl" -- "$plm" report other
# broken TEXT: a run directory with these metrics
broken() { rm -rf broken; mkdir broken; printf "$1" >broken/metrics.jsonl; }
broken ''
reject "empty metrics" "broken/metrics.jsonl:1: no row" -- "$plm" report broken
broken '{"step": 1, "lo'
reject "nothing but half a line" "no row yet" -- "$plm" report broken
broken '{"step": 1, "loss": 1}\n{"step": 2, "loss": NaN}\n{"step": 3}\n'
reject "NaN in the middle" "broken/metrics.jsonl:2: .*NaN" -- "$plm" report broken
broken '{"step": 1, "loss": 1}\n[1]\n'
reject "a list" "broken/metrics.jsonl:2: expected one JSON object" -- "$plm" report broken
broken '{"loss": 1}\n'
reject "no step" "broken/metrics.jsonl:1: .*step" -- "$plm" report broken
broken '{"step": 1, "phase": "\377", "loss": 1}\n'
reject "not UTF-8" "broken/metrics.jsonl:1: .*byte 0xff" -- "$plm" report broken
broken '{"step": 1, "loss": 1}\n'
printf '{\n"model": }' >broken/run.json
reject "a broken run.json" "broken/run.json:2:" -- "$plm" report broken
rm broken/run.json
printf '{"prompt": "x"}\n' >broken/samples.jsonl
reject "samples without a step" "broken/samples.jsonl:1: .*step" -- "$plm" report broken
rm broken/samples.jsonl
reject "a page that cannot be written" "no/such/page.html" -- "$plm" report broken --out no/such/page.html
check "... leaves nothing in the run" test "$(ls broken)" = metrics.jsonl

# browse PAGE: its document after its script has run, as dom.html, and what the script complained of, as browser.log
browser=$(command -v chromium || command -v chromium-browser)
browse() {
    timeout -k 5 600 "$browser" --headless=new --no-sandbox --disable-gpu --user-data-dir="$scratch/profile" --virtual-time-budget=4000 --enable-logging=stderr \
        --window-size=1200,900 --dump-dom "file://$scratch/$1" >dom.html 2>browser.log
}
echo '<p id="there"></p>' >probe.html
if [ -n "$browser" ] && browse probe.html && grep -q there dom.html; then
    echo "- in a browser"
    # A visitor: points at the loss, drags a zoom, reads by keyboard, changes axis, smoothing and scale, hides a run, looks at another step's samples.
    cat >visitor.html <<'HTML'
<script>
const say = (name, value) => document.body.setAttribute(`data-${name}`, String(value)), main0 = view.charts[0], rect = () => main0.svg.getBoundingClientRect();
const event = (type, x, more) => main0.svg.dispatchEvent(new PointerEvent(type, { clientX: rect().left + x, clientY: rect().top + 90, bubbles: true, button: 0, ...more }));
const choose = (e, value) => { e.value = value; e.dispatchEvent(new Event("change")); e.dispatchEvent(new Event("input")); };
const $ = s => document.querySelector(s);
main0.svg.setPointerCapture = () => {};
event("pointermove", 400);
say("tip", $(".tip").textContent);
say("crosses", document.querySelectorAll(".cross").length > 1);
event("pointerdown", 200), event("pointermove", 500), event("pointerup", 500);
say("zoomed", !$("#reset").hidden && view.zoom.step[1] - view.zoom.step[0] < 15);
main0.svg.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
say("keyboard", main0.at);
$("#reset").click();
say("reset", $("#reset").hidden);
choose($("#smooth"), 0);
choose($("#axis"), $("#axis").lastChild.value);
say("axis", axis.name);
main0.logButton.click();
say("log", main0.log && !main0.svg.outerHTML.includes("NaN"));
const before = main0.svg.querySelectorAll("path").length;
$(".legend button").click();
say("hidden", main0.svg.querySelectorAll("path").length < before);
choose($(".pick select"), "0");
say("samples", document.querySelectorAll(".sample").length);
say("clean", !/NaN|undefined|Infinity/.test($("#main").innerHTML));
</script>
HTML
    sed -i -e '/<\/body>/{r visitor.html' -e 'N}' two.html
    "$plm" report pretraining/run other/run --out same.html >/dev/null 2>&1
    sed -i -e '/<\/body>/{r visitor.html' -e 'N}' same.html
    for page in pretraining/run/report two same evil tiny long; do
        browse $page.html
        check "$page: the script runs to its end" grep -q '<p id="about">[^<]' dom.html
        check "$page: no error" sh -c '! grep -E "CONSOLE.*(rror|efused)" browser.log'
        check "$page: charts" test "$(grep -o 'role="img"' dom.html | wc -l)" -ge 1
        check "$page: its title" sh -c '! grep -q "<title>taken" dom.html'
        [ $page = two ] || [ $page = same ] || continue
        for said in crosses=true zoomed=true 'keyboard=[0-9]' reset=true log=true hidden=true 'samples=[1-9]' clean=true; do
            check "$page: $said" grep -qE "<body[^>]* data-${said%%=*}=\"${said#*=}" dom.html
        done
    done
    browse same.html
    check "the read-out: both runs, step, tokens and time" grep -qE 'data-tip="step [0-9]+ · [0-9.k]+ tokens · [0-9.]+ s.*pretraining/run.*other/run' dom.html
    check "the axis is time" grep -q 'data-axis="time"' dom.html
fi
finish
