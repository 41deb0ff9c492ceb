/* The sections of the page: which curves of which rows are drawn where. What no section asks for is drawn at the end, under "more metrics". */

const data = JSON.parse(document.getElementById("data").textContent);
const runs = data.runs;
const several = runs.length > 1;
const colors = [...Array(8).keys()].map(i => `var(--c${i})`);
const dashes = ["", "7 3", "2 2.5", "9 3 2 3", "1 4", "12 4"];
const main = document.getElementById("main");
const mean = list => list.reduce((a, b) => a + b, 0) / list.length;
const finite = list => list.filter(v => v !== null);
const median = list => (list.length ? percentile([...list].sort((a, b) => a - b), 0.5) : null);

/* Colours beyond the eighth: further hues around the wheel. */
const color = i => (i < colors.length ? colors[i] : `hsl(${(i * 137.5) % 360} 60% 52%)`);

/* --- curves of the data --- */

const drawn = new Set(["|elapsed_s", "|tokens", "|predicted", "|num_tokens", "|epoch", "round/|tied_share", "round/|round_s"]);
const name = c => `${c.eval === undefined ? "" : `eval/${c.eval}/`}${c.turn === undefined ? "" : "turn/"}${c.of_round ? "round/" : ""}|${c.key}`;

runs.forEach((run, i) => {
    run.color = color(i);
    for (const c of run.curves) {
        c.steps = run.x[c.x];
        c.rounds = c.round === undefined ? null : run.x[c.round];
        if (c.steps.some((s, k) => k > 0 && s < c.steps[k - 1])) { /* rows out of order */
            const order = c.steps.map((_, k) => k).sort((a, b) => c.steps[a] - c.steps[b]);
            for (const list of ["steps", "rounds", "y", "low", "high"])
                c[list] = c[list] && order.map(k => c[list][k]);
        }
    }
});

/* The curves with these properties; they count as drawn. */
function curves(run, key, where = {}) {
    const found = run.curves.filter(c => c.key === key && ("eval" in where ? c.eval === where.eval : true)
        && ("turn" in where ? c.turn === where.turn : true) && !!c.of_round === !!where.of_round);
    found.forEach(c => drawn.add(name(c)));
    return found;
}
const curve = (run, key, where = {}) => curves(run, key, { eval: undefined, turn: undefined, ...where })[0];
const last = c => (c ? c.last : null);
const unique = list => [...new Set(list)];
const evals = unique(runs.flatMap(r => r.curves.map(c => c.eval))).filter(e => e !== undefined);
const turns = unique(runs.flatMap(r => r.curves.map(c => c.turn))).filter(t => t !== undefined).sort((a, b) => a - b);

/* --- the horizontal axis of charts over steps --- */

const axis = {
    name: "step",
    /* Linear between the rows that say how many tokens, or seconds, a step had behind it. */
    at(run, step, key) {
        const c = run.curves.find(d => d.key === key && d.eval === undefined && d.turn === undefined);
        if (!c)
            return null;
        const i = lowerBound(c.steps, step);
        if (i === c.steps.length)
            return c.last;
        const a = i > 0 ? [c.steps[i - 1], c.y[i - 1]] : [0, 0], b = [c.steps[i], c.y[i]];
        return b[0] === a[0] ? b[1] : a[1] + (b[1] - a[1]) * (step - a[0]) / (b[0] - a[0]);
    },
    convert(run, steps) {
        const key = { tokens: "tokens", time: "elapsed_s" }[this.name];
        return key ? steps.map(s => this.at(run, s, key)) : steps;
    },
    describe(s, i) {
        const step = s.steps[i], tokens = this.at(s.of, step, "tokens"), seconds = this.at(s.of, step, "elapsed_s");
        return [`step ${shown(Math.round(step))}`, tokens !== null && `${compact(tokens)} tokens`, seconds !== null && duration(seconds)].filter(Boolean).join(" \u00b7 ");
    },
};
const axes = ["step", ...[["tokens", "tokens"], ["time", "elapsed_s"]].filter(([, key]) => runs.every(r => axis.at(r, 1, key) !== null)).map(([n]) => n)];

