"""The plots of the report. Each takes records and gives a figure, or None when there is nothing to
plot. matplotlib alone.
"""
import statistics

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from .cases import parts  # noqa: E402
from .results import group  # noqa: E402

COLOURS = {"dasan": "#1f5fa8", "llama.cpp": "#c8571b", "llama.cpp-nofa": "#e0a04a",
           "openvino": "#3c8d40", "transformers": "#7b4ea3", "ctranslate2": "#8a6d5a"}
plt.rcParams.update({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True,
                     "figure.constrained_layout.use": True, "axes.spines.top": False,
                     "axes.spines.right": False})


def colour(engine):
    return COLOURS.get(engine, "#555555")


def median_and_spread(values):
    middle = statistics.median(values)
    return middle, middle - min(values), max(values) - middle


def roofline(records):
    """Kernels against the two roofs of this machine, at the most threads that were measured."""
    kernels = [r for r in records if r["record"] == "kernel" and r["weight_ops"] > 0]
    if not kernels:
        return None
    threads = max(r["threads"] for r in kernels)
    kernels = [r for r in kernels if r["threads"] == threads and r["isa"] != "generic"]
    if not kernels:
        return None
    figure, axes = plt.subplots(figsize=(8.5, 5))
    dram = statistics.median(r["limits"]["dram_read_gbs"] for r in kernels)
    limits = kernels[0]["limits"]
    xs = [0.2 * 1.25**i for i in range(45)]
    for name, peak, style in (("int8", limits["int8_gops"], "-"), ("bf16", limits["bf16_gflops"], ":"),
                              ("f32 fma", limits["fma_gflops"], "--")):
        if peak > 0:
            axes.plot(xs, [min(dram * x, peak) for x in xs], style, color="#444444", linewidth=1.2)
            axes.annotate(f"{name} {peak:.0f} Gop/s", (xs[-1], peak), ha="right", va="bottom")
    axes.annotate(f"DRAM {dram:.0f} GB/s (median of the samples)", (0.25, dram * 0.25 * 1.15),
                  rotation=36, rotation_mode="anchor", va="bottom")
    forms = sorted({r["format"] for r in kernels})
    for i, form in enumerate(forms):
        points = [r for r in kernels if r["format"] == form]
        axes.scatter([r["weight_ops"] / r["bytes"] for r in points],
                     [r["weight_ops"] / r["seconds"] * 1e-9 for r in points], s=22, label=form,
                     color=plt.cm.tab20(i % 20), edgecolors="white", linewidths=0.4)
    axes.set(xscale="log", yscale="log", xlabel="operations per byte that must move",
             ylabel="Gop/s (two per multiply-add)",
             title=f"Roofline of the kernels, {threads} threads")
    axes.legend(ncols=2, fontsize=7, loc="lower right")
    return figure


def panels(groups, title, ylabel):
    """A grid of axes, one for each key of groups, and its figure."""
    columns = min(3, len(groups))
    rows = (len(groups) + columns - 1) // columns
    figure, axes = plt.subplots(rows, columns, figsize=(3.6 * columns + 0.6, 3.0 * rows + 0.4),
                                squeeze=False)
    flat = list(axes.flat)
    for unused in flat[len(groups):]:
        unused.set_visible(False)
    for a, key in zip(flat, groups):
        a.set_title(" ".join(str(k) for k in key), fontsize=9)
    for row in axes:
        row[0].set_ylabel(ylabel)
    figure.suptitle(title)
    return figure, flat


