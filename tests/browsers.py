"""The Chromium that tests look at pages with, and how it is started without a screen."""

import os
import shutil

import pytest

CHROMIUM = os.environ.get("EMCURATE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium found; apt-get install chromium, or set EMCURATE_CHROMIUM"
)