/* --- series and charts --- */

function series(run, c, options = {}) {
    if (!c)
        return [];
    return [{ of: run, run: run.name, source: c, steps: c.steps, x: c.steps, groups: c.rounds, y: c.y, low: c.low, high: c.high, color: run.color, smooth: true, ...options }];
}

/* Bounds of a value: rows have "low" and "high" beside a score, or NAME_low and NAME_high. */
function bounds(run, c) {
    const of = suffix => run.curves.find(d => d.turn === c.turn && d.eval === c.eval && (d.key === `${c.key}_${suffix}` || (c.key === "score" && d.key === suffix)));
    const low = of("low"), high = of("high");
    if (!low || !high || low.y.length !== c.y.length)
        return {};
    drawn.add(name(low)).add(name(high));
    return { low: low.y, high: high.y, bounds: true };
}

/* The n-th of several curves of a run: runs have the colours, and parts dashes; with one run, parts have the colours. */
const part = (label, i) => ({ part: label, ...(several ? { dash: dashes[i % dashes.length] } : { color: color(i) }) });

/* Phases behind the curves, unless the runs differ in them. */
function bands() {
    const visible = runs.filter(r => !view.hidden.has(r.name));
    const of = r => (r.phases.length > 1 || !r.rounds.length ? r.phases : r.rounds.map(x => ({ ...x, name: `round ${x.name}` })));
    const list = visible.map(of);
    if (!list.length || list.some(l => JSON.stringify(l) !== JSON.stringify(list[0])) || !list[0].length)
        return [];
    return list[0].map(b => ({ name: b.name, first: axis.convert(visible[0], [b.first - 1])[0], last: axis.convert(visible[0], [b.last])[0] }));
}

/* A chart over steps, or nothing when there are no curves. */
function chart(title, note, list, options = {}) {
    return list.length ? [new Chart({ title, note, series: list, kind: "step", ...options })] : [];
}
const each = (key, title, note, options, where) => chart(title, note, runs.flatMap(r => series(r, curve(r, key, where))), options);
const parts = (keys, title, note, options = {}) => chart(title, note,
    runs.flatMap(r => keys.flatMap(([key, label], i) => series(r, curve(r, key), part(label, i)))), options);

/* Round by round: for curves with one value in each. */
function byRound(run, c, options) {
    if (!c || !c.rounds || c.rounds.some((r, i) => i > 0 && r <= c.rounds[i - 1]))
        return [];
    return series(run, c, { x: c.rounds, fixed: true, smooth: false, ...bounds(run, c), ...options });
}

/* One value of every turn: round by round when the rows say which, and else over steps. */
function perTurn(key, title, note, options = {}, where = {}) {
    const of = f => runs.flatMap(r => turns.flatMap((t, i) => f(r, curve(r, key, { ...where, turn: t }), part(t === 0 ? "first answer" : `refinement ${t}`, i))));
    const rounds = of(byRound);
    const list = rounds.length ? rounds : of((r, c, o) => series(r, c, c ? { ...o, ...bounds(r, c) } : o));
    return list.length ? [new Chart({ title, note, series: list, kind: rounds.length ? "round" : "step", ...options })] : [];
}

