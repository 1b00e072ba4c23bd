"""Names the repository in what is released: README.md gets absolute links, and pyproject.toml the addresses.

The release runs it, which knows where the repository is: name_repository.py https://host/owner/name TAG.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def absolute(text: str, repository: str, tag: str) -> str:
    """Returns Markdown whose links to files of the repository are absolute; images are those that can be shown."""

    def link(match: re.Match[str]) -> str:
        mark, label, target = match.groups()
        if re.match(r"\w+:|#", target):
            return match[0]
        return f"{mark}[{label}]({repository}/{'raw' if mark else 'blob'}/{tag}/{target})"

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", link, text)


def addressed(project: str, repository: str, tag: str) -> str:
    """Returns pyproject.toml with the addresses of the repository."""
    urls = {
        "Repository": repository,
        "Documentation": f"{repository}/tree/{tag}/docs",
        "Changelog": f"{repository}/blob/{tag}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }
    lines = "".join(f'{name} = "{url}"\n' for name, url in urls.items())
    return project.replace("[project.urls]\n", f"[project.urls]\n{lines}", 1)


if __name__ == "__main__":
    for name, change in {"README.md": absolute, "pyproject.toml": addressed}.items():
        path = ROOT / name
        path.write_text(change(path.read_text(encoding="utf-8"), *sys.argv[1:]), encoding="utf-8")
