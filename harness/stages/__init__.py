"""The stages of a run: build, generate, judge, report; and what each of them needs to know of models and machines."""