/* The same values over turns, a line per round: does refining help, and does training help refining? With several runs the last round of each. */
function overTurns(key, title, note, options = {}, where = {}) {
    const list = [];
    for (const run of runs) {
        const cs = turns.map(t => curve(run, key, { ...where, turn: t })).filter(Boolean), points = new Map();
        for (const c of cs) {
            const b = bounds(run, c);
            c.y.forEach((v, i) => {
                const round = (c.rounds || c.steps)[i];
                if (!points.has(round))
                    points.set(round, []);
                points.get(round).push([c.turn, v, b.low ? b.low[i] : null, b.high ? b.high[i] : null]);
            });
        }
        const all = [...points].sort((a, b) => a[0] - b[0]), some = several ? all.slice(-1) : all.filter((_, i) => all.length <= 8 || i === all.length - 1 || i % Math.ceil(all.length / 7) === 0);
        some.forEach(([round, p], i) => {
            const column = k => p.map(q => q[k]), label = `${cs[0].rounds ? "round" : "step"} ${shown(round)}`;
            if (p.length > 1)
                list.push({ of: run, run: run.name, steps: column(0), x: column(0), y: column(1), ...(finite(column(2)).length ? { low: column(2), high: column(3), bounds: true } : {}),
                    fixed: true, color: several ? run.color : `color-mix(in oklab, var(--c0) ${Math.round(100 * (i + 1) / some.length)}%, var(--c1))`, part: several ? undefined : label });
        });
    }
    return list.length ? [new Chart({ title, note, series: list, kind: "turn", ...options })] : [];
}

/* --- sections --- */

function section(title, ...content) {
    const items = content.flat().filter(Boolean);
    if (!items.length)
        return;
    const id = title.toLowerCase().replace(/[^a-z]+/g, "-"), charts = element("div", { class: "charts" }), part = element("section", { id }, element("h2", {}, title));
    for (const item of items)
        if (item instanceof Chart)
            charts.append(item.card);
        else
            part.append(item);
    if (charts.childElementCount)
        part.append(charts);
    main.append(part);
    document.getElementById("contents").append(element("a", { href: `#${id}` }, title));
}

const dot = c => {
    const e = element("span", { class: "swatch" });
    e.style.background = c;
    return e;
};

/* A table: columns [heading, is a number], rows of texts or elements. */
function table(columns, rows) {
    const cell = (v, i, tag) => element(i === 0 ? "th" : tag, { class: columns[i][1] ? "number" : "", scope: i === 0 ? "row" : undefined }, ...(Array.isArray(v) ? v : [v]));
    return element("div", { class: "scroll" }, element("table", {},
        element("thead", {}, element("tr", {}, ...columns.map(([heading, number]) => element("th", { class: number ? "number" : "", scope: "col" }, heading)))),
        element("tbody", {}, ...rows.map(row => element("tr", {}, ...row.map((v, i) => cell(v, i, "td")))))));
}

function jobOf(run) {
    const has = key => run.curves.some(c => c.key === key);
    return has("clip_ratio") ? "policy gradient" : has("rewards/margins") || has("win_rate") ? "preference learning" : has("token_accuracy") || has("targets") ? "fine-tuning" : "pretraining";
}

/* The mean of the loss over the last rows: one step is noise. */
function endLoss(run) {
    const c = curve(run, "loss"), values = c ? finite(c.y.slice(-20)) : [];
    return values.length ? mean(values) : null;
}

function heldOut(run) {
    return evals.map(e => [e, last(curve(run, "eval_loss", { eval: e }))]).filter(([, v]) => v !== null);
}

