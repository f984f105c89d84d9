"""Contact sheets: what the model sees, for people."""

from catheters.data.pictures.sheets import write_contact_sheets

__all__ = ["write_contact_sheets"]
