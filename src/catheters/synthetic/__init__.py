"""Synthetic data sets in RANZCR CLiP's layout: tubes and lines whose labels are known, drawn on chests that are drawn
as well, or on real radiographs."""

from catheters.synthetic.plan import ImagePlan, plan_sample
from catheters.synthetic.writer import generate_on, generate_sample, kind_of_images

__all__ = ["ImagePlan", "generate_on", "generate_sample", "kind_of_images", "plan_sample"]
