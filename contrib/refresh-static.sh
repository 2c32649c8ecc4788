#!/bin/sh
# Fetches anew what others have written and the dashboard serves: contrib/refresh-static.sh [uPlot's version].
# The files lie in the package with their licence, and no page asks another host for them; the
# accessibility checker is for the tests alone. Read the difference before you commit it.
set -eu
cd "$(dirname "$0")/.."
static=cronflowd/web/pages/static
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$made" "uplot@${1:-latest}" axe-core
cp "$made/node_modules/uplot/dist/uPlot.iife.min.js" $static/uplot.js
cp "$made/node_modules/uplot/dist/uPlot.min.css" $static/uplot.css
cp "$made/node_modules/uplot/LICENSE" $static/uplot.LICENSE
cp "$made/node_modules/axe-core/axe.min.js" tests/data/axe/axe.min.js
cp "$made/node_modules/axe-core/LICENSE" tests/data/axe/LICENSE
git --no-pager diff --stat -- $static tests/data/axe
