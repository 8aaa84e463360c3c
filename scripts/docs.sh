#!/usr/bin/env bash
# Build the documentation site into build/docs/html. Warnings are errors.   bash scripts/docs.sh
EXTRAS=docs
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
rm -rf build/docs
export JAX_PLATFORMS=cpu  # autodoc imports tfm, and must not search for a TPU
"$TFM_VENV/bin/python" scripts/docs/pages.py build/docs/pages
"$TFM_VENV/bin/python" -m sphinx -q -W --keep-going -j auto -c scripts/docs build/docs/pages build/docs/html
echo "docs: open build/docs/html/index.html"
