# %% [markdown] id="report"
# # What is the answer?
#
# **Reads** everything. **Leaves** the run folder, complete.
#
# The question was which of the two methods points more reliably to what a radiologist would call abnormal, by how
# much, and whether something simpler explains it. The sentences below are the answer of this run; they are computed
# from its results.

# %% tags=["answer"]
from lib.runs.report import answers

display(Markdown(answers(results, over_seeds)))

# %% [markdown]
# ## What this run may say, and what it may not
#
# These lists follow from the numbers alone, by rule. Programs can read them in `results.json`, under `claims`. The
# rules are in `lib/evidence/claims.py`.

# %%
from lib.runs.report import claimed

display(Markdown(f"**This run may say that**\n\n{claimed(results, 'may')}"))
display(Markdown(f"**This run may not say that**\n\n{claimed(results, 'may_not')}"))

# %% [markdown]
# ## The answer in one picture
#
# The figure shows all scores of this run as chapter 7 shows the published ones. The dashed line is the strongest tag
# or feature that needs no network at all, in the direction in which it separates. A score to the left of it ranks no
# better than what could be had for less.
#
# The published runs are in [chapter 7](07_what_matters.py). In the run folder, `tables/` holds the tables of results,
# and `figures/` every figure from chapter 1 on.

# %% tags=["answer"]
from lib.figures.ranking import run_ranking
from lib.runs.tracking import finish

trivial = [check for check in audited.checks if check.check in ("tag", "image") and check.away]
strongest = max(trivial, key=lambda check: check.away or 0, default=None)
display(run.save_figure(run_ranking(all_scores, origin, strongest), "answer"))
finish(run, tracker, results)
