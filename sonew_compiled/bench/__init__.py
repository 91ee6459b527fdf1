"""The measurements of `sonew bench` and `sonew tune`, from outside of the compiler and the runtime.

To read it, begin with `suites` (what a preset runs), `plan` (its runs) and `benchmark` (which carries them out):

- A run is measured by tasks, functions that `_apart` calls in a process of their own: `_row_tasks`, `_versus` (JAX) and
  `_torch`, and `_roofline` for the limits of the machine. `_circumstances` says when and where, and what disturbed it.
- Its row has the form of `_row_format`, and is written and read by `rows`.
- `_lines` groups rows that differ in nothing but the seed. From lines `_table` and `_charts` make what `report` writes:
  text, pictures (`_plots`) and a page (`_page`). `compare` and `export` read rows of several machines.
- `speed` and `workers` are tables of ratios with bounds (`goals`), and need no rows.
- `tuning` is `sonew tune`: `_forms` says what is searched, `enqueued` reads what a user adds to that, `_search` says
  which trial is next, `_study` keeps them, and `_trial` trains. `studies` reads a study, `study_picture` draws it.
"""
