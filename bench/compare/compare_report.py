# SPDX-License-Identifier: Apache-2.0
"""Tables and figures from what compare.py measured. Ratios are medians of the rounds' own ratios."""
import math
import statistics

RECALLS = (0.90, 0.95, 0.99)


def machine_line(machine, isa=""):
    parts = [machine["cpu"], f"{machine['processors']} processors", f"kith {isa}" if isa else ""]
    parts += [f"{name}={machine[name]}" for name in ("KITH_ISA", "FAISS_SIMD_LEVEL", "OPENBLAS_CORETYPE") if machine.get(name)]
    return ", ".join(part for part in parts + [machine["date"]] if part)


def markdown(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def number(value, digits=1):
    return "-" if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def table(content):
    import compare_builds
    import compare_filtered
    import compare_study_report

    return {"exact": table_exact, "kmeans": table_kmeans, "run": table_run, "builds": compare_builds.table, "ivf": compare_study_report.table,
            "graph": compare_study_report.table, "filtered": compare_filtered.table}[content["kind"]](content)


# ---- Exact search ----------------------------------------------------------------------------------------------------


def median_of(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else math.nan


def exact_rows(content):
    """One dictionary for each data set, type and thread count."""
    rows = []
    for result in content["results"]:
        rounds = result["rounds"]
        for number_of, first in enumerate(rounds[0]["kith"]):
            kith = [one["kith"][number_of] for one in rounds]
            faiss = [next((peer for peer in one["faiss"] if peer["threads"] == first["threads"]), None) for one in rounds]
            batch, sgemm = [one["batch_gflops"][0] for one in kith], [one["sgemm_gflops"][0] for one in kith]
            single, stream = [one["single_gbs"][0] for one in kith], [one["stream_gbs"][0] for one in kith]
            peers = [peer["batch_gflops"] if peer else None for peer in faiss]
            rows.append({
                "data": result["data"], "shape": f"{first['rows']} x {first['dim']}", "type": first["type"], "threads": first["threads"],
                "queries": first["queries"], "batch": median_of(batch), "sgemm": median_of(sgemm), "faiss": median_of(peers),
                "batch_by_sgemm": median_of([a / b if b else None for a, b in zip(batch, sgemm)]),
                "batch_by_faiss": median_of([a / b if b else None for a, b in zip(batch, peers)]),
                "spread": (max(batch) - min(batch)) / median_of(batch),
                "single": median_of(single), "stream": median_of(stream),
                "single_by_stream": median_of([a / b for a, b in zip(single, stream)]),
            })
    return rows


def table_exact(content):
    rows = []
    for row in exact_rows(content):
        rows.append([row["data"], row["shape"], row["type"], str(row["threads"]), number(row["batch"]), number(100 * row["spread"], 0) + "%",
                     number(row["sgemm"]), number(row["batch_by_sgemm"], 2), number(row["faiss"]), number(row["batch_by_faiss"], 2),
                     number(row["single"]), number(row["stream"]), number(row["single_by_stream"], 2)])
    head = ["data", "rows x dim", "type", "threads", "kith GFLOP/s", "spread", "sgemm", "kith / sgemm", "faiss Flat", "kith / faiss",
            "one query GB/s", "stream GB/s", "query / stream"]
    first = content["results"][0]
    about = f"{machine_line(content['machine'], first['rounds'][0]['isa'])}; {first['faiss']}; OpenBLAS kernels: {first['rounds'][0]['openblas']}; k = {first['k']}, medians of {len(first['rounds'])} rounds"
    return about + "\n\n" + markdown(head, rows)


# ---- k-means ---------------------------------------------------------------------------------------------------------


def table_kmeans(content):
    rows = []
    for result in content["results"]:
        kith, faiss = ([one[name] for one in result["rounds"]] for name in ("kith", "faiss"))
        ratios = [b["seconds"] / a["seconds"] for a, b in zip(kith, faiss)]
        rows.append([result["data"], f"{kith[0]['rows']} x {kith[0]['dim']}", str(result["k"]), str(result["threads"]),
                     number(median_of(one["seconds"] for one in kith), 2), number(median_of(one["seconds"] for one in faiss), 2),
                     number(statistics.median(ratios), 2), f"{min(ratios):.2f}..{max(ratios):.2f}",
                     f"{100 * (kith[0]['objective'] / faiss[0]['objective'] - 1):+.3f}%"])
    head = ["data", "rows x dim", "k", "threads", "kith s", "faiss s", "faiss / kith", "of the rounds", "objective, kith by faiss"]
    first = content["results"][0]
    about = f"{machine_line(content['machine'])}; faiss {first['rounds'][0]['faiss']['version']}; {first['iterations']} iterations, medians of {len(first['rounds'])} rounds"
    return about + "\n\n" + markdown(head, rows)


# ---- Operating points ------------------------------------------------------------------------------------------------


def at_recall(points, wanted):
    """QPS at a recall: on the best points, log-linear between neighbours; None where it is not reached."""
    front, best = [], 0.0
    for recall, qps in sorted(points, reverse=True):
        if qps > best:
            front.append((recall, qps))
            best = qps
    front.reverse()
    if not front or front[-1][0] < wanted:
        return None
    if front[0][0] >= wanted:
        return front[0][1]
    for (low, low_qps), (high, high_qps) in zip(front, front[1:]):
        if low <= wanted <= high:
            share = (wanted - low) / (high - low)
            return math.exp(math.log(low_qps) * (1 - share) + math.log(high_qps) * share)
    return None


def rate_in_round(points, threads, turn, wanted):
    """QPS at a recall in one round, of the best of these points."""
    return at_recall([(point["recall"], point["qps"][str(threads)][turn]) for point in points], wanted)


def table_run(content):
    rows, rounds = [], len(content["points"][0]["qps"][str(content["threads"][0])])
    own = [point for point in content["points"] if point["engine"].startswith("kith")]
    for threads in content["threads"]:
        for engine in dict.fromkeys(point["engine"] for point in content["points"]):
            points = [point for point in content["points"] if point["engine"] == engine]
            pairs = [(point["recall"], point["qps_median"][str(threads)]) for point in points]
            spread = max((max(rates) - min(rates)) / statistics.median(rates) for rates in (point["qps"][str(threads)] for point in points))
            pairs_of_rounds = [(rate_in_round(own, threads, turn, 0.95), rate_in_round(points, threads, turn, 0.95)) for turn in range(rounds)]
            ratio = median_of([mine / theirs for mine, theirs in pairs_of_rounds if mine and theirs])
            rows.append([engine, points[0]["version"], str(threads)] + [number(at_recall(pairs, wanted), 0) for wanted in RECALLS] +
                        [number(ratio, 2), f"{max(recall for recall, _ in pairs):.4f}", number(100 * spread, 0) + "%",
                         number(points[0]["build_seconds"]), number(points[0]["memory_bytes"] / 2**20, 0)])
    head = ["engine", "version", "threads"] + [f"QPS at {wanted}" for wanted in RECALLS] + ["best kith / this, at 0.95", "most recall", "spread", "build s", "MiB"]
    first = content["points"][0]
    about = f"{content['data']}, {first['rows']} x {first['dim']}, {content['metric']}, recall@{content['k']}; {machine_line(content['machine'])}"
    return about + "\n\n" + markdown(head, rows)


# ---- Figures ---------------------------------------------------------------------------------------------------------


def plot(contents, path):
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "kith"  # the same bytes from the same figures
    import matplotlib.pyplot as plt

    if all(content["kind"] == "exact" for content in contents):
        figure = plot_exact(plt, contents)
    elif all(content["kind"] in ("ivf", "graph") for content in contents):
        import compare_study_report

        figure = compare_study_report.plot(plt, contents)
    else:
        figure = plot_run(plt, [content for content in contents if content["kind"] == "run"])
    figure.tight_layout()
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.endswith(".svg") else None)


def plot_exact(plt, contents):
    """Batch rates by stored type, with FAISS and sgemm beside them; one panel a data set."""
    panels = [(content, result) for content in contents for result in content["results"]]
    figure, axes = plt.subplots(1, len(panels), figsize=(1.5 + 3.2 * len(panels), 3.6), squeeze=False)
    for axis, (content, result) in zip(axes[0], panels):
        rows = [row for row in exact_rows(content) if row["data"] == result["data"]]
        threads = sorted({row["threads"] for row in rows})
        types = list(dict.fromkeys(row["type"] for row in rows))
        bars = [("faiss", "#9aa0a6"), ("sgemm", "#c7b299")] + [(kind, color) for kind, color in zip(types, ("#1a73e8", "#12b5cb", "#e8710a", "#9334e6", "#188038"))]
        width = 0.8 / len(bars)
        for place, (name, color) in enumerate(bars):
            heights = []
            for count in threads:
                own = [row for row in rows if row["threads"] == count and (name in ("faiss", "sgemm") or row["type"] == name)]
                heights.append(own[0][name if name in ("faiss", "sgemm") else "batch"])
            label = {"faiss": "faiss IndexFlat", "sgemm": "OpenBLAS sgemm"}.get(name, f"kith {name}")
            drawn = axis.bar([at + place * width for at in range(len(threads))], heights, width, color=color, label=label)
            axis.bar_label(drawn, fmt="%.0f", fontsize=6)
        axis.set_xticks([at + 0.4 - width / 2 for at in range(len(threads))], [f"{count} thread{'s' if count > 1 else ''}" for count in threads])
        axis.set_title(f"{result['data']} ({rows[0]['shape']})", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("exact search of a batch, GFLOP/s")
    axes[0][0].legend(fontsize=7, frameon=False)
    return figure


def plot_run(plt, contents):
    """Recall and QPS, a line per engine; one panel a data set, at the first thread count."""
    figure, axes = plt.subplots(1, len(contents), figsize=(1.5 + 4.5 * len(contents), 4), squeeze=False)
    for axis, content in zip(axes[0], contents):
        threads = str(content["threads"][0])
        for engine in dict.fromkeys(point["engine"] for point in content["points"]):
            pairs = sorted((point["recall"], point["qps_median"][threads]) for point in content["points"] if point["engine"] == engine)
            own = engine.startswith("kith")
            axis.plot(*zip(*pairs), marker="o", markersize=4, linewidth=2 if own else 1, label=engine)
        axis.set_yscale("log")
        axis.set_xlabel(f"recall@{content['k']}")
        axis.set_title(f"{content['data']}, {threads} thread{'s' if threads != '1' else ''}", fontsize=9)
        axis.grid(True, which="both", alpha=0.2)
    axes[0][0].set_ylabel("queries a second")
    axes[0][0].legend(fontsize=7)
    return figure
