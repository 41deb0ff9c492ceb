"use strict";
/* Charts in SVG: lines with a faint raw curve behind a smoothed one, bounds, a second axis, bands, a cross-hair that all charts with the same x share, zoom.
 *
 * A chart is {title, note, series, bands, kind, log, zero, tall, percent}. `kind` is what x means ("step", "round", "turn"); charts of one kind share zoom and
 * cross-hair. A series is {run, part, x, y, low, high, color, dash, second, smooth, bounds}: x rising; y may hold null, where the line is broken; low and high
 * around y; second: drawn on the axis to the right; bounds: low and high are an interval of confidence, not the spread of what was thinned out. */

const view = { smooth: 0.01, outliers: false, hidden: new Set(), zoom: {}, charts: [] };

function element(name, attributes, ...children) {
    const e = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
        if (key.startsWith("on"))
            e.addEventListener(key.slice(2), value);
        else if (value !== undefined && value !== false)
            e.setAttribute(key, value);
    }
    e.append(...children.filter(c => c !== null && c !== undefined));
    return e;
}

function shape(name, attributes, text) {
    const e = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes))
        if (value !== undefined)
            e.setAttribute(key, value);
    if (text !== undefined)
        e.textContent = text;
    return e;
}

/* --- numbers as text --- */

const minus = text => text.replace("-", "\u2212");

/* Four significant digits, groups of thousands for whole numbers, powers of ten where zeros would be counted. */
function shown(v) {
    if (v === null || v === undefined || !isFinite(v))
        return "\u2013";
    const a = Math.abs(v);
    if (a !== 0 && (a < 1e-3 || a >= 1e12))
        return minus(v.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e"));
    if (Number.isInteger(v) || a >= 1e4)
        return minus(Math.round(v).toLocaleString("en-US").replace(/,/g, "\u2009"));
    return minus(String(Number(v.toPrecision(4))));
}

/* 10.05M, 8.2k: for ticks and tiles. */
function compact(v, digits = 3) {
    if (v === null || v === undefined || !isFinite(v))
        return "\u2013";
    const a = Math.abs(v);
    if (a >= 1e15)
        return minus(v.toExponential(2).replace("e+", "e"));
    for (const [unit, suffix] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]])
        if (a >= unit * (suffix === "k" ? 10 : 1))
            return minus(String(Number((v / unit).toPrecision(digits))) + suffix);
    if (a !== 0 && a < 1e-3)
        return minus(v.toExponential(1).replace(".0e", "e").replace("e+", "e"));
    return minus(String(Number(v.toPrecision(Math.max(digits, a >= 1000 ? 4 : 0)))));
}

function duration(seconds) {
    if (seconds === null || !isFinite(seconds))
        return "\u2013";
    const s = Math.round(seconds), h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
    if (s < 60)
        return `${Number(seconds.toPrecision(3))} s`;
    return h >= 48 ? `${Math.floor(h / 24)} d ${h % 24} h` : h > 0 ? `${h} h ${m} min` : s % 60 ? `${m} min ${s % 60} s` : `${m} min`;
}

/* --- scales --- */

/* Round values between low and high, about `count`. */
function ticks(low, high, count) {
    const raw = (high - low) / Math.max(1, count), power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 5, 10].find(f => f * power >= raw * 0.999), out = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++)
        out.push(Number((k * step).toPrecision(12)));
    return out;
}

function logTicks(low, high, count) {
    const decades = Math.log10(high / low), out = [];
    if (decades < 1)
        return ticks(low, high, count).filter(v => v > 0);
    const every = Math.ceil(decades / count), factors = decades < 3 ? [1, 2, 5] : [1];
    for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++)
        for (const f of factors)
            if (e % every === 0 && f * 10 ** e >= low * 0.999 && f * 10 ** e <= high * 1.001)
                out.push(Number((f * 10 ** e).toPrecision(3)));
    return out;
}

