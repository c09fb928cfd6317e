"""Evaluations as tables that a person can read."""

from typing import Any


def title(metric: str, features: str) -> str:
    """The heading of a value: FID for inception-v3 features (with clean-fid's resize), FD for all others."""
    if metric.split()[0].split("-")[0] != "frechet":  # as in "frechet-infinity" or "frechet within classes"
        return metric
    rest = metric.removeprefix("frechet").replace("-infinity", " at infinity")
    return f"FID{rest}" if features == "inception-v3" else f"FD{rest} ({features})"


def cells(report: dict[str, Any]) -> list[list[str]]:
    """Header and rows of a table: value and standard error, numbers of images, baseline, p-value.

    The baseline has three columns: the number of images of each set ("at n"), the mean value of generated beside real
    images at that number ("fake-real"), and that of real beside other real images ("real-real").
    """
    metrics = report["metrics"]
    with_p = any("p_value" in entry for entry in metrics.values())
    header = ["metric", "value", "n fake", "n real", "at n", "fake-real", "real-real"] + ["p"] * with_p
    rows = []
    for name, entry in metrics.items():
        baseline, error = entry["real_vs_real"], entry["standard_error"]
        value = f"{entry['value']:.4g}" + ("" if error is None else f" +- {error:.2g}")
        row = [title(name, report["protocol"]["features"]), value]
        row += ["?" if entry[key] is None else str(entry[key]) for key in ("n_fake", "n_real")]
        row += ["-"] * 3 if baseline is None else [
            str(baseline["n"]), f"{baseline['fake_value_at_n']:.4g}", f"{baseline['value']:.4g}",
        ]  # fmt: skip
        if with_p:
            row.append(f"{entry['p_value']['value']:.3g}" if "p_value" in entry else "-")
        rows.append(row)
    return [header, *rows]


def text_table(report: dict[str, Any]) -> str:
    """An evaluation as lines for a terminal."""
    protocol = report["protocol"]
    weights = protocol["features_protocol"].get("weights_sha256")
    lines = [
        f"fake: {protocol['fake']}   real: {protocol['real']}",
        f"features: {protocol['features']}, {protocol['features_dim']} dimensions, "
        f"resize {protocol['features_protocol'].get('resize', 'unknown')}"
        + (f", weights {weights[:12]}" if weights else ""),
    ]
    table = cells(report)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        columns = enumerate(zip(row, widths, strict=True))
        lines.append("  ".join(text.rjust(width) if column else text.ljust(width) for column, (text, width) in columns))
    return "\n".join([*lines, *(f"warning: {warning}" for warning in protocol["warnings"])])
