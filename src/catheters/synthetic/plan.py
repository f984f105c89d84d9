"""Who is imaged how often with which catheters: everything about a sample but its pixels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from catheters.labels import RANZCR_LABELS
from catheters.synthetic.anatomy import Patient, View, draw_patient, draw_view
from catheters.synthetic.hospitals import FIRST, Hospital, States
from catheters.synthetic.lines_and_tubes import ENTRIES, Catheter, place_catheter
from catheters.synthetic.radiographs import Radiograph

CHANCE_TO_CHANGE = 0.25
"""How often an image's catheters of a device type differ from what its patient mostly has."""
ENTRY_SHARES = {
    "right jugular": 0.34,
    "left jugular": 0.16,
    "right subclavian": 0.14,
    "left subclavian": 0.12,
    "right arm": 0.12,
    "left arm": 0.12,
}

assert ENTRY_SHARES.keys() == ENTRIES.keys()


@dataclass(frozen=True)
class ImagePlan:
    """One image before it is drawn."""

    uid: str
    patient_id: str
    patient: Patient
    view: View
    catheters: tuple[Catheter, ...]
    drawing_seed: tuple[int, ...]
    """Seed of noise, exposure, leads and whatever else decides no label."""
    background: Radiograph | None = None
    """The real radiograph that the catheters are drawn on; None: the chest is drawn as well."""
    hospital: Hospital = FIRST
    """Where it is taken."""

    @property
    def labels(self) -> tuple[int, ...]:
        """0/1 in the order of RANZCR_LABELS."""
        present = {catheter.label for catheter in self.catheters}
        return tuple(int(label in present) for label in RANZCR_LABELS)


def images_per_patient(num_images: int, rng: np.random.Generator) -> list[int]:
    """How many images each patient has: 1 to 12, about 3 on average, `num_images` in all."""
    counts: list[int] = []
    while sum(counts) < num_images:
        counts.append(int(min(rng.geometric(0.34), 12, num_images - sum(counts))))
    return counts


def usual_states(counts: list[int], shares: States, rng: np.random.Generator) -> list[list[str]]:
    """What each patient mostly has, such that the shares of images hold as nearly as whole patients allow.

    Independent draws would leave a rare label of a small sample to chance, since a patient brings several images at
    once: each patient, the ones with most images first, takes one of the states that lack most images instead.
    """
    states = list(shares)
    missing = np.array([shares[state] for state in states]) * sum(counts)
    usual: list[list[str]] = [[] for _ in counts]
    for patient in sorted(rng.permutation(len(counts)), key=lambda index: -counts[index]):
        weights = np.maximum(missing, 1e-9) ** 2
        choice = rng.choice(len(states), p=weights / weights.sum())
        missing[choice] -= counts[patient]
        usual[patient] = list(states[choice])
    return usual


def synthetic_uid(rng: np.random.Generator) -> str:
    """A UID of the form 2.25.<decimal UUID>, the root of which needs no registration and is no hospital's."""
    return f"2.25.{int.from_bytes(rng.bytes(16), 'big')}"


def plan_image(
    patient: Patient,
    patient_id: str,
    usual: dict[str, list[str]],
    entries: list[str],
    view_of: Callable[[np.random.Generator], View],
    seed: tuple[int, ...],
    hospital: Hospital = FIRST,
) -> ImagePlan:
    """Catheters of one image: mostly what the patient usually has, each a little elsewhere than in the last image."""
    rng = np.random.default_rng(seed)
    uid = synthetic_uid(rng)
    view = view_of(rng)
    catheters: list[Catheter] = []
    for type_number, (device_type, shares) in enumerate(hospital.states.items()):
        states = usual[device_type]
        if rng.random() < CHANCE_TO_CHANGE:
            states = list(list(shares)[rng.choice(len(shares), p=list(shares.values()))])
        for number, state in enumerate(states):
            entry = entries[-1] if device_type == "Swan" else entries[number]
            habit = np.random.default_rng([patient.texture_seed, type_number, number])
            catheters.append(
                place_catheter(device_type, state, entry, patient=patient, view=view, habit=habit, rng=rng)
            )
    return ImagePlan(uid, patient_id, patient, view, tuple(catheters), (*seed, 1), hospital=hospital)


def draw_entries(rng: np.random.Generator) -> list[str]:
    """Where the three central venous catheters of a patient would enter, and the Swan-Ganz catheter (last)."""
    entries = list(rng.choice(list(ENTRY_SHARES), size=3, replace=False, p=list(ENTRY_SHARES.values())))
    return [*entries, "right jugular" if rng.random() < 0.75 else "left jugular"]


def plan_sample(
    num_images: int, *, image_size: int = 512, seed: int = 0, first_patient: int = 0, hospital: Hospital = FIRST
) -> list[ImagePlan]:
    """Plan `num_images` images, shuffled as in RANZCR's table. The same arguments give the same plan.

    `first_patient` is the number of the first patient, beside the hospital's own, so that two plans (training and test)
    share nobody.
    """
    first_patient += hospital.first_patient
    rng = np.random.default_rng([seed, first_patient])
    counts = images_per_patient(num_images, rng)
    usual = {device_type: usual_states(counts, shares, rng) for device_type, shares in hospital.states.items()}
    plans = []
    for index, count in enumerate(counts):
        number = first_patient + index
        patient_rng = np.random.default_rng([seed, number, 0])
        patient = draw_patient(patient_rng)
        entries = draw_entries(patient_rng)
        of_patient = {device_type: states[index] for device_type, states in usual.items()}
        for image in range(count):
            seeds = (seed, number, 1 + image)
            view_of = partial(draw_view, image_size=image_size)
            plans.append(plan_image(patient, f"syn{number:06d}", of_patient, entries, view_of, seeds, hospital))
    return [plans[i] for i in rng.permutation(len(plans))]


def plan_on(radiographs: Sequence[Radiograph], num_images: int, digest: str, *, seed: int = 0) -> list[ImagePlan]:
    """Plan `num_images` drawings on real radiographs, as many on each as on any other, or one more; shuffled.

    Each image is planned for itself: a radiograph's other drawings, and its patient's, say nothing about its catheters.
    `digest` is of the radiographs, hexadecimal: drawings on others have other ids.
    """
    rng = np.random.default_rng([seed, 0])
    usual = {device_type: usual_states([1] * num_images, shares, rng) for device_type, shares in FIRST.states.items()}
    plans = []
    for number in range(num_images):
        radiograph = radiographs[number % len(radiographs)]
        entries = draw_entries(np.random.default_rng([seed, number, 0]))
        of_image = {device_type: states[number] for device_type, states in usual.items()}
        patient = replace(radiograph.fit.patient, texture_seed=number)
        view_of = partial(fitted_view, radiograph)
        plan = plan_image(patient, radiograph.patient_id, of_image, entries, view_of, (seed, number, 1))
        shown = tuple(catheter for catheter in plan.catheters if is_readable(catheter, plan.view))
        uid = synthetic_uid(np.random.default_rng([seed, number, int(digest, 16)]))
        plans.append(replace(plan, uid=uid, catheters=shown, background=radiograph))
    return [plans[i] for i in rng.permutation(len(plans))]


def fitted_view(radiograph: Radiograph, _: np.random.Generator) -> View:
    """The one view that a radiograph has."""
    return radiograph.fit.view


def is_readable(catheter: Catheter, view: View) -> bool:
    """Whether an image shows enough of a catheter for its label: some of its course, and its tip if that decides."""
    shows_tip = view.contains(catheter.course_px[-1])
    return shows_tip or (catheter.device_type == "NGT" and any(view.contains(point) for point in catheter.course_px))
