"""Contact sheets: what the model sees, for people."""

from catheters.viz.contact_sheets import write_contact_sheets

__all__ = ["write_contact_sheets"]