function overview() {
    const skipped = run => (c => (c ? Math.round(finite(c.y).reduce((a, b) => a + b, 0) * c.width) : null))(curve(run, "skipped"));
    const facts = run => {
        const rate = curve(run, "tokens_per_s"), m = (run.config && run.config.model) || {};
        return [
            ...(several ? [["job", jobOf(run)]] : []),
            ["parameters", run.parameters === null ? "\u2013" : compact(run.parameters, 4)],
            ["layers \u00d7 width", m.num_hidden_layers ? `${m.num_hidden_layers} \u00d7 ${m.hidden_size}` : "\u2013"],
            ["steps", shown(run.steps)],
            ["tokens", compact(last(curve(run, "tokens")), 4)],
            ["time in steps", duration(axis.at(run, Infinity, "elapsed_s") ?? NaN)],
            ["tokens/s, median", rate ? shown(Math.round(median(finite(rate.y)))) : "\u2013"],
            ["training loss, end", shown(endLoss(run))],
            ...heldOut(run).map(([e, v]) => [`held-out ${e}`, shown(v)]),
            ...(run.evaluation && run.evaluation.best ? [["best step", shown(run.evaluation.best.step)]] : []),
            ["sessions", run.sessions ? String(run.sessions) : "\u2013"],
            ["steps skipped", shown(skipped(run))],
        ];
    };
    const all = runs.map(facts), notes = [];
    for (const run of runs) {
        const of = several ? `${run.name}: ` : "", gaps = run.curves.filter(c => c.gaps > 0 && c.eval === undefined);
        if (run.half_line)
            notes.push(`${of}the last line of metrics.jsonl is only half there and left out (the run is going on, or was killed)`);
        if (gaps.length)
            notes.push(`${of}not a finite number: ${gaps.map(c => `${c.key} in ${shown(c.gaps)} row${c.gaps === 1 ? "" : "s"}`).join(", ")}`);
    }
    const out = [];
    if (!several) {
        out.push(element("div", { class: "tiles" }, ...all[0].filter(([, v]) => v !== "\u2013").map(([label, v]) => element("div", { class: "tile" }, element("b", {}, v), element("span", {}, label)))));
    } else {
        const columns = unique(all.flatMap(f => f.map(([label]) => label))).filter(label => all.some(f => f.some(([l, v]) => l === label && v !== "\u2013")));
        out.push(table([["run", false], ...columns.map((c, i) => [c, i > 0])],
            runs.map((run, i) => [[dot(run.color), run.name], ...columns.map(c => (all[i].find(([l]) => l === c) || [0, "\u2013"])[1])])));
        out.push(...differences());
    }
    out.push(...notes.map(text => element("p", { class: "warning" }, text)));
    out.push(...runs.filter(r => r.config).map(r => element("details", {}, element("summary", {}, `configuration${several ? ` of ${r.name}` : ""}`), element("pre", {}, JSON.stringify(r.config, null, 2)))));
    return out;
}

/* The settings in which the runs differ. */
function differences() {
    const flat = (v, path, out) => {
        if (v !== null && typeof v === "object")
            for (const [key, value] of Object.entries(v))
                flat(value, path === "" ? key : Array.isArray(v) ? `${path}[${key}]` : `${path}.${key}`, out);
        else
            out.set(path, v);
        return out;
    };
    const maps = runs.map(r => flat(r.config || {}, "", new Map())), keys = unique(maps.flatMap(m => [...m.keys()])).filter(k => k !== "run_dir");
    const differ = keys.filter(k => maps.some(m => m.get(k) !== maps[0].get(k)));
    if (!differ.length)
        return [];
    const content = table([["setting", false], ...runs.map(r => [[dot(r.color), r.name], true])].map(([h, n]) => [Array.isArray(h) ? h[1] : h, n]),
        differ.map(k => [k, ...maps.map(m => (m.has(k) ? String(m.get(k)) : "\u2013"))]));
    return [element("details", differ.length <= 12 ? { open: "" } : {}, element("summary", {}, `${differ.length} setting${differ.length === 1 ? " differs" : "s differ"}`), content)];
}

function lossCharts() {
    const lr = runs.length <= 3 ? runs.flatMap(r => series(r, curve(r, "lr"), { second: true, label: "learning rate", smooth: false, part: undefined, low: undefined, color: several ? r.color : "var(--faint)" })) : [];
    const loss = runs.flatMap(r => series(r, curve(r, "loss")));
    return [...chart("Training loss", unique(runs.map(jobOf)).join() === "preference learning" ? "per pair" : "nats per token", [...loss, ...(loss.length ? lr : [])], { tall: true }),
        ...(runs.length > 3 ? each("lr", "Learning rate", "", { zero: true }) : [])];
}

const evalLabels = { eval_loss: ["Held-out loss", "nats per token"], bits_per_byte: ["Bits per byte", "held out"], eval_token_accuracy: ["Token accuracy", "held out"],
    eval_score: ["Score of generated answers", "held out"] };

