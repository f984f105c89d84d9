"""A synthetic data set in RANZCR CLiP's layout: chest radiographs drawn with tubes and lines whose labels are known."""

from catheters.synthetic.plan import ImagePlan, plan_sample
from catheters.synthetic.writer import generate_sample, is_synthetic

__all__ = ["ImagePlan", "generate_sample", "is_synthetic", "plan_sample"]
