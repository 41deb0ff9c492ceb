/* Samples side by side, and the page put together. */

function answerBox(title, answer, better) {
    const score = typeof answer.score === "number" ? element("b", { class: better }, `score ${shown(answer.score)}`) : null;
    return element("div", { class: `answer${title === "reference" ? " reference" : ""}` }, element("div", {}, title, score),
        element("pre", {}, (answer.text || "") + (answer.cut ? `\u2026 [${shown(answer.cut)} bytes more]` : "")));
}

/* One prompt and its answers; a score above, or below, that of the first answer is coloured. */
function sampleCard(sample) {
    const { run, row } = sample, multiple = row.answers.length > 1, base = row.answers.length ? row.answers[0].score : undefined;
    const answers = row.answers.map((a, i) => {
        const turn = a.turn ?? i, title = a.turn === undefined && !multiple ? "answer" : turn === 0 ? "first answer" : `refinement ${turn}`;
        return answerBox(title, a, i > 0 && typeof base === "number" ? (a.score > base ? "up" : a.score < base ? "down" : "") : "");
    });
    if (row.reference !== undefined)
        answers.push(answerBox("reference", { text: row.reference, cut: row.reference_cut }));
    const where = [several ? run.name : null, `step ${shown(row.step)}`, row.round === undefined ? null : `round ${shown(row.round)}`, row.eval].filter(Boolean).join(" \u00b7 ");
    return element("div", { class: "card sample" }, element("div", { class: "head" }, ...(several ? [dot(run.color)] : []), element("span", { class: "note" }, where)),
        element("pre", {}, (row.prompt ?? "") + (row.prompt_cut ? `\u2026 [${shown(row.prompt_cut)} bytes more]` : "")), element("div", { class: "answers" }, ...answers));
}

/* A menu of the steps, with all prompts of one, and a menu of the prompts, each with its answers at all steps. */
function samples() {
    const all = runs.flatMap(run => run.samples.rows.map(row => ({ run, row })));
    if (!all.length)
        return [];
    const total = runs.reduce((n, r) => n + r.samples.total, 0), list = element("div", {});
    const steps = unique(all.map(s => s.row.step)).sort((a, b) => a - b), prompts = unique(all.map(s => s.row.prompt ?? ""));
    const option = (value, text) => element("option", { value }, text.length > 70 ? `${text.slice(0, 69)}\u2026` : text);
    const step = element("select", { "aria-label": "step" }, ...steps.map((s, i) => {
        const round = all.find(a => a.row.step === s).row.round;
        return option(String(i), `step ${shown(s)}${round === undefined ? "" : ` (round ${shown(round)})`}`);
    }));
    const prompt = element("select", { "aria-label": "prompt" }, option("", "all prompts"), ...prompts.map((p, i) => option(String(i), p || "(empty)")));
    step.value = String(steps.length - 1);
    const show = () => {
        const chosen = all.filter(s => (prompt.value === "" ? s.row.step === steps[Number(step.value)] : (s.row.prompt ?? "") === prompts[Number(prompt.value)]));
        step.disabled = prompt.value !== "";
        list.replaceChildren(...chosen.map(sampleCard));
    };
    step.addEventListener("change", show);
    prompt.addEventListener("change", show);
    show();
    return [element("div", { class: "pick" }, step, prompt, element("span", {}, all.length < total ? `${shown(all.length)} of ${shown(total)} samples are in this page` : `${shown(total)} samples`)), list];
}

/* Put the x of the chosen axis into every series over steps. */
function setAxis(value) {
    axis.name = value;
    delete view.zoom.step;
    for (const c of view.charts.filter(d => d.kind === "step"))
        for (const s of c.series)
            s.x = s.fixed ? s.x : axis.convert(s.of, s.steps);
    redraw();
}

function redraw() {
    for (const c of view.charts)
        c.bands = c.kind === "step" ? bands() : [];
    drawAll();
}

function build() {
    document.getElementById("about").textContent = `${several ? `${runs.length} runs` : `${jobOf(runs[0])}, ${runs[0].path}`}, written ${data.written}`;
    section("Overview", overview());
    section("Loss", lossCharts());
    section("Held-out evaluation", evaluationCharts());
    section("Fine-tuning", each("token_accuracy", "Token accuracy", "training rows", { percent: true }), each("targets", "Target tokens", "per step", { zero: true }));
    section("Refinement", refinement());
    section("Preference learning", preference());
    section("Policy gradient", policy());
    section("Gradients", each("grad_norm", "Gradient norm", "before clipping", { log: true }),
        runs.some(r => (curve(r, "skipped") || { y: [] }).y.some(v => v > 0)) ? each("skipped", "Steps skipped", "something was not finite", { zero: true }) : []);
    section("Throughput", each("tokens_per_s", "Tokens per second", "", { zero: true }), waitCharts(), each("step_s", "Time of a step", "seconds", { zero: true }));
    section("Mixture", mixtures());
    section("Samples", samples());
    section("More metrics", more());
}

function controls() {
    const of = id => document.getElementById(id), smooth = of("smooth");
    of("axis").append(...axes.map(a => element("option", { value: a }, { step: "steps", tokens: "tokens", time: "time in steps" }[a])));
    of("axis").addEventListener("change", event => setAxis(event.target.value));
    const showSmooth = () => (of("smooth-value").textContent = view.smooth ? `${Number((100 * view.smooth).toPrecision(2))} %` : "off");
    smooth.addEventListener("input", () => {
        view.smooth = Number(smooth.value) / 400;
        showSmooth();
        redraw();
    });
    of("outliers").addEventListener("change", event => {
        view.outliers = event.target.checked;
        redraw();
    });
    of("reset").addEventListener("click", resetZoom);
    showSmooth();
}

build();
controls();
redraw();
/* Only a change of width draws anew: the height follows from it. */
let width = document.body.clientWidth;
new ResizeObserver(() => {
    if (document.body.clientWidth !== width) {
        width = document.body.clientWidth;
        redraw();
    }
}).observe(document.body);
