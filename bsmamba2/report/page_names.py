"""What a page may be called; apart from the page, so that a name is checked without what draws."""

from pathlib import Path

from bsmamba2.errors import UsageError


def check_page_name(output: Path) -> None:
    """Checks the name of a page.

    Raises:
        UsageError: It does not end in .html.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"the report cannot be written to {output}; give a name that ends in .html")