function evaluationCharts() {
    const out = [];
    for (const key of [...Object.keys(evalLabels), "score"]) {
        const [title, note] = evalLabels[key] || ["Score", "held out"], percent = /accuracy|score/.test(key);
        const of = (r, e) => {
            const c = curve(r, key, { eval: e });
            return c ? series(r, c, { smooth: false, ...bounds(r, c) }) : [];
        };
        const fits = list => ({ percent: percent && list.every(s => finite(s.y).every(v => v >= 0 && v <= 1)) });
        if (several)
            for (const e of evals) {
                const list = runs.flatMap(r => of(r, e));
                out.push(...chart(`${title}: ${e}`, note, list, fits(list)));
            }
        else {
            const list = evals.flatMap((e, i) => of(runs[0], e).map(s => ({ ...s, ...part(e, i) })));
            out.push(...chart(title, note, list, fits(list)));
        }
    }
    runs.forEach(r => evals.forEach(e => curve(r, "eval_tokens", { eval: e })));
    return [...finalTable(), ...out];
}

/* evaluation.json: of pretraining {name: {loss, ...}}, of fine-tuning {evaluations: [{held_out: {name: {loss, ...}}}]}. */
function finalTable() {
    const final = run => {
        const v = run.evaluation || {}, list = Array.isArray(v.evaluations) ? v.evaluations : [];
        return (list.length ? list[list.length - 1].held_out : v) || {};
    };
    const columns = [["loss", v => shown(v.loss)], ["perplexity", v => shown(Math.exp(v.loss))], ["bits per byte", v => (v.bits_per_byte ? shown(v.bits_per_byte) : "\u2013")],
        ["token accuracy", v => ("token_accuracy" in v ? `${shown(100 * v.token_accuracy)} %` : "\u2013")], ["tokens", v => compact(v.tokens, 4)]];
    const rows = unique([...evals, ...runs.flatMap(r => Object.keys(final(r)))]).flatMap(e => runs.flatMap(run => {
        const v = final(run)[e];
        return v && typeof v.loss === "number" ? [[several ? [dot(run.color), `${e} \u00b7 ${run.name}`] : e, ...columns.map(([, text]) => text(v))]] : [];
    }));
    const kept = [0, ...columns.map((_, i) => i + 1).filter(i => rows.some(r => r[i] !== "\u2013"))];
    return rows.length ? [table([["at the end, on all that is held out", false], ...columns.map(([heading]) => [heading, true])].filter((_, i) => kept.includes(i)),
        rows.map(r => r.filter((_, i) => kept.includes(i))))] : [];
}

function waitCharts() {
    const list = runs.flatMap(r => {
        const wait = curve(r, "data_wait_s"), step = curve(r, "step_s");
        if (!wait)
            return [];
        return step && step.y.length === wait.y.length
            ? series(r, wait, { y: wait.y.map((v, i) => (v === null || !step.y[i] ? null : v / step.y[i])), low: undefined, high: undefined, share: true }) : series(r, wait);
    });
    const share = list.length > 0 && list.every(s => s.share);
    return chart("Waiting for data", share ? "share of the step" : "seconds per step", list, { zero: true, percent: share });
}

/* A row of bars whose widths are shares of a whole: parts [label, size, colour]. */
function bars(label, note, list, total) {
    const whole = total || list.reduce((a, [, size]) => a + size, 0);
    return [element("div", {}, label, element("small", {}, note)), element("div", { class: "bars" }, ...list.map(([text, size, c]) => {
        const e = element("div", { title: text }, text);
        e.style.background = c;
        e.style.width = `${100 * size / whole}%`;
        return e;
    }))];
}

/* Sources without what their paths have in common. */
function sourceNames(paths) {
    const split = paths.map(p => p.split("/").filter(Boolean)), few = [...split];
    const cut = from => {
        while (few.length > 1 && few.every(p => p.length > 1) && few.every(p => from(p) === from(few[0])))
            few.forEach((p, i) => (few[i] = from === first ? p.slice(1) : p.slice(0, -1)));
    };
    const first = p => p[0], end = p => p[p.length - 1];
    cut(first);
    cut(end);
    return new Map(paths.map((p, i) => [p, few[i].join("/")]));
}

