"""`python -m throughline` is `throughline`."""

from throughline.main import app

app(prog_name="throughline")
