"""Numbers and differences -> the text that sentences, tables and figures share."""

from lib.evidence.results import Difference, Estimate

GAP = "–"  # stands in a table where there is no number


def percent(share: float) -> str:
    """A share in [0, 1] as "95 %"."""
    return f"{round(100 * round(share, 9))} %"  # 1 - 0.975 is more than 0.025; an integer has no minus zero


def estimate_text(estimate: Estimate | None, signed: bool = False) -> str:
    """An estimate as "0.713 [0.61, 0.80]", or "+0.713 [+0.61, +0.80]" if `signed`; a dash where there is none."""
    if estimate is None:
        return GAP
    sign = "+" if signed else ""
    return f"{estimate.value:{sign}.3f} [{estimate.low:{sign}.2f}, {estimate.high:{sign}.2f}]"


def difference_text(difference: Difference) -> str:
    """A difference of AUROCs, and whether its interval excludes zero."""
    verdict = "no difference shown" if difference.auroc.contains(0) else "the interval excludes zero"
    names = f"{difference.first} − {difference.second}"
    return f"AUROC {names} = {estimate_text(difference.auroc, signed=True)}: {verdict}"
