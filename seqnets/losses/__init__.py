"""Losses as pure, unreduced functions; `seqnets.reduction.weighted` sums them with masks.

All losses are computed in float32 or wider, for inputs of any float type. Arrays must have equal
shapes where the documentation does not say otherwise; they are never broadcast.
"""

from seqnets.losses.activity import activity as activity
from seqnets.losses.activity import temporal_activity as temporal_activity
from seqnets.losses.adversarial import gradient_penalty as gradient_penalty
from seqnets.losses.adversarial import hinge_discriminator as hinge_discriminator
from seqnets.losses.adversarial import hinge_generator as hinge_generator
from seqnets.losses.adversarial import least_squares_discriminator as least_squares_discriminator
from seqnets.losses.adversarial import least_squares_generator as least_squares_generator
from seqnets.losses.adversarial import non_saturating_discriminator as non_saturating_discriminator
from seqnets.losses.adversarial import non_saturating_generator as non_saturating_generator
from seqnets.losses.adversarial import wasserstein_discriminator as wasserstein_discriminator
from seqnets.losses.adversarial import wasserstein_generator as wasserstein_generator
from seqnets.losses.classification import binary_cross_entropy as binary_cross_entropy
from seqnets.losses.classification import binary_focal as binary_focal
from seqnets.losses.classification import categorical_cross_entropy as categorical_cross_entropy
from seqnets.losses.classification import cross_entropy as cross_entropy
from seqnets.losses.classification import focal as focal
from seqnets.losses.likelihood import gaussian as gaussian
from seqnets.losses.likelihood import negative_binomial as negative_binomial
from seqnets.losses.likelihood import pinball as pinball
from seqnets.losses.likelihood import student_t as student_t
from seqnets.losses.regression import absolute_error as absolute_error
from seqnets.losses.regression import huber as huber
from seqnets.losses.regression import log_cosh as log_cosh
from seqnets.losses.regression import squared_error as squared_error
from seqnets.losses.segmentation import dice as dice
from seqnets.losses.segmentation import generalized_dice as generalized_dice
