"""Which label a catheter gets: pure functions of where its tip lies.

Lengths are millimetres of the atlas (see `anatomy`), measured along the catheter's course. The bands follow the usual
teaching (Godoy, Leitman, de Groot, Vlahos, Naidich: "Chest radiography in the ICU: part 1/2", AJR 2012) and are
simplified: they label drawings, not patients.

    type    label                  tip
    ETT     Normal                 30 to 70 mm above the carina
            Borderline             15 to 30 mm, or 70 to 90 mm above it
            Abnormal               lower (down to a main bronchus, which counts as negative), or higher
    NGT     Incompletely Imaged    out of the image
            Abnormal               above the gastro-oesophageal junction, in an airway, or the tube is coiled
            Borderline             in the stomach, less than 60 mm beyond the junction
            Normal                 60 mm beyond it or more
    CVC     Normal                 in the lower superior vena cava: 5 mm above to 45 mm below the carina's level
            Borderline             in a brachiocephalic vein (to 60 mm above), or in the high right atrium (to 70 mm)
            Abnormal               short of that, deeper (low atrium, ventricle), or in a vein that leads elsewhere
    Swan    Present                anywhere
"""

SWAN_LABEL = "Swan Ganz Catheter Present"


def ett_label(height_mm: float) -> str:
    """Label of an endotracheal tube whose tip lies `height_mm` above the carina (negative: in a main bronchus)."""
    if 30 <= height_mm <= 70:
        return "ETT - Normal"
    if 15 <= height_mm <= 90:
        return "ETT - Borderline"
    return "ETT - Abnormal"


def ngt_label(depth_mm: float, *, tip_in_image: bool, in_airway: bool = False, is_coiled: bool = False) -> str:
    """Label of a nasogastric tube whose tip lies `depth_mm` beyond the gastro-oesophageal junction."""
    if in_airway or is_coiled:
        return "NGT - Abnormal"
    if not tip_in_image:
        return "NGT - Incompletely Imaged"
    if depth_mm < 0:
        return "NGT - Abnormal"
    return "NGT - Borderline" if depth_mm < 60 else "NGT - Normal"


def cvc_label(depth_mm: float, *, in_wrong_vein: bool = False) -> str:
    """Label of a central venous catheter whose tip lies `depth_mm` below the level of the carina.

    Above that level the length is negative and counts along the veins. `in_wrong_vein`: the catheter turned off the
    way to the heart, up the neck or to the other side.
    """
    if in_wrong_vein:
        return "CVC - Abnormal"
    if -5 <= depth_mm <= 45:
        return "CVC - Normal"
    return "CVC - Borderline" if -60 <= depth_mm <= 70 else "CVC - Abnormal"
