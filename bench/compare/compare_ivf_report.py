# SPDX-License-Identifier: Apache-2.0
"""Tables and the figure of what compare_ivf.py measured. A ratio is the median of the rounds' own ratios, where both sides
were measured in the same rounds."""
import re
import statistics

from compare_ivf import RECALLS, front
from compare_report import at_recall, machine_line, markdown, number

# What is held against what: title, kith's specs, the peer, the least ratio of batch rates at each recall.
COMPRESSED = r"kith=IVF[^,]*,(PQ\S*x4fs|Line\d*|RaBitQ\d*|SQ4),R"
PAIRS = [
    ("IVF-Flat by faiss IVF,Flat", r"kith=IVF[^,]*,Flat$", "faiss-ivf", (2.5, 2.5, 2.5)),
    ("IVF-SQ8 by faiss IVF,SQ8", r"kith=IVF[^,]*,SQ8$", "faiss-ivfsq8", (2, 2, 2)),
    ("IVF-PQ by faiss IVF,PQ", r"kith=IVF[^,]*,PQ(\d+|\{pq\})$", "faiss-ivfpq", (1.3, 1.3, 1.3)),
    ("best compressed + refine by faiss IVF,PQx4fs,RFlat", COMPRESSED, "faiss-ivfpqfs", (1.5, 1.5, 1.5)),
    ("best compressed + refine by ScaNN", COMPRESSED, "scann", (2, 2, 1.5)),
    ("RaBitQ by rabitqlib's IVF", r"kith=.*RaBitQ", "rabitq-ivf", (1.3, 1.3, 1.3)),
    ("RaBitQ by faiss IVF,RaBitQfs,RFlat", r"kith=.*RaBitQ", "faiss-ivfrabitq1", (2, 2, 2)),
    ("RaBitQ by faiss IVF,RaBitQfs4,RFlat", r"kith=.*RaBitQ", "faiss-ivfrabitq", (None, None, None)),
]
# Build time: kith's specs, the peer, the least ratio.
BUILDS = [
    (r"kith=IVF[^,]*,Flat$", "faiss-ivf", 3), (r"kith=IVF[^,]*,PQ(\d+|\{pq\})$", "faiss-ivfpq", 3),
    (r"kith=IVF[^,]*,PQ\S*x4fs", "faiss-ivfpqfs", 3), (COMPRESSED, "scann", 1),
]


def turns_of(record):
    return sorted({one["round"] for point in record["points"] for one in point["rounds"]})


def rate(record, threads, turn, wanted):
    """QPS at a recall in one round; None where it is not reached or not measured."""
    pairs = [(point["recall"], one[str(threads)]) for point in record["points"] for one in point["rounds"] if one["round"] == turn]
    return at_recall(pairs, wanted)


def rate_median(record, threads, wanted):
    rates = [rate(record, threads, turn, wanted) for turn in turns_of(record)]
    rates = [one for one in rates if one]
    return statistics.median(rates) if rates else None


def single(record, wanted, which):
    """Median over the rounds of the p50 or p99 at the setting that just reaches a recall, in microseconds."""
    for point in record["points"]:
        if wanted in point.get("single_of", []):
            times = [one[which] for one in point["rounds"] if which in one]
            return 1e6 * statistics.median(times) if times else None
    return None


def ratio(own, peer, threads, wanted):
    """Of the rounds' own ratios, kith's best spec each: least, median, most; None where one side has none."""
    ratios = []
    for turn in turns_of(peer):
        mine = [found for found in (rate(record, threads, turn, wanted) for record in own) if found]
        theirs = rate(peer, threads, turn, wanted)
        if mine and theirs:
            ratios.append(max(mine) / theirs)
    return (min(ratios), statistics.median(ratios), max(ratios)) if ratios else None


def ratio_text(found, least):
    if found is None:
        return "-"
    text = f"{found[1]:.2f} ({found[0]:.2f}..{found[2]:.2f})"
    return text if least is None else f"{text}, goal {least:g}" + ("" if found[1] >= least else " **not reached**")


def matching(results, pattern):
    return [record for name, record in results["engines"].items() if re.match(pattern, name) and record["points"]]


