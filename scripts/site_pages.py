"""Pages of the site that are no files in docs/, and their links: a hook of mkdocs.yml."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
# Documents elsewhere in the repository, by the name of their page.
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
    "small-vocals.md": "bsmamba2/weights/small-vocals.md",
}
# What is described from its docstrings, by heading.
REFERENCE = {
    "Separating": (
        "bsmamba2.separation.separator.Separator",
        "bsmamba2.separation.separated_song.SeparatedSong",
        "bsmamba2.separation.settings.SeparationSettings",
        "bsmamba2.separation.ensemble.Ensemble",
    ),
    "Networks and weights": (
        "bsmamba2.model.network.BSMamba2",
        "bsmamba2.model.primeknet.PrimeKnet",
        "bsmamba2.model.config.ModelConfig",
        "bsmamba2.weights.checkpoint.load_model",
        "bsmamba2.weights.checkpoint.save_model",
    ),
    "Scores": (
        "bsmamba2.metrics.sdr.csdr",
        "bsmamba2.metrics.sdr.usdr",
        "bsmamba2.metrics.sdr.si_sdr",
        "bsmamba2.metrics.sdr.windowed_sdr",
        "bsmamba2.metrics.speech.stoi",
        "bsmamba2.metrics.speech.pesq",
    ),
    "Commands": (
        "bsmamba2.separation.command.separate_files",
        "bsmamba2.separation.catalogue.separate_catalogue",
        "bsmamba2.evaluation.command.evaluate",
        "bsmamba2.training.command.train",
    ),
    "Errors": ("bsmamba2.errors.InputError",),
}


def on_files(files: Files, config: Any) -> Files:
    """Returns the files of docs/, the documents of other folders, and the reference."""
    for page, document in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / document).read_text(encoding="utf-8")))
    parts = [f"## {heading}\n\n" + "\n\n".join(f"::: {name}" for name in names) for heading, names in REFERENCE.items()]
    first = "What the commands do, as functions. `from bsmamba2 import Separator` and the like work for the main ones."
    files.append(File.generated(config, "api.md", content="\n\n".join(["# Python", first, *parts])))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Returns the text of a page with links to pages; files of the repository that are no page are named only."""
    document = PAGES.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    pages = {path: name for name, path in PAGES.items()}

    def page_of(target: str) -> str | None:
        if re.match(r"\w+:|#|$", target):
            return target
        path = posixpath.normpath(posixpath.join(posixpath.dirname(document), target))
        name = pages.get(path, path.removeprefix("docs/"))
        return name if files.get_file_from_path(name) else None

    def link(match: re.Match[str]) -> str:
        mark, text, target, anchor = match.groups()
        found = page_of(target)
        return text if found is None else f"{mark}[{text}]({found}{anchor or ''})"

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)", link, markdown)
