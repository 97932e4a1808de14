"""Result files as plots (PNG) and one HTML page that needs no other file."""
import base64
import contextlib
import html
import io
import os
import statistics

from . import bars
from .results import BenchError, group, machine_name, read

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1080px; margin: 2em auto;
       padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin-top: 2em; }
table { border-collapse: collapse; font-size: 13px; }
th, td { border-bottom: 1px solid #ddd; padding: 3px 10px; text-align: left; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; } .wide { overflow-x: auto; }
"""


def table(head, rows):
    cells = lambda row: "".join(
        f'<td class="n">{html.escape(c)}</td>' if c[:1].isdigit() else f"<td>{html.escape(c)}</td>"
        for c in row)
    return '<div class="wide"><table><tr>' + "".join(f"<th>{html.escape(h)}</th>" for h in head) + \
        "</tr>" + "".join(f"<tr>{cells(r)}</tr>" for r in rows) + "</table></div>"


def markdown_tables(text):
    """The tables that bars prints."""
    out, lines = "", []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            lines.append([c.strip() for c in line.strip("|").split("|")])
        elif lines:
            out += table(lines[0], lines[2:])
            lines = []
        if line and not line.startswith("|"):
            out += f"<p>{html.escape(line)}</p>"
    return out


def all_samples(records):
    rows = []
    key = lambda r: (r["model"], r["format"], r["case"], r["threads"], r["kv"], r["engine"])
    for k, rs in group([r for r in records if r["record"] == "sample"], key).items():
        rates = [r["tokens_per_second"] for r in rs]
        fraction = [r.get("fraction_dram", r.get("fraction_int8", r.get("fraction_fma"))) for r in rs]
        of = "dram" if "fraction_dram" in rs[0] else "int8" if "fraction_int8" in rs[0] else "fma"
        rows.append([k[0], k[1], k[2], str(k[3]), k[4], k[5], f"{statistics.median(rates):.2f}",
                     f"{min(rates):.2f}", f"{max(rates):.2f}", str(len(rates)),
                     f"{statistics.median(fraction):.2f} {of}",
                     f"{statistics.median(r['limits']['dram_read_gbs'] for r in rs):.1f}",
                     f"{max(r['other_cores'] for r in rs):.2f}"])
    return table(["model", "format", "case", "threads", "KV", "engine", "median t/s", "least", "most",
                  "samples", "of limit", "DRAM GB/s", "others' cores"], rows)


def kernel_rows(records):
    rows = [[r["op"], r["shape"], r["format"], r["kernel"], str(r["threads"]),
             f"{r['seconds'] * 1e6:.1f}", f"{r['gbs']:.2f}", f"{r['gops']:.1f}",
             f"{r['fraction']:.3f} {r['limit']}"] for r in records if r["record"] == "kernel"]
    return table(["operation", "shape", "format", "kernel", "threads", "median us", "GB/s", "Gop/s",
                  "of limit"], rows)


def run(options):
    try:
        from . import plots
    except ModuleNotFoundError as error:
        raise BenchError(f"{error.name} is not installed (./dev bench report makes an environment "
                         "that has it)") from None
    records = read(options.files)
    measured = [r for r in records if r["record"] in ("sample", "kernel")]
    if not measured:
        raise BenchError("no record of these files can be plotted")
    os.makedirs(options.out, exist_ok=True)
    body = ["<h1>dasan benchmarks</h1>"]
    machines = sorted({machine_name(r["machine"]) for r in measured})
    commits = sorted({r["commit"] for r in measured})
    body.append(f"<p>Machine: {html.escape('; '.join(machines))}. "
                f"Commit: {html.escape(', '.join(commits))}.</p>")
    limits = {r["threads"]: r["limits"] for r in measured}
    names = ["dram_read_gbs", "int8_gops", "int8_short_gops", "bf16_gflops", "fma_gflops", "clock_ghz",
             "core_to_core_ns"]
    body.append("<h2>Limits of the machine</h2>" +
                table(["threads", *names, "int8 instructions"],
                      [[str(t), *(f"{x[n]:.1f}" for n in names), x["int8_instructions"]]
                       for t, x in sorted(limits.items())]))
    for name, draw in plots.ALL:
        figure = draw(records)
        if not figure:
            continue
        path = os.path.join(options.out, name + ".png")
        figure.savefig(path, dpi=130)
        with open(path, "rb") as f:
            data = base64.b64encode(f.read()).decode()
        body.append(f'<h2>{name.capitalize()}</h2><img alt="{name}" src="data:image/png;base64,{data}">')
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(BenchError):
        bars.run(options)
    if "|" in printed.getvalue():
        body.append("<h2>Bars</h2>" + markdown_tables(printed.getvalue()))
    if any(r["record"] == "sample" for r in records):
        body.append("<h2>Models</h2>" + all_samples(records))
    if any(r["record"] == "kernel" for r in records):
        body.append("<h2>Kernels</h2>" + kernel_rows(records))
    absent = {(r["engine"], r["reason"]) for r in records if r["record"] == "absent"}
    if absent:
        body.append("<h2>Absent</h2>" + table(["engine", "reason"], sorted(absent)))
    page = os.path.join(options.out, "index.html")
    with open(page, "w") as f:
        f.write("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>dasan benchmarks</title>"
                f"<meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style>"
                + "\n".join(body) + "</html>\n")
    print(page)
