"""Curves as an SVG, for records and model cards: no library, readable on light and dark pages."""

from html import escape

COLOURS = ["#3366cc", "#cc3333", "#2e8b57", "#b8860b", "#8a2be2", "#708090", "#008b8b", "#e07b00"]


def thinned(points, most=400):
    """At most so many points, each the mean of its neighbours."""
    size = -(-len(points) // most) if points else 1
    parts = [points[at:at + size] for at in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def svg(title, across, up, curves, width=760, height=380):
    """`curves` are (name, points, dashed)."""
    left, right, top, below = 56, 12, 52, 42
    points = [point for _, curve, _ in curves for point in curve]
    x0, x1 = min(x for x, _ in points), max(x for x, _ in points)
    y0, y1 = min(y for _, y in points), max(y for _, y in points)
    x1, y1 = (x1 if x1 > x0 else x0 + 1), (y1 if y1 > y0 else y0 + 1)
    at_x = lambda x: left + (x - x0) / (x1 - x0) * (width - left - right)
    at_y = lambda y: top + (y1 - y) / (y1 - y0) * (height - top - below)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" font-family="sans-serif" font-size="12">',
           f"<title>{escape(title)}</title>",
           "<style>text { fill: #333 } .grid { stroke: #ccc } @media (prefers-color-scheme: dark) "
           "{ text { fill: #ddd } .grid { stroke: #444 } }</style>",
           f'<text x="{left}" y="16" font-size="14">{escape(title)}</text>']
    for nth in range(5):
        y, x = y0 + (y1 - y0) * nth / 4, x0 + (x1 - x0) * nth / 4
        out.append(f'<path class="grid" d="M{left} {at_y(y):.1f}H{width - right}"/>')
        out.append(f'<text x="{left - 6}" y="{at_y(y) + 4:.1f}" text-anchor="end">{y:.2f}</text>')
        out.append(f'<text x="{at_x(x):.1f}" y="{height - below + 18}" text-anchor="middle">{x:.3g}</text>')
    out.append(f'<text x="{(left + width) / 2:.0f}" y="{height - 6}" text-anchor="middle">{escape(across)}</text>')
    out.append(f'<text x="14" y="{height / 2:.0f}" text-anchor="middle" transform="rotate(-90 14 {height / 2:.0f})">{escape(up)}</text>')
    name_at = left
    for nth, (name, curve, dashed) in enumerate(curves):
        colour, dash = COLOURS[nth % len(COLOURS)], ' stroke-dasharray="6 4"' if dashed else ""
        path = "L".join(f"{at_x(x):.1f} {at_y(y):.1f}" for x, y in curve)
        out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.7"{dash}/>')
        out.append(f'<path d="M{name_at} 34h18" stroke="{colour}" stroke-width="2"{dash}/>')
        out.append(f'<text x="{name_at + 23}" y="38">{escape(name)}</text>')
        name_at += 34 + 7 * len(name)
    return "\n".join(out + ["</svg>", ""])
