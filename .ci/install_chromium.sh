#!/bin/sh
# Installs Debian's Chromium for tests/test_labeling_browser.py where it is missing. Where it cannot be installed, those
# tests skip and say so. Playwright comes with no browser here: the tests drive this one.
set -eu
if command -v chromium >/dev/null || command -v chromium-browser >/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "no apt-get: install Chromium yourself to run the browser tests" >&2
    exit 0
fi
as_root=""
if [ "$(id -u)" -ne 0 ]; then
    as_root="sudo -n"
fi
export DEBIAN_FRONTEND=noninteractive
if $as_root apt-get update -qq && $as_root apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core >/dev/null; then
    chromium --version
else
    echo "Chromium could not be installed: the browser tests will skip" >&2
fi
