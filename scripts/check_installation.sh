#!/usr/bin/env bash
# Builds the wheel and the sources, installs each into an empty environment, and runs what the README shows first, in
# folders without this repository. `python3` is the Python that is tried, with the newest version of every dependency, or
# those of PIP_CONSTRAINT. Takes minutes.
set -euo pipefail
# The environments are empty; nothing else may be found.
unset PYTHONPATH
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
size() { echo "$1: $(pip list --format=freeze | wc -l) packages, $(du -sm "$2" | cut -f1) MB"; }

python3 -m venv "$work/build"
"$work/build/bin/python" -m pip install --quiet build twine
"$work/build/bin/python" -m build --outdir "$work/dist" .
"$work/build/bin/python" -m twine check --strict "$work"/dist/*

echo "from the sources"
mkdir "$work/sources"
tar --extract --file "$work"/dist/*.tar.gz --directory "$work/sources" --strip-components 1
cd "$work/sources"
python3 -m venv .venv && source .venv/bin/activate
pip install .
size core .venv
mkdir "$work/elsewhere"
cd "$work/elsewhere"
bsmamba2 --version
python -m bsmamba2 --version
bsmamba2 models
bsmamba2 doctor
python "$work/sources/scripts/check_core.py"
python - <<'SONG'
import numpy, soundfile

soundfile.write("song.mp3", 0.1 * numpy.random.default_rng(0).standard_normal((44100, 2)), 44100)
SONG
bsmamba2 separate song.mp3
test -s stems/song/vocals.wav
test -s stems/song/instrumental.wav
cd "$work/sources"
pip install ".[all]"
size all .venv
cd "$work/elsewhere"
bsmamba2 demo
cd "$work/sources"
pip install ".[test]"
python -m pytest --quiet --collect-only | tail -1
python -m pytest --quiet tests/test_installation.py tests/metrics tests/model
deactivate

echo "from the wheel"
python3 -m venv "$work/wheel"
source "$work/wheel/bin/activate"
pip install --find-links "$work/dist" "bsmamba2[stretch,speech]"
cd "$work/elsewhere"
rm -r stems
bsmamba2 separate song.mp3
test -s stems/song/vocals.wav