/* value -> pixel, linear or logarithmic, and back. */
function scale(low, high, from, to, log) {
    const t = log ? Math.log : v => v, back = log ? Math.exp : v => v, a = t(low), b = t(high) - a || 1;
    const f = v => from + (t(v) - a) / b * (to - from);
    f.invert = p => back(a + (p - from) / (to - from) * b);
    return f;
}

/* First index with x[index] >= v. */
function lowerBound(x, v) {
    let low = 0, high = x.length;
    while (low < high) {
        const middle = (low + high) >> 1;
        if (x[middle] < v)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

function nearest(x, v) {
    const i = lowerBound(x, v);
    return i > 0 && (i === x.length || v - x[i - 1] < x[i] - v) ? i - 1 : i;
}

/* A Gaussian window in x, of the same width for every curve of a chart however many points it has; null stays null. It does not reach beyond a group (the
 * rounds of a run, where another problem begins). */
function smoothed(x, y, groups, sigma) {
    let from = 0;
    return y.map((value, i) => {
        if (value === null)
            return null;
        while (x[from] < x[i] - 3 * sigma || (groups && groups[from] !== groups[i]))
            from++;
        let sum = 0, weights = 0;
        for (let k = from; k < x.length && x[k] <= x[i] + 3 * sigma; k++) {
            if (y[k] === null || (groups && groups[k] !== groups[i]))
                continue;
            const d = (x[k] - x[i]) / sigma, w = Math.exp(-d * d / 2);
            sum += w * y[k];
            weights += w;
        }
        return sum / weights;
    });
}

function percentile(sorted, p) {
    return sorted[Math.min(sorted.length - 1, Math.max(0, Math.round(p * (sorted.length - 1))))];
}

/* --- a chart --- */

const FEW = 40; /* points that are drawn as dots */
const isHidden = s => view.hidden.has(s.run) || view.hidden.has(s.part);

class Chart {
    constructor(spec) {
        Object.assign(this, spec);
        this.log = !!spec.log;
        this.plot = element("div", { class: "plot" });
        this.svg = null;
        this.cursor = null;
        this.logButton = element("button", { type: "button", title: "logarithmic scale", onclick: () => { this.log = !this.log; this.draw(); } }, "log");
        const head = element("div", { class: "head" }, element("h3", {}, this.title), element("span", { class: "note" }, this.note || ""), this.logButton);
        this.legend = element("div", { class: "legend" });
        this.card = element("div", { class: this.tall ? "card wide" : "card" }, head, this.legend, this.plot);
        view.charts.push(this);
    }

    visible() {
        return this.series.filter(s => !isHidden(s) && s.y.some(v => v !== null));
    }

    fillLegend() {
        const items = [];
        const add = (name, swatch) => items.push(element("button", { type: "button", class: view.hidden.has(name) ? "off" : "", title: "show or hide", onclick: () => {
            if (!view.hidden.delete(name))
                view.hidden.add(name);
            drawAll();
        } }, swatch, name));
        const runs = [...new Set(this.series.map(s => s.run))], parts = [...new Set(this.series.map(s => s.part).filter(p => p !== undefined))];
        if (runs.length > 1)
            for (const run of runs)
                add(run, line(this.series.find(s => s.run === run).color, ""));
        if (runs.length > 1 && parts.length > 1)
            items.push(element("span", { class: "gap" }));
        if (parts.length > 1)
            for (const part of parts) {
                const s = this.series.find(t => t.part === part);
                add(part, line(runs.length > 1 ? "var(--soft)" : s.color, s.dash));
            }
        const second = this.series.find(s => s.second);
        if (second)
            items.push(element("span", { class: "note" }, `\u2504 ${second.label} (right)`));
        this.legend.replaceChildren(...items);
    }

    /* The range of x, the same in all charts of a kind: the zoom, or all there is. */
    extent() {
        if (view.zoom[this.kind])
            return view.zoom[this.kind];
        let low = Infinity, high = -Infinity;
        for (const c of view.charts)
            for (const s of c.kind === this.kind ? c.visible() : []) {
                low = Math.min(low, s.x[0]);
                high = Math.max(high, s.x[s.x.length - 1]);
            }
        return low === high ? [low - 0.5, high + 0.5] : [low, high];
    }

    /* The range of y among what is visible there; null when nothing is. */
    range(series, [x0, x1], log) {
        const values = [];
        for (const s of series) {
            const end = Math.min(s.x.length, lowerBound(s.x, x1) + 1);
            for (let i = Math.max(0, lowerBound(s.x, x0) - 1); i < end; i++)
                for (const v of s.low && !view.outliers ? [s.y[i], s.low[i], s.high[i]] : [s.y[i]])
                    if (v !== null && v !== undefined && isFinite(v) && (!log || v > 0))
                        values.push(v);
        }
        if (!values.length)
            return null;
        values.sort((a, b) => a - b);
        const robust = view.outliers && values.length > 50;
        let low = robust ? percentile(values, 0.01) : values[0], high = robust ? percentile(values, 0.99) : values[values.length - 1];
        if (this.zero && !log)
            [low, high] = [Math.min(low, 0), Math.max(high, 0)];
        if (log) {
            const pad = low === high ? 2 : (high / low) ** 0.05;
            return [low / pad, high * pad];
        }
        if (low === 0 && high === 0)
            return [0, 1];
        const pad = low === high ? Math.abs(low) * 0.1 : (high - low) * 0.05;
        return [this.zero && low === 0 ? 0 : low - pad, high + pad];
    }

    draw() {
        const width = Math.max(200, this.plot.clientWidth), height = this.tall ? Math.min(380, Math.max(250, width * 0.42)) : 220;
        const series = this.visible(), first = series.filter(s => !s.second), second = series.filter(s => s.second);
        const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, height, tabindex: 0, role: "img", "aria-label": `${this.title}: ${this.describe(first)}` });
        const extent = this.extent();
        let range = this.range(first, extent, this.log);
        const positive = first.some(s => s.y.some(v => v > 0));
        this.logButton.hidden = !positive;
        this.logButton.setAttribute("aria-pressed", this.log);
        this.fillLegend();
        this.frame = null;
        if (range === null) {
            svg.append(shape("text", { x: width / 2, y: height / 2, "text-anchor": "middle", class: "none" }, this.series.length && !first.length ? "hidden, or not a number anywhere" : "no value here"));
        } else {
            const yTicks = (this.log ? logTicks : ticks)(...range, height / 48), label = v => this.percent ? `${shown(v * 100)} %` : compact(v, 4);
            const left = 14 + 6.6 * Math.max(2, ...yTicks.map(v => label(v).length)), right = second.length ? 58 : 14, top = this.bands && this.bands.length ? 22 : 10;
            const x = scale(...extent, left, width - right), y = scale(...range, height - 26, top, this.log);
            this.frame = { x, y, left, right: width - right, top, bottom: height - 26, width, first, second };
            this.drawBands(svg, extent);
            for (const v of yTicks)
                svg.append(shape("line", { x1: left, x2: width - right, y1: y(v), y2: y(v), class: "grid" }), shape("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, label(v)));
            this.drawX(svg, extent, width);
            const id = `clip${view.charts.indexOf(this)}`, clip = shape("clipPath", { id });
            clip.append(shape("rect", { x: left - 4, y: top - 4, width: Math.max(0, width - left - right + 8), height: height - 18 - top }));
            const lines = shape("g", { "clip-path": `url(#${id})`, fill: "none", "stroke-linejoin": "round" });
            svg.append(clip, lines);
            if (second.length)
                this.drawSecond(svg, lines, second, extent);
            for (const s of first)
                this.drawSeries(lines, s, y, extent);
            svg.append(shape("line", { x1: left, x2: width - right, y1: height - 26, y2: height - 26, class: "edge" }));
        }
        this.listen(svg);
        this.cursor = shape("g", { "pointer-events": "none" });
        svg.append(this.cursor);
        this.svg = svg;
        this.tip = null;
        this.plot.replaceChildren(svg);
    }

    describe(series) {
        return series.map(s => `${[s.run, s.part].filter(Boolean).join(" ")} ends at ${shown(s.y.findLast(v => v !== null))}`).join("; ");
    }

    drawBands(svg, [x0, x1]) {
        const f = this.frame;
        (this.bands || []).forEach((band, i) => {
            const a = f.x(Math.max(x0, Math.min(x1, band.first))), b = f.x(Math.max(x0, Math.min(x1, band.last)));
            if (b - a < 0.5)
                return;
            if (i % 2 === 0)
                svg.append(shape("rect", { x: a, y: 4, width: b - a, height: f.bottom - 4, fill: "var(--band)" }));
            const room = Math.floor((b - a - 8) / 5.8);
            if (room >= 2)
                svg.append(shape("text", { x: (a + b) / 2, y: 15, "text-anchor": "middle", class: "band" }, band.name.length > room ? band.name.slice(0, room - 1) + "\u2026" : band.name));
        });
    }

    drawX(svg, [x0, x1], width) {
        const f = this.frame, at = this.kind === "step" ? axis.name : this.kind, whole = at !== "time", named = this.kind !== "step";
        ticks(x0, x1, Math.min(width / 90, named ? Math.max(1, x1 - x0) : Infinity)).filter(v => !whole || Number.isInteger(v)).forEach((v, i) => {
            const label = at === "time" ? clock(v) : named && i === 0 ? `${at} ${v}` : compact(v), half = label.length * 3.3;
            svg.append(shape("line", { x1: f.x(v), x2: f.x(v), y1: f.bottom, y2: f.bottom + 4, class: "edge" }),
                shape("text", { x: Math.max(half + 2, Math.min(width - half - 2, f.x(v))), y: f.bottom + 16, "text-anchor": "middle" }, label));
        });
    }

    drawSecond(svg, lines, second, extent) {
        const f = this.frame, range = this.range.call({ zero: true }, second, extent, false);
        if (!range)
            return;
        const y = scale(...range, f.bottom, f.top);
        for (const v of ticks(...range, 4))
            svg.append(shape("text", { x: f.right + 6, y: y(v) + 4 }, compact(v)));
        for (const s of second) {
            lines.append(shape("path", { d: path(f.x, y, s.x, s.y, s.groups), stroke: s.color, "stroke-width": 1.2, "stroke-dasharray": "2 3", opacity: 0.75 }));
            s.y2 = y;
        }
    }

    drawSeries(lines, s, y, extent) {
        const f = this.frame, few = s.x.length <= FEW, smooth = s.smooth && view.smooth > 0 && s.x.length >= 20;
        const floor = this.log ? v => (v > 0 ? v : null) : v => v;
        s.line = smooth ? smoothed(s.x, s.y, s.groups, view.smooth * (extent[1] - extent[0])) : s.y;
        if (s.low && !(few && s.bounds))
            lines.append(shape("path", { d: area(f.x, y, s.x, s.low.map(floor), s.high.map(floor)), fill: s.color, "fill-opacity": 0.13, stroke: s.color, "stroke-opacity": 0.3, "stroke-width": s.bounds ? 0 : 0.8 }));
        if (s.low && few && s.bounds)
            s.x.forEach((v, i) => s.low[i] !== null && s.high[i] !== null && lines.append(shape("path", { stroke: s.color, "stroke-width": 1.2, opacity: 0.55,
                d: `M${f.x(v) - 4},${y(floor(s.low[i]) ?? y.invert(f.bottom))}h8m-4,0V${y(floor(s.high[i]) ?? y.invert(f.bottom))}m-4,0h8` })));
        if (smooth)
            lines.append(shape("path", { d: path(f.x, y, s.x, s.y.map(floor), s.groups), stroke: s.color, "stroke-width": 1, opacity: 0.28 }));
        lines.append(shape("path", { d: path(f.x, y, s.x, s.line.map(floor), few ? null : s.groups), stroke: s.color, "stroke-width": few || smooth ? 1.9 : 1.5, "stroke-dasharray": s.dash || undefined,
            "stroke-linecap": s.dash ? undefined : "round" }));
        if (few)
            s.x.forEach((v, i) => floor(s.y[i]) !== null && lines.append(shape("circle", { cx: f.x(v), cy: y(s.y[i]), r: 2.6, fill: s.color })));
    }

    /* --- cross-hair and zoom --- */

    listen(svg) {
        let start = null;
        const at = event => (event.clientX - svg.getBoundingClientRect().left) * (this.frame ? this.frame.width : 1) / svg.getBoundingClientRect().width;
        svg.addEventListener("pointerdown", event => {
            if (this.frame && event.pointerType !== "touch" && event.button === 0) {
                start = at(event);
                svg.setPointerCapture(event.pointerId);
            }
        });
        svg.addEventListener("pointermove", event => {
            if (!this.frame)
                return;
            const f = this.frame, p = Math.max(f.left, Math.min(f.right, at(event)));
            point(this, f.x.invert(p));
            if (start !== null) {
                const from = Math.max(f.left, Math.min(f.right, start));
                this.cursor.append(shape("rect", { class: "picked", x: Math.min(from, p), width: Math.abs(p - from), y: f.top, height: f.bottom - f.top }));
            }
        });
        svg.addEventListener("pointerup", event => {
            const f = this.frame, from = start;
            start = null;
            if (!f || from === null || Math.abs(at(event) - from) < 6)
                return;
            const ends = [from, at(event)].map(p => f.x.invert(Math.max(f.left, Math.min(f.right, p)))).sort((a, b) => a - b);
            view.zoom[this.kind] = ends;
            drawAll();
        });
        svg.addEventListener("pointerleave", () => start === null && point(null));
        svg.addEventListener("blur", () => point(null));
        svg.addEventListener("dblclick", () => resetZoom());
        svg.addEventListener("keydown", event => this.key(event));
    }

    key(event) {
        const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[event.key];
        if (event.key === "Escape")
            resetZoom();
        if (!step || !this.frame)
            return;
        event.preventDefault();
        const longest = this.frame.first.reduce((a, b) => (b.x.length > a.x.length ? b : a));
        const now = this.at === undefined ? (step > 0 ? -1 : longest.x.length) : nearest(longest.x, this.at);
        point(this, longest.x[Math.max(0, Math.min(longest.x.length - 1, now + step))]);
    }

    /* Line and dots at x; as well the read-out in the chart that is pointed at. */
    mark(x, pointed) {
        this.at = x;
        this.cursor.replaceChildren();
        if (this.tip)
            this.tip.remove();
        this.tip = null;
        const f = this.frame;
        if (!f || x === undefined || f.x(x) < f.left - 1 || f.x(x) > f.right + 1)
            return;
        this.cursor.append(shape("line", { x1: f.x(x), x2: f.x(x), y1: f.top, y2: f.bottom, class: "cross" }));
        const rows = [];
        for (const s of [...f.first, ...f.second]) {
            const i = nearest(s.x, x), v = s.y[i];
            if (v === null || v === undefined || s.x[i] < s.x[0] || Math.abs(f.x(s.x[i]) - f.x(x)) > 24 && s.x.length > FEW)
                continue;
            const y = s.second ? s.y2 : f.y, drawn = s.second ? v : s.line[i];
            if (y && drawn !== null && (s.second || !this.log || drawn > 0) && y(drawn) >= f.top - 2 && y(drawn) <= f.bottom + 2)
                this.cursor.append(shape("circle", { cx: f.x(s.x[i]), cy: y(drawn), r: 3.2, fill: s.color, stroke: "var(--card)", "stroke-width": 1.5 }));
            rows.push({ s, i, v });
        }
        if (pointed && rows.length)
            this.showTip(x, rows);
    }

    showTip(x, rows) {
        const f = this.frame, value = v => (this.percent ? `${shown(v * 100)} %` : shown(v));
        const tip = element("div", { class: "tip" }, element("b", {}, this.kind === "step" ? axis.describe(rows[0].s, rows[0].i) : `${this.kind} ${shown(rows[0].s.x[rows[0].i])}`));
        rows.sort((a, b) => !!a.s.second - !!b.s.second || b.v - a.v);
        for (const { s, i, v } of rows.slice(0, 14)) {
            const number = element("i", {}, s.second ? shown(v) : value(v));
            if (s.low && s.low[i] !== null)
                number.append(element("small", {}, ` ${value(s.low[i])} to ${value(s.high[i])}`));
            else if (!s.second && s.line !== s.y)
                number.append(element("small", {}, ` smoothed ${value(s.line[i])}`));
            const single = this.series.every(t => t.second || t.run === s.run);
            const name = s.second ? (single ? s.label : `${s.run} ${s.label}`) : single ? s.part || this.title : [s.run, s.part].filter(Boolean).join(" \u00b7 ");
            tip.append(element("div", {}, line(s.color, s.second ? "2 3" : s.dash), element("span", {}, name), number));
        }
        this.plot.append(tip);
        const left = f.x(x) * this.plot.clientWidth / f.width, room = this.plot.clientWidth - tip.offsetWidth;
        tip.style.left = `${Math.max(0, Math.min(room, left > this.plot.clientWidth / 2 ? left - tip.offsetWidth - 14 : left + 14))}px`;
        tip.style.top = `${f.top + 6}px`;
        this.tip = tip;
    }
}

function line(color, dash) {
    const svg = shape("svg", { class: "swatch", viewBox: "0 0 16 8", "aria-hidden": "true" });
    svg.append(shape("line", { x1: 0, x2: 16, y1: 4, y2: 4, stroke: color, "stroke-width": 2.6, "stroke-dasharray": dash || undefined }));
    return svg;
}

/* Time on an axis: 90 s, 12m, 3h20. */
function clock(s) {
    return s < 120 ? `${Number(s.toPrecision(3))}s` : s < 7200 ? `${Number((s / 60).toPrecision(3))}m` : `${Number((s / 3600).toPrecision(3))}h`;
}

/* A line, broken at null and, when there are groups, where the next one begins. */
function path(x, y, xs, ys, groups) {
    let d = "", pen = false;
    for (let i = 0; i < xs.length; i++) {
        if (ys[i] === null || ys[i] === undefined) {
            pen = false;
            continue;
        }
        pen = pen && !(groups && groups[i] !== groups[i - 1]);
        d += `${pen ? "L" : "M"}${x(xs[i]).toFixed(1)},${y(ys[i]).toFixed(1)}`;
        pen = true;
    }
    return d;
}

/* Between low and high; a gap ends a piece. */
function area(x, y, xs, low, high) {
    let d = "";
    for (let i = 0; i < xs.length; i++) {
        const from = i;
        while (i < xs.length && low[i] !== null && high[i] !== null)
            i++;
        if (i - from < 2)
            continue;
        const p = (v, k) => `${x(xs[k]).toFixed(1)},${y(v).toFixed(1)}`, piece = [...Array(i - from).keys()].map(k => k + from);
        d += `M${piece.map(k => p(high[k], k)).join("L")}L${piece.reverse().map(k => p(low[k], k)).join("L")}Z`;
    }
    return d;
}

/* The pointer is at x in a chart (null: in none): every chart of its kind shows where that is. */
function point(chart, x) {
    for (const c of view.charts)
        if (!chart || c.kind === chart.kind)
            c.mark(chart ? x : undefined, c === chart);
        else if (c.at !== undefined)
            c.mark(undefined, false);
}

function resetZoom() {
    view.zoom = {};
    drawAll();
}

function drawAll() {
    for (const chart of view.charts)
        chart.draw();
    document.getElementById("reset").hidden = !Object.keys(view.zoom).length;
}
