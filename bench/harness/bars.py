"""Result files against the bars of docs/benchmarking.md: one line of Markdown per case that has a
bar, with the measured figure, its interval, and whether it was reached.

The best peer is the fastest of the peers that were run in the same rounds and of ik_llama.cpp,
which no registry has: llama.cpp's figure times the ratio in peers/ik_llama_cpp_ratios.json.
"""
import json
import os
import statistics

from .cases import parts
from .engines import PEERS
from .results import BenchError, group, machine_name, ratio_interval, read, undisturbed


def bar_of(model, form, case, threads):
    """(over the best peer, name of the fraction, its bar), None where there is none."""
    kind, sequences, tokens, depth = parts(case)
    if kind == "prompt" and depth == 0 and tokens in (512, 2048):
        if form == "bf16":
            return (1.0, "fraction_bf16", 0.85)
        if form == "f16":
            return (1.2, None, None)
        return (1.6, "fraction_int8" if tokens == 512 else None, 0.65)
    if kind == "generate" and threads == 1:
        return (1.5, None, None)
    if kind == "generate" and depth == 0:
        return (1.0, "fraction_dram", 0.92)
    if kind == "generate" and depth >= 4096:
        return (1.5, "fraction_dram", 0.80)
    if kind == "batch" and sequences in (8, 16):
        return (4.0 if sequences == 8 else 4.5, None, None)
    return None


def ratios():
    with open(os.path.join(PEERS, "ik_llama_cpp_ratios.json")) as f:
        return json.load(f)["ratios"]


def ratio_for(table, model, form, case):
    kind, _, _, depth = parts(case)
    if kind == "generate":
        key = "generate:32@4096" if depth >= 4096 else "generate:128"
    else:
        key = case
    return table.get(f"{model} {form} {key}")


def best_peer(by_engine, ik):
    """(name, samples) of the faster: a peer that was run, or llama.cpp times ik_llama.cpp's ratio."""
    peers = {e: s for e, s in by_engine.items() if e != "dasan"}
    if not peers:
        return None, None
    name = max(peers, key=lambda e: statistics.median(peers[e]))
    if name.startswith("llama.cpp") and ik is not None and ik > 1:
        return f"ik_llama.cpp ({ik} x {name})", [ik * s for s in peers[name]]
    return name, peers[name]


def verdict(ratio, low, high, bar, samples):
    if samples < 5:
        return ("reached" if ratio >= bar else "missed") + f", {samples} samples: too few to say"
    if low >= bar:
        return "reached"
    if high < bar:
        return "missed"
    return "reached, within noise" if ratio >= bar else "missed, within noise"


def run(options):
    records = read(options.files)
    every = [r for r in records if r["record"] == "sample"]
    samples = undisturbed(every)
    if len(samples) < len(every):
        print(f"Left out: {len(every) - len(samples)} of {len(every)} samples, disturbed by other "
              "programs.\n")
    table = ratios()
    print("| model | case | threads | dasan | best peer | ratio [95 %] | bar | fraction of limit | bar |")
    print("|---|---|---|---|---|---|---|---|---|")
    lines = 0
    key = lambda r: (r["model"], r["format"], r["case"], r["threads"], r["kv"])
    for (model, form, case, threads, kv), rs in group(samples, key).items():
        bar = bar_of(model, form, case, threads)
        by_engine = {e: [r["tokens_per_second"] for r in g]
                     for e, g in group(rs, lambda r: r["engine"]).items()}
        if bar is None or "dasan" not in by_engine:
            continue
        lines += 1
        over, fraction, least = bar
        own = [r for r in rs if r["engine"] == "dasan"]
        # The bar of batches is over llama.cpp itself.
        ik = None if parts(case)[0] == "batch" else ratio_for(table, model, form, case)
        name, peer = best_peer(by_engine, ik)
        if peer is None:
            compared = "| no peer was run | | "
        else:
            ratio, low, high = ratio_interval(by_engine["dasan"], peer)
            fewest = min(len(by_engine["dasan"]), len(peer))
            compared = f"| {statistics.median(peer):.1f} {name} | {ratio:.2f} [{low:.2f}, " \
                       f"{high:.2f}] | {over} x: {verdict(ratio, low, high, over, fewest)} "
        shares = [r[fraction] for r in own if fraction in r] if fraction else []
        share = f"{statistics.median(shares):.2f} {fraction.removeprefix('fraction_')} | " \
                f"{least}: {'reached' if statistics.median(shares) >= least else 'missed'}" \
            if shares else (f"no {fraction.removeprefix('fraction_')} instructions here | " if fraction
                            else " | ")
        print(f"| {model} {form}{'' if kv == 'f16' else ' kv ' + kv} | {case} | {threads} "
              f"| {statistics.median(by_engine['dasan']):.1f} ({len(own)}) {compared}| {share} |")
    lines += sum(r["record"] in ("quality", "load") for r in records)
    long_prompts(samples)
    quality(records)
    loads(records)
    if lines == 0:
        raise BenchError("no record has a bar, or other programs disturbed every sample")
    for m in {machine_name(r["machine"]) for r in samples}:
        print(f"\nMachine: {m}. Commits: "
              f"{', '.join(sorted({r['commit'] for r in samples}))}.")


def long_prompts(samples):
    own = [r for r in samples if r["engine"] == "dasan" and r["case"] in ("prompt:512", "prompt:2048")]
    rows = []
    for (model, form, threads), rs in group(own, lambda r: (r["model"], r["format"],
                                                            r["threads"])).items():
        rates = {c: [r["tokens_per_second"] for r in g]
                 for c, g in group(rs, lambda r: r["case"]).items()}
        if len(rates) == 2:
            ratio, low, high = ratio_interval(rates["prompt:2048"], rates["prompt:512"])
            rows.append(f"| {model} {form} | {threads} | {ratio:.2f} [{low:.2f}, {high:.2f}] "
                        f"| 0.85: {verdict(ratio, low, high, 0.85, min(map(len, rates.values())))} |")
    if rows:
        print("\n| model | threads | prompt:2048 over prompt:512 [95 %] | bar |\n|---|---|---|---|")
        print("\n".join(rows))


def quality(records):
    found = group([r for r in records if r["record"] == "quality"],
                  lambda r: (r["model"], r["format"]))
    if not found:
        return
    print("\n| model | dasan KL | llama.cpp KL | no larger |\n|---|---|---|---|")
    for (model, form), rs in found.items():
        kl = {r["engine"]: r["kl_mean"] for r in rs}
        own, peer = kl.get("dasan"), kl.get("llama.cpp")
        both = own is not None and peer is not None
        show = lambda x: "" if x is None else f"{x:.2e}"
        print(f"| {model} {form} | {show(own)} | {show(peer)} "
              f"| {('yes' if own <= peer else 'no') if both else 'not compared'} |")


def loads(records):
    found = group([r for r in records if r["record"] == "load"],
                  lambda r: (r["model"], r["format"], r["engine"]))
    if not found:
        return
    print("\n| model | engine | first token s | peak RSS over file + KV |\n|---|---|---|---|")
    for (model, form, engine), rs in found.items():
        seconds = statistics.median(r["seconds"] for r in rs)
        over = ""
        if rs[0]["kv_bytes"]:
            over = statistics.median(r["peak_rss_bytes"] / (r["file_bytes"] + r["kv_bytes"])
                                     for r in rs)
            over = f"{over:.2f}"
        print(f"| {model} {form} | {engine} | {seconds:.3f} | {over} |")