function mixtures() {
    const out = [], seen = new Map();
    for (const run of runs) {
        const phases = ((run.config || {}).phases || []).map(p => ({ ...p, mixture: p.mixture || p.data || p.sources })).filter(p => Array.isArray(p.mixture) && p.mixture.every(m => m && m.path));
        if (!phases.length)
            continue;
        const key = JSON.stringify(phases.map(p => [p.name, p.tokens, p.steps, p.mixture]));
        if (seen.has(key)) {
            seen.get(key).textContent += `, ${run.name}`;
            continue;
        }
        const names = sourceNames(unique(phases.flatMap(p => p.mixture.map(m => m.path)))), order = [...names.keys()];
        const heading = element("h3", {}, several ? run.name : "Share of each source, phase by phase");
        seen.set(key, heading);
        out.push(element("div", { class: "card", style: "margin-bottom:14px" }, heading, element("div", { class: "mixture" }, ...phases.flatMap((p, k) => {
            const weights = p.mixture.map(m => m.weight ?? 1), sum = weights.reduce((a, b) => a + b, 0);
            const note = [p.tokens ? `${compact(p.tokens)} tokens` : p.steps ? `${shown(p.steps)} steps` : "", p.schedule].filter(Boolean).join(", ");
            return bars(p.name || `phase ${k + 1}`, note, p.mixture.map((m, i) => [`${names.get(m.path)} ${Number((100 * weights[i] / sum).toPrecision(3))} %`, weights[i], color(order.indexOf(m.path))]));
        }))));
    }
    return out;
}

function refinement() {
    const heldOut = evals.flatMap(e => {
        const named = evals.length > 1, of = what => (named ? `${e}: ${what}` : `Held-out ${what}`);
        return [...overTurns("score", of("score by turn"), several ? "last round, with confidence bounds" : "one line per round, with confidence bounds", {}, { eval: e }),
            ...perTurn("score", of("score by round"), "one line per turn, with confidence bounds", {}, { eval: e }),
            ...perTurn("eval_score", of("score of answers"), "one line per turn", {}, { eval: e }),
            ...turnCharts(of, { eval: e })];
    });
    return [
        ...heldOut,
        ...perTurn("score", "Rollout score", "mean of the sampled answers"),
        ...turnCharts(what => (heldOut.length ? `Rollout ${what}` : what[0].toUpperCase() + what.slice(1))),
    ];
}

/* What answers and their refinements are like, besides their scores. */
function turnCharts(title, where = {}) {
    return [
        ...perTurn("win_rate", title("win rate"), "against the first answer; ties count half", { percent: true }, where),
        ...perTurn("length", title("length"), "tokens of an answer", { zero: true }, where),
        ...perTurn("ended_rate", title("share ended"), "answers that ended of their own accord", { percent: true }, where),
        ...perTurn("copy_rate", title("share copied"), "refinements that repeat the answer before", { percent: true, zero: true }, where),
    ];
}

function pairs() {
    const rows = [];
    let most = 0;
    runs.forEach(run => {
        const of = key => curve(run, key, { of_round: true }) || curve(run, key), kept = of("pairs");
        if (!kept)
            return;
        const tied = of("tied"), filtered = of("filtered");
        kept.steps.forEach((step, i) => {
            const at = kept.rounds ? kept.rounds[i] : null, value = c => (c && c.y.length === kept.y.length ? c.y[i] || 0 : 0);
            const list = [["kept", kept.y[i] || 0, "var(--c2)"], ["tied", value(tied), "var(--c7)"], ["filtered", value(filtered), "var(--c1)"]].filter(p => p[1] > 0);
            most = Math.max(most, list.reduce((a, p) => a + p[1], 0));
            rows.push([`${several ? `${run.name}, ` : ""}${at === null ? `step ${shown(step)}` : `round ${shown(at)}`}`, list]);
        });
    });
    if (!rows.length || !most)
        return [];
    return [element("div", { class: "card", style: "margin-bottom:14px" }, element("h3", {}, "Pairs of each round"), element("div", { class: "mixture" },
        ...rows.slice(-40).flatMap(([label, list]) => bars(label, "", list.map(([text, n, c]) => [`${shown(n)} ${text}`, n, c]), most))))];
}