def speed_over(samples, chosen, value, title, xlabel):
    """Median speed with its spread over value(case), one panel per model and format."""
    samples = [r for r in samples if chosen(*parts(r["case"])) and
               r["threads"] == max(s["threads"] for s in samples)]
    groups = {k: rs for k, rs in group(samples, lambda r: (r["model"], r["format"])).items()
              if len({value(*parts(r["case"])) for r in rs}) > 1}
    if not groups:
        return None
    figure, axes = panels(groups, title, "tokens/s")
    for a, rs in zip(axes, groups.values()):
        for engine, own in group(rs, lambda r: r["engine"]).items():
            points = sorted(group(own, lambda r: value(*parts(r["case"]))).items())
            stats = [median_and_spread([r["tokens_per_second"] for r in g]) for _, g in points]
            a.errorbar([x for x, _ in points], [s[0] for s in stats],
                       yerr=[[s[1] for s in stats], [s[2] for s in stats]], marker="o",
                       markersize=4, capsize=2, label=engine, color=colour(engine))
        a.set(xlabel=xlabel)
        a.set_ylim(bottom=0)
        a.legend(fontsize=7)
    return figure


def depth(records):
    samples = [r for r in records if r["record"] == "sample"]
    return samples and speed_over(samples, lambda kind, s, t, d: kind == "generate",
                                  lambda kind, s, t, d: d, "Generation at depth",
                                  "tokens in the context")


def batch(records):
    samples = [r for r in records if r["record"] == "sample"]
    return samples and speed_over(samples, lambda kind, s, t, d: kind == "batch" or
                                  (kind == "generate" and d < 1024),
                                  lambda kind, s, t, d: s, "Sequences at once, total tokens/s",
                                  "sequences")


def engines(records):
    """All engines side by side, case by case."""
    samples = [r for r in records if r["record"] == "sample"]
    threads = max((r["threads"] for r in samples), default=0)
    samples = [r for r in samples if r["threads"] == threads]
    groups = group(samples, lambda r: (r["case"],))
    if not groups:
        return None
    figure, axes = panels(groups, f"Engines, {threads} threads", "tokens/s")
    for a, rs in zip(axes, groups.values()):
        names = sorted({r["engine"] for r in rs}, key=lambda e: (e != "dasan", e))
        models = list(dict.fromkeys((r["model"], r["format"]) for r in rs))
        width = 0.8 / len(names)
        for i, engine in enumerate(names):
            for j, model in enumerate(models):
                values = [r["tokens_per_second"] for r in rs
                          if r["engine"] == engine and (r["model"], r["format"]) == model]
                if values:
                    middle, below, above = median_and_spread(values)
                    a.bar(j + i * width, middle, width, color=colour(engine), yerr=[[below], [above]],
                          error_kw={"linewidth": 0.8}, label=engine if j == 0 else None)
        a.set_xticks([j + 0.4 - width / 2 for j in range(len(models))],
                     [f"{m}\n{f}" for m, f in models], fontsize=6, rotation=30)
        a.legend(fontsize=7)
    return figure


def fractions(records):
    """Every decode sample against the bandwidth measured beside it."""
    samples = [r for r in records if r["record"] == "sample" and "fraction_dram" in r and
               parts(r["case"])[0] == "generate"]
    if not samples:
        return None
    figure, axes = plt.subplots(figsize=(8.5, 4.2))
    top = max(r["limits"]["dram_read_gbs"] for r in samples) * 1.05
    for engine, own in group(samples, lambda r: r["engine"]).items():
        axes.scatter([r["limits"]["dram_read_gbs"] for r in own], [r["gbs"] for r in own], s=18,
                     label=engine, color=colour(engine))
    axes.plot([0, top], [0, top], color="#444444", linewidth=1)
    axes.plot([0, top], [0, 0.92 * top], "--", color="#444444", linewidth=1)
    axes.annotate("the limit, and 92 % of it", (top * 0.6, top * 0.62), rotation=26)
    axes.set(xlim=(0, top), ylim=(0, top), xlabel="DRAM bandwidth beside the sample, GB/s",
             ylabel="read by the sample, GB/s",
             title="Generation: each sample against its own limit")
    axes.legend(fontsize=7)
    return figure


ALL = [("engines", engines), ("roofline", roofline), ("depth", depth), ("batch", batch),
       ("bandwidth", fractions)]
