"""Whether an adapter helps, document by document: both models are measured on the same text, so differences are paired.

Source: Cochran, Sampling Techniques (3rd edition, 1977), chapter 6, the ratio estimator with documents as the sampled
units; Miller, Adding Error Bars to Evals (arXiv 2411.00640), paired differences and clustered standard errors.
"""

from __future__ import annotations

import math

from publisher.manifest.evaluation import PairedDifference
from worker.evaluation.perplexity import DocumentLosses


def paired_difference(base: DocumentLosses, other: DocumentLosses) -> PairedDifference:
    """Of the loss of `base` minus that of `other`, in nats per token; positive: `other` is better.

    With d_i the difference of document i's summed losses and t_i its tokens, the mean is R = sum d_i / sum t_i:
    documents weigh by their tokens, so that R = ln(perplexity of base / perplexity of other). Its variance is
    n / (n - 1) * sum (d_i - R t_i)^2 / (sum t_i)^2 over the n documents, of which the corpus may have many more.
    """
    differences = [before - after for before, after in zip(base.nats, other.nats, strict=True)]
    documents, tokens = len(differences), sum(base.tokens)
    mean = math.fsum(differences) / tokens
    if documents < 2:
        return PairedDifference(documents=documents, mean=mean)
    residuals = (difference - mean * count for difference, count in zip(differences, base.tokens, strict=True))
    squares = math.fsum(residual**2 for residual in residuals)
    error = math.sqrt(documents / (documents - 1) * squares) / tokens
    return PairedDifference(documents=documents, mean=mean, standard_error=error)
