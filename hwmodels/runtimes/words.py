"""Names that runtime files call operations by: the vocabulary that a misspelt one is told from.

An elementwise op is called by its type in small letters (`dse.graph.lower`), whatever its domain,
so that the vocabulary is open: a word that is near none of these is taken to be somebody's own.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import get_args

from hwmodels.work.work import OpKind

_ONNX = """
    abs acos acosh add affinegrid and argmax argmin asin asinh atan atanh attention averagepool
    batchnormalization bernoulli bitcast bitshift bitwiseand bitwisenot bitwiseor bitwisexor
    blackmanwindow cast castlike causalconvwithstate ceil celu centercroppad clip col2im
    compress concat constant constantofshape conv convinteger convtranspose cos cosh cumprod
    cumsum deformconv depthtospace dequantizelinear det dft div dropout dynamicquantizelinear
    einsum elu equal erf exp expand eyelike flatten floor gather gatherelements gathernd gelu
    gemm globalaveragepool globallppool globalmaxpool greater greaterorequal gridsample
    groupnormalization gru hammingwindow hannwindow hardmax hardsigmoid hardswish identity
    imagedecoder instancenormalization isinf isnan layernormalization leakyrelu less lessorequal
    linearattention log logsoftmax lpnormalization lppool lrn lstm matmul matmulinteger max
    maxpool maxroipool maxunpool mean meanvariancenormalization melweightmatrix min mish mod mul
    multinomial neg negativeloglikelihoodloss nonmaxsuppression nonzero not onehot or pad pow
    prelu qlinearconv qlinearmatmul quantizelinear randomnormal randomnormallike randomuniform
    randomuniformlike range reciprocal reducel1 reducel2 reducelogsum reducelogsumexp reducemax
    reducemean reducemin reduceprod reducesum reducesumsquare regexfullmatch relu reshape resize
    reversesequence rmsnormalization rnn roialign rotaryembedding round scatter scatterelements
    scatternd selu shape shrink sigmoid sign sin sinh size slice softmax softmaxcrossentropyloss
    softplus softsign spacetodepth split sqrt squeeze stft stringconcat stringnormalizer
    stringsplit sub sum swiglu swish tan tanh tensorscatter tfidfvectorizer thresholdedrelu tile
    topk transpose trilu unique unsqueeze upsample where xor
"""
ONNX = frozenset(_ONNX.split())
"""Operators of ONNX on tensors, as of opset 26."""
_CONTRIBUTED = """
    biasadd biasdropout biasgelu biassoftmax biassplitgelu dynamicquantizematmul fastgelu
    fusedconv fusedgemm fusedmatmul gatherblockquantized groupnorm groupqueryattention
    matmulbnb4 matmulinteger16 matmulintegertofloat matmulnbits moe multiheadattention nhwcconv
    nhwcmaxpool qattention qgemm qlinearadd qlinearaveragepool qlinearconcat
    qlinearglobalaveragepool qlinearleakyrelu qlinearmul qlinearreducemean qlinearsigmoid
    qlinearsoftmax qlinearwhere qmoe quickgelu simplifiedlayernormalization skipgroupnorm
    skiplayernormalization skipsimplifiedlayernormalization
"""
CONTRIBUTED = frozenset(_CONTRIBUTED.split())
"""Those of ONNX Runtime's domain `com.microsoft` that exporters write."""
OWN = frozenset({"bias", "rope", "silu", "silu_mul"})
"""Names of patterns of several nodes, and of the bias of a product."""
DETAILS = ONNX | CONTRIBUTED | OWN
"""Words for elementwise ops."""
TAGS = DETAILS | frozenset(get_args(OpKind))
"""Words for what a quantisation is fused into: kinds of ops besides."""
NEAR = 0.8
"""Likeness of two words from which on one is taken to be a slip of the other."""


def misspelt(words: Iterable[str], known: frozenset[str]) -> list[str]:
    """Errors of each word that is none of the known ones, and near one of them."""
    found = []
    for word in words:
        near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=NEAR)
        if word not in known and near:
            found.append(f"unknown operation {word!r}; did you mean {near[0]!r}?")
    return found