function preference() {
    const overRounds = (key, title, note, options) => {
        const list = runs.flatMap(r => byRound(r, curve(r, key, { of_round: true }) || curve(r, key)));
        return list.length ? [new Chart({ title, note, series: list, kind: "round", ...options })] : each(key, title, note, options);
    };
    return [
        ...pairs(),
        ...parts([["loss/dpo", "direct"], ["loss/refine_l", "refining the rejected"], ["loss/refine_w", "refining the chosen"]], "Loss by term", "before weighting"),
        ...parts([["rewards/chosen", "chosen"], ["rewards/rejected", "rejected"]], "Rewards", "\u03b2 (log \u03c0 \u2212 log \u03c0ref)"),
        ...each("rewards/margins", "Reward margin", "chosen minus rejected"),
        ...parts([["rewards/accuracies", "direct"], ["refine/acc_l", "refining the rejected"], ["refine/acc_w", "refining the chosen"]], "Accuracy", "pairs in the right order", { percent: true }),
        ...parts([["refine/h_l", "rejected"], ["refine/h_w", "chosen"]], "Refinement preference h", "after the rejected and after the chosen answer"),
        ...parts([["logps/chosen", "chosen"], ["logps/rejected", "rejected"]], "Log-probability of an answer", "sum of its tokens, in nats"),
        ...overRounds("kl", "KL from the reference", "nats per answer"),
        ...overRounds("log_prob_difference", "Sampler against trainer", "largest difference of log-probabilities", {}),
        ...overRounds("generated_tokens", "Generated tokens", "per round", { zero: true }),
        ...overRounds("rollout_tokens_per_s", "Rollout throughput", "generated tokens per second", { zero: true }),
    ];
}

/* GRPO and its kin, under TRL's names. */
function policy() {
    return [
        ...each("reward", "Reward", "mean of the sampled answers"),
        ...each("reward_std", "Spread of rewards", "standard deviation in a group"),
        ...each("frac_reward_zero_std", "Groups without a signal", "all rewards the same", { percent: true, zero: true }),
        ...each("clip_ratio", "Clipped ratios", "share of tokens", { percent: true, zero: true }),
        ...each("completions/mean_length", "Length", "tokens of an answer", { zero: true }),
        ...each("completions/clipped_ratio", "Cut answers", "longer than allowed", { percent: true, zero: true }),
    ];
}

/* Every curve that no section has drawn, one small chart each, grouped by what stands before the first "/". */
function more() {
    const left = new Map();
    for (const run of runs)
        for (const c of run.curves)
            if (!drawn.has(name(c)) && c.key !== "count" && c.key !== "eval_answers")
                left.set(name(c), c);
    const groups = new Map();
    for (const c of left.values()) {
        const group = c.of_round ? "rounds" : c.eval !== undefined ? `eval ${c.eval}` : c.turn !== undefined ? "turns" : c.key.includes("/") ? c.key.split("/")[0] : "";
        groups.set(group, [...(groups.get(group) || []), c]);
    }
    return [...groups].sort((a, b) => (a[0] < b[0] ? -1 : 1)).flatMap(([group, list]) => list.flatMap(c => (c.of_round
        ? chart(c.key, "per round", runs.flatMap(r => byRound(r, curve(r, c.key, { of_round: true }))), { kind: "round" }) : c.turn === undefined
        ? each(c.key, c.key, c.eval === undefined ? "" : `eval ${c.eval}`, {}, { eval: c.eval }) : perTurn(c.key, c.key, group, {}, { eval: c.eval }))));
}
