"""Two result files into ratios: after / before, case by case, with bootstrap intervals."""
import statistics

from .results import BenchError, group, ratio_interval, read, undisturbed


def key(record):
    if record["record"] == "kernel":
        return (record["op"], record["shape"], record["format"], record["isa"],
                f"{record['threads']} threads")
    return (record["engine"], record["model"], record["format"], record["case"],
            f"{record['threads']} threads", record["kv"])


def speeds(records):
    """Larger is better: tokens or calls per second, sample by sample."""
    out = []
    for r in records:
        out += [r["tokens_per_second"]] if r["record"] == "sample" else \
            [1 / s for s in r.get("samples", [r["seconds"]])]
    return out


def load(path):
    every = [r for r in read([path]) if r["record"] in ("sample", "kernel")]
    records = undisturbed(every)
    if not records:
        raise BenchError(f"{path}: holds no samples that other programs left undisturbed")
    if len(records) < len(every):
        print(f"{path}: left out {len(every) - len(records)} of {len(every)} samples, disturbed by "
              "other programs")
    return group(records, key)


def machines(groups):
    return {str(r["machine"]) for rs in groups.values() for r in rs}


def compare_files(options):
    before, after = load(options.before), load(options.after)
    common = [k for k in before if k in after]
    if not common:
        raise BenchError(f"{options.before} and {options.after} have no case in common")
    if machines(before) != machines(after):
        print("NOTE: the files come from different machines; the ratios compare machines too.\n")
    print(f"{'case':<72} {'before':>10} {'after':>10} {'ratio':>7}  95 % interval     verdict")
    for k in common:
        a, b = speeds(after[k]), speeds(before[k])
        ratio, low, high = ratio_interval(a, b)
        verdict = "faster" if low > 1 else "slower" if high < 1 else "no difference shown"
        if min(len(a), len(b)) < 5:
            verdict += f" ({min(len(a), len(b))} samples: too few for an interval)"
        print(f"{' '.join(k):<72} {statistics.median(b):>10.2f} {statistics.median(a):>10.2f} "
              f"{ratio:>7.3f}  [{low:.3f}, {high:.3f}]  {verdict}")
    for name, only in ((options.before, [k for k in before if k not in after]),
                       (options.after, [k for k in after if k not in before])):
        if only:
            print(f"only in {name}: {len(only)} cases")
