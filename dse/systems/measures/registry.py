"""Every measure by the name that claims use."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

from pydantic import TypeAdapter

from dse.errors import StudyError, nearest
from dse.systems.measures.circuits import CircuitFigures
from dse.systems.measures.control import FunctionForms, SwungUp
from dse.systems.measures.coverage import Expressible
from dse.systems.measures.learned import BitAllocation, LearnedRounding, NarrowedCodes
from dse.systems.measures.measure import Measure
from dse.systems.measures.memory import DecoderMemory, StageCost, StateBytes
from dse.systems.measures.moments import DirectionError, KeptMoment, LeastSquares, StepAfterShift
from dse.systems.measures.networks import (
    CertifiedClasses,
    PlantedChannel,
    ReplayedPlateau,
    SharpnessSearch,
    SummedGradients,
    TrainedMethods,
)
from dse.systems.measures.physics import ChaoticFlow, SlowDiffusion
from dse.systems.measures.prices import FewSamples, ProductPrices, ServedTokens, StepPrices
from dse.systems.measures.quantization import (
    MeanError,
    ProductError,
    QuantizationError,
    RoundingBias,
    ScaleAfterChange,
)
from dse.systems.measures.shallow_water import ShallowWater
from dse.systems.measures.sums import AffineProduct, IntegerSums, SumError, TableProduct
from dse.systems.measures.tables import CodeTable, FormatFacts
from dse.systems.schema import Claim
from hwmodels.validation import validated

MEASURES: Mapping[str, type[Measure]] = MappingProxyType({
    "affine_product": AffineProduct,
    "bit_allocation": BitAllocation,
    "certified_classes": CertifiedClasses,
    "chaotic_flow": ChaoticFlow,
    "circuit_figures": CircuitFigures,
    "code_table": CodeTable,
    "decoder_memory": DecoderMemory,
    "direction_error": DirectionError,
    "expressible": Expressible,
    "few_samples": FewSamples,
    "format_facts": FormatFacts,
    "function_forms": FunctionForms,
    "integer_sums": IntegerSums,
    "kept_moment": KeptMoment,
    "learned_rounding": LearnedRounding,
    "least_squares": LeastSquares,
    "mean_error": MeanError,
    "narrowed_codes": NarrowedCodes,
    "planted_channel": PlantedChannel,
    "product_error": ProductError,
    "product_prices": ProductPrices,
    "quantization_error": QuantizationError,
    "replayed_plateau": ReplayedPlateau,
    "rounding_bias": RoundingBias,
    "scale_after_change": ScaleAfterChange,
    "served_tokens": ServedTokens,
    "shallow_water": ShallowWater,
    "sharpness_search": SharpnessSearch,
    "slow_diffusion": SlowDiffusion,
    "stage_cost": StageCost,
    "state_bytes": StateBytes,
    "step_after_shift": StepAfterShift,
    "step_prices": StepPrices,
    "sum_error": SumError,
    "summed_gradients": SummedGradients,
    "swung_up": SwungUp,
    "table_product": TableProduct,
    "trained_methods": TrainedMethods,
})  # fmt: skip


def measure_of(claim: Claim) -> Measure:
    """The measure of a claim with its options.

    Raises:
        StudyError: there is none of that name, or options do not fit it.
    """
    if claim.measure not in MEASURES:
        raise StudyError(
            f"measure: unknown {claim.measure!r}{nearest(claim.measure, MEASURES) or '.'} "
            f"Known: {', '.join(MEASURES)}"
        )
    adapter: TypeAdapter[object] = TypeAdapter(MEASURES[claim.measure])
    return cast("Measure", validated(adapter, dict(claim.options), "options", StudyError))