def table_engines(results):
    rows = []
    order = sorted(results["engines"].items(), key=lambda item: -(rate_median(item[1], results["threads"][0], 0.95) or 0))
    for name, record in order:
        if not record["points"]:
            continue
        about = record["about"]
        build = f"{about['build_seconds']:.1f}"
        if "train_seconds" in about:
            build += f" ({about['train_seconds']:.1f} + {about['add_seconds']:.1f})"
        cells = [label(name, record), build, f"{about['memory_bytes'] / about['rows']:.0f}"]
        for threads in results["threads"]:
            cells += [number(rate_median(record, threads, wanted) or float("nan"), 0) for wanted in RECALLS]
        cells += [" / ".join(number(single(record, wanted, "p50"), 0) for wanted in RECALLS), number(single(record, 0.95, "p99"), 0)]
        rows.append(cells + [f"{max(point['recall'] for point in record['points']):.4f}"])
    head = ["engine", "build s (train + add)", "bytes a vector"]
    for threads in results["threads"]:
        head += [f"QPS at {wanted:.2f}, {threads} thr" for wanted in RECALLS]
    return markdown(head + ["one query, p50 us at .90 / .95 / .99", "p99 us at .95", "most recall"], rows)


def table_ratios(results):
    rows = []
    for title, pattern, peer_name, least in PAIRS:
        own, peer = matching(results, pattern), results["engines"].get(peer_name)
        if not own or not peer or not peer["points"]:
            continue
        for threads in results["threads"]:
            rows.append([title, f"{threads} thr"] + [ratio_text(ratio(own, peer, threads, wanted), bound) for wanted, bound in zip(RECALLS, least)])
        singles = []
        for wanted in RECALLS:
            mine = [found for found in (single(record, wanted, "p50") for record in own) if found]
            theirs = single(peer, wanted, "p50")
            bound = 1.3 if peer_name == "faiss-ivf" else None
            singles.append(ratio_text(3 * (theirs / min(mine),) if mine and theirs else None, bound))
        rows.append([title, "one query, p50"] + singles)
    return markdown(["kith's rate by the peer's, median of the rounds (least..most)", ""] + [f"at {wanted:.2f}" for wanted in RECALLS], rows)


def table_builds(results):
    rows = []
    for pattern, peer_name, least in BUILDS:
        own, peer = matching(results, pattern), results["engines"].get(peer_name)
        if not own or not peer:
            continue
        for record in own:
            found = peer["about"]["build_seconds"] / record["about"]["build_seconds"]
            rows.append([record["about"]["version"], peer_name, number(record["about"]["build_seconds"]), number(peer["about"]["build_seconds"]),
                         f"{found:.2f}, goal {least:g}" + ("" if found >= least else " **not reached**")])
    return markdown(["kith", "peer", "kith builds in s", "the peer in s", "the peer's by kith's"], rows)


def table(content):
    parts = []
    for results in content["sets"]:
        first = next(iter(results["engines"].values()), None)
        if first is None:
            continue
        turns = max(record["rounds"] for record in results["engines"].values())
        parts.append(f"**{results['data']}**, {first['about']['rows']} x {first['about']['dim']}, {results['metric']}, {results['queries']} queries, "
                     f"k = {results['k']}; {machine_line(content['machine'])}; {turns} rounds")
        parts += [part for part in (table_engines(results), table_ratios(results), table_builds(results)) if part.count("\n") > 1]
    return "\n\n".join(parts)


def label(name, record):
    return "kith " + record["about"].get("spec", name[5:]) if name.startswith("kith=") else name


# ---- The figure ------------------------------------------------------------------------------------------------------


def curve(record):
    return [(point["recall"], point["scan_qps"]) for point in front(record["points"])]


def plot(plt, contents):
    """A panel a data set: the fronts of the scan on the first thread count; kith's lines are the thick ones."""
    panels = [(content, results) for content in contents for results in content["sets"]]
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(1 + 5.2 * columns, 4.2 * lines), squeeze=False)
    names = list(dict.fromkeys(name for _, results in panels for name in results["engines"]))
    colors = {name: plt.get_cmap("tab20")(at % 20) for at, name in enumerate(names)}
    for axis, (_, results) in zip(axes.flat, panels):
        for name, record in results["engines"].items():
            pairs = [pair for pair in curve(record) if pair[0] >= 0.8] if record["points"] else []
            if pairs:
                own = name.startswith("kith=")
                axis.plot(*zip(*pairs), color=colors[name], marker="o" if own else ".", markersize=4, linewidth=2.2 if own else 1,
                          linestyle="-" if own else "--", label=label(name, record))
        axis.set_yscale("log")
        axis.set_xlim(0.8, 1.0)
        axis.set_xlabel(f"recall@{results['k']} (intersection)")
        axis.set_ylabel("queries a second")
        axis.set_title(f"{results['data']}, {results['threads'][0]} thread", fontsize=9)
        axis.grid(True, which="both", alpha=0.2)
        axis.legend(fontsize=6, loc="lower left")
    for axis in list(axes.flat)[len(panels):]:
        axis.set_visible(False)
    return figure
