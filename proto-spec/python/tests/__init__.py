"""Tests of the package. What it logs is looked at where it matters."""

import logging

logging.getLogger("duragram").addHandler(logging.NullHandler())
