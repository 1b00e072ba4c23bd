import re
import tomllib
from pathlib import Path

from name_repository import absolute, addressed

ROOT = Path(__file__).parents[2]
WHERE = ("https://example.org/owner/name", "v1.2.3")


def test_links_of_the_readme_become_absolute() -> None:
    text = absolute((ROOT / "README.md").read_text(encoding="utf-8"), *WHERE)
    assert "](https://example.org/owner/name/blob/v1.2.3/docs/models.md)" in text
    assert "](https://arxiv.org/abs/2508.14556)" in text
    assert all(re.match(r"https?:|#", target) for target in re.findall(r"\]\(([^)\s]+)\)", text))


def test_images_become_files_that_can_be_shown() -> None:
    assert absolute("![a](docs/a.png)", *WHERE) == "![a](https://example.org/owner/name/raw/v1.2.3/docs/a.png)"
    assert absolute("[a](#b) [c](docs/c.md#d)", *WHERE).endswith("/name/blob/v1.2.3/docs/c.md#d)")
    assert absolute("[a](#b)", *WHERE) == "[a](#b)"


def test_the_addresses_are_added_to_the_project() -> None:
    project = addressed((ROOT / "pyproject.toml").read_text(encoding="utf-8"), *WHERE)
    urls = tomllib.loads(project)["project"]["urls"]
    assert urls["Repository"] == "https://example.org/owner/name"
    assert {"Changelog", "Documentation", "Issues", "Paper"} <= set(urls)
