"""Colours and fonts of pages, light and dark."""

from collections.abc import Mapping

Palette = Mapping[str, str]

LIGHT: Palette = {
    "page": "#ffffff",
    "surface": "#f5f7f9",
    "ink": "#1a2027",
    "muted": "#57626d",
    "grid": "#d5dbe1",
    "accent": "#0a5ea8",
    "bad": "#b3261e",
    "warn": "#fdf3d8",
    "warn-edge": "#b98900",
    "shade": "#1a202738",
    "series-0": "#0a5ea8",
    "series-1": "#c2440c",
    "series-2": "#00786a",
    "series-3": "#8e3a9d",
    "series-4": "#7d6200",
    "series-5": "#51606f",
}
DARK: Palette = {
    "page": "#13171b",
    "surface": "#1c2126",
    "ink": "#e7ebef",
    "muted": "#9fabb6",
    "grid": "#353e47",
    "accent": "#78b9f7",
    "bad": "#ff8f86",
    "warn": "#352b10",
    "warn-edge": "#d9ab34",
    "shade": "#00000080",
    "series-0": "#6db3f5",
    "series-1": "#ff9c66",
    "series-2": "#45cdb3",
    "series-3": "#d99be6",
    "series-4": "#e2c04d",
    "series-5": "#aab6c2",
}
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Liberation Sans', sans-serif"


def scheme_css() -> str:
    """Returns the rules of CSS that make both palettes and the fonts variables of a page."""
    light, dark = _css_variables(LIGHT), _css_variables(DARK)
    return (
        f":root {{ color-scheme: light dark; --fonts: {FONTS}; {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    )


def _css_variables(palette: Palette) -> str:
    """Returns the declarations of a palette as variables of CSS: `--ink: #1a2027; …`."""
    return " ".join(f"--{name}: {colour};" for name, colour in palette.items())
