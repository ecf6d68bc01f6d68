"""Drawing a run: a page in the browser, live or self-contained."""
