"""Coverage-guided fuzzing of everything that takes bytes or text from others.

Each `fuzz_<name>.py` is one target: a plain function `fuzz_one(data)` that is deterministic and fails by raising.
`python -m fuzz.fuzz_<name>` runs it, under atheris where there is one; `make fuzz` runs them all, and
`tests/test_fuzz_corpus.py` replays what lies in `corpus/<name>/`. See docs/testing.md.
"""
